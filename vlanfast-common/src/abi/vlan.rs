//! The key of the map `COUNTERS`.

use super::addr::Vid;

/// The VLAN of the trunk that a frame belongs to. Its number is the key of the map `COUNTERS`.
///
/// It is one number and not an enum with a payload: where LLVM leaves a payload undefined, the verifier sees a register
/// that was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan(u16);

impl Vlan {
    /// Untagged and priority-tagged frames.
    pub const UNTAGGED: Self = Self::id(Vid::UNTAGGED);
    /// The outermost tag is an 802.1ad service tag, whose VIDs are another number space.
    pub const SERVICE: Self = Self(4096);
    /// The frame ends before its tag does.
    pub const TRUNCATED: Self = Self(4097);
    /// The number of keys.
    pub const COUNT: u32 = 4098;

    /// An 802.1Q VLAN.
    #[inline(always)]
    pub const fn id(vid: Vid) -> Self {
        Self(vid.get())
    }

    /// The VID; `None` for [`SERVICE`](Self::SERVICE) and [`TRUNCATED`](Self::TRUNCATED).
    #[inline(always)]
    pub fn vid(self) -> Option<Vid> {
        (self.0 < Self::SERVICE.0).then(|| Vid::new(self.0))
    }

    /// The word in `counters` and in metrics for the tag that its frames carry.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::UNTAGGED => "untagged",
            Self::SERVICE => "802.1ad",
            Self::TRUNCATED => "truncated",
            _ => "802.1Q",
        }
    }

    /// The key in the map: the VID, 4096 or 4097.
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self.0 as u32
    }

    /// The VLAN of a key.
    #[inline(always)]
    pub(crate) const fn from_key(key: u16) -> Self {
        Self(key)
    }

    /// Every VLAN that is counted, in the order of the keys.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::TRUNCATED.0).map(Self)
    }
}
