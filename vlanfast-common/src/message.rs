//! What a frame says of addresses, whatever protocol it says it in.

use crate::abi::{Mac, NeighborKey};

/// The address that a frame asks for, and the address that its sender claims. A frame that is about anything else, or
/// cannot be read, does neither.
///
/// There are no `Option`s inside, and no padding: where LLVM leaves bytes undefined, the verifier sees a register or a
/// place on the stack that was never written. 54 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The address that a group frame asks for; version 0 stands for none.
    pub(crate) target: NeighborKey,
    /// The client of a DHCP reply; 0 stands for none.
    pub(crate) client: Mac,
    /// The address that the sender claims; version 0 stands for none.
    pub(crate) sender: NeighborKey,
    /// The MAC that the sender gives for its address.
    pub(crate) mac: Mac,
    /// 1 where the frame only announces the sender's address to a group, else 0. Two bytes, so that there is no padding.
    pub(crate) announces: u16,
}

const _: () = assert!(size_of::<Message>() == 54);

/// What a group frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The target of an ARP request or a neighbour solicitation.
    Address(NeighborKey),
    /// The client of a DHCP reply.
    Mac(Mac),
}

impl Message {
    /// What a group frame asks for.
    #[inline(always)]
    pub fn asks(&self) -> Option<Target> {
        if self.target.version != 0 {
            return Some(Target::Address(self.target));
        }
        (self.client != Mac::default()).then_some(Target::Mac(self.client))
    }

    /// The address that the sender claims, and the MAC that it gives for it.
    #[inline(always)]
    pub fn says(&self) -> Option<(NeighborKey, Mac)> {
        (self.sender.version != 0).then_some((self.sender, self.mac))
    }

    /// Whether the frame only announces the sender's address to a group, and asks for nothing: gratuitous ARP (RFC 5227
    /// clause 3), or a neighbour advertisement (RFC 4861 clause 4.4).
    #[inline(always)]
    pub const fn announces(&self) -> bool {
        self.announces != 0
    }
}
