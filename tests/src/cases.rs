//! Tables of frames, each with its expected verdict. Level `kernel` runs them all.

pub mod claims;
pub mod deliver;
pub mod egress;
pub mod frame_case;
pub mod learned;
pub mod limits;
pub mod packets;
pub mod shortcut;
pub mod steering;
