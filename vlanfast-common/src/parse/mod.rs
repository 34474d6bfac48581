//! Reads frames. Every function here is total: any bytes have a result, and none is read past its end.

mod ethernet;
mod forget;
mod gso;
mod ip;
mod next_header;
mod target;
mod transport;
mod udp_tunnel;
mod wire_len;

pub use ethernet::parse;
pub use gso::repeated;
pub use ip::{IpVersion, Network, V4, V6, ends};
pub use target::{hides, is_icmpv6};
pub use transport::Transport;
pub use wire_len::{longest, wire};
