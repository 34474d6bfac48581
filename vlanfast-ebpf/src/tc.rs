//! The TC hooks, on the trunk and on VLAN devices.

mod act;
mod frame;
mod program;
mod vlan_device;

pub use program::trunk;
pub use vlan_device::vlan_device;
