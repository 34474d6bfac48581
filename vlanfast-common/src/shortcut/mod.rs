//! `--shortcut`: packets between two containers of this host that do without the router between their VLANs, by the
//! administrator's word ([`allow`]) or by the router's ([`learn()`]).

mod allow;
mod cache;
mod flow;
mod learn;
mod packet;
mod rewrite;

pub use allow::{fits, shortcut};
pub use cache::RouteCacheEntry;
pub use flow::{ANSWER, Arrival, CANDIDATE, FlowState, IDLE, LATE, Step};
pub use learn::learn;
pub use packet::Packet;
pub use rewrite::Hop;
