//! What becomes of a frame: from its headers and the tables to a [`Verdict`]. Whatever is not understood,
//! not known or not sure is passed.

mod egress;
mod ingress;

use crate::{
    Bucket, Direction, Endpoint, EndpointKey, Frame, Headers, Neighbor, NeighborKey, Parent, Route,
    Settings, Verdict, Vid,
};

/// What a decision is based on beside the frame. In the kernel the switches are constants, so that what
/// is off costs nothing.
pub trait Tables {
    fn steers(&self) -> bool;

    /// In frames/s for each VLAN; 0 for none.
    fn storm_limit(&self) -> u32;

    /// See [`Shed::Vlan`](crate::Shed::Vlan); on as well where the next one is.
    fn sheds_vlans(&self) -> bool;

    /// See [`Shed::Mac`](crate::Shed::Mac).
    fn sheds_macs(&self) -> bool;

    /// Whether [`Parent::HOST_ACCESS`] can be set anywhere.
    fn gives_host_access(&self) -> bool;

    /// Whether there can be a [`Tables::route`].
    fn takes_shortcuts(&self) -> bool;

    /// The device for a VLAN; the trunk itself for VID 0.
    fn parent(&self, vid: Vid) -> Parent;

    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint>;

    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor>;

    fn route(&self, key: NeighborKey) -> Option<Route>;

    fn bucket(&self, vid: Vid) -> Option<&Bucket>;

    fn settings(&self) -> Option<&Settings>;

    /// In nanoseconds, by the clock of [`Settings::heartbeat`], to about 10 ms.
    fn now(&self) -> u64;
}

/// Where layer 2 ends at the latest: behind two tags. No frame on a wire is as short.
pub const HEAD: usize = 22;

/// Decides over a frame.
#[inline(always)]
pub fn classify(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Verdict {
    match screen(frame, headers, direction, tables) {
        Some(verdict) => verdict,
        None => consider(frame, headers, direction, tables),
    }
}

/// The short part of a decision, which is enough for most frames.
#[inline(always)]
pub fn screen(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Option<Verdict> {
    match direction {
        Direction::Rx => ingress::screen(frame, headers, tables),
        Direction::Tx => {
            let is_left_alone = !tables.gives_host_access() && !tables.takes_shortcuts();
            is_left_alone.then_some(Verdict::Pass)
        }
    }
}

/// The long part, over the frames for which the short one is not enough.
#[inline(always)]
pub fn consider(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Verdict {
    let Some(vid) = headers.vlan.vid().filter(|_| frame.len() >= HEAD) else {
        return Verdict::Pass;
    };
    match direction {
        Direction::Rx => ingress::group(frame, headers, vid, tables),
        Direction::Tx => egress::classify(frame, headers, vid, tables),
    }
}

/// That the tables are kept true.
struct Trust {
    now: u64,
    /// See [`Settings::incomplete`].
    incomplete: u32,
}

/// Looks at the heartbeat: last, because most verdicts need no clock.
#[inline(always)]
fn trust(tables: &impl Tables) -> Option<Trust> {
    let settings = tables.settings()?;
    let now = tables.now();
    (settings.heartbeat > now).then_some(Trust {
        now,
        incomplete: settings.incomplete,
    })
}
