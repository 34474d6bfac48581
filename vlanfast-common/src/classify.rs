//! What becomes of a frame: from its headers and the tables to a [`Verdict`]. Whatever is not understood,
//! not known or not sure is passed.

mod allowed;
mod egress;
mod ingress;
mod learned;

use crate::{
    Bucket, Cast, Direction, Endpoint, EndpointKey, Flow, FlowKey, Frame, Headers, Neighbor,
    NeighborKey, Packet, Pair, PairKey, Parent, Protocol, Reason, Route, Settings, Verdict, Vid,
    Vlan,
};

pub use allowed::destination;
pub use learned::learn;

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

    /// See [`Shortcut::Allow`](crate::Shortcut::Allow).
    fn takes_shortcuts(&self) -> bool;

    /// See [`Shortcut::Learned`](crate::Shortcut::Learned).
    fn learns(&self) -> bool;

    /// After how many nanoseconds a flow asks again; 0 for never.
    fn refresh(&self) -> u64;

    /// Whether unicast goes to its taker's device at once, which only TC can do.
    fn delivers(&self) -> bool;

    /// The device for a VLAN; the trunk itself for VID 0.
    fn parent(&self, vid: Vid) -> Parent;

    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint>;

    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor>;

    /// By the sender's VLAN where the administrator has said which, else from anywhere.
    fn route(&self, key: NeighborKey) -> Option<Route>;

    fn flow(&self, key: &FlowKey) -> Option<&Flow>;

    /// Makes one that is all zero.
    fn open_flow(&self, key: &FlowKey) -> Option<&Flow>;

    fn forget_flow(&self, key: &FlowKey);

    /// Makes it where it is not there.
    fn pair(&self, key: PairKey) -> Option<&Pair>;

    fn bucket(&self, vid: Vid) -> Option<&Bucket>;

    fn settings(&self) -> Option<&Settings>;

    /// In nanoseconds, by the clock of [`Settings::heartbeat`], to about 10 ms.
    fn now(&self) -> u64;

    /// The same, exactly.
    fn exact_now(&self) -> u64;

    /// Whether a [`Settings::heartbeat`] is ahead of now.
    #[inline(always)]
    fn is_ahead(&self, heartbeat: u64) -> bool {
        heartbeat > self.now()
    }
}

/// Where layer 2 ends at the latest: behind two tags. No frame on a wire is as short.
pub const HEAD: usize = 22;

/// Whether a frame that is neither shed nor takes the [`shortcut`] is passed whatever is in the tables: the
/// common case.
#[inline(always)]
pub fn is_plain(headers: &Headers, direction: Direction, tables: &impl Tables) -> bool {
    match direction {
        // The constants one after the other, so that each is a branch that the verifier removes. What is
        // reflected to the trunk itself comes in again.
        Direction::Rx => {
            let is_read = tables.learns() || tables.delivers();
            headers.cast == Cast::Unicast
                && !is_read
                && !(tables.gives_host_access() && headers.vlan == Vlan::UNTAGGED)
        }
        Direction::Tx => !decides(direction, tables) && !tables.learns(),
    }
}

/// Decides over a frame.
#[inline(always)]
pub fn classify(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Verdict {
    if let Some(reason) = shed(frame, headers, direction, tables) {
        return Verdict::Drop(reason);
    }
    let routed = shortcut(frame, headers, direction, tables);
    if routed != Verdict::Pass {
        return routed;
    }
    let verdict = decide(frame, headers, direction, tables);
    let learnt = match learnable(frame, headers) {
        Some(packet) if tables.learns() => learn(&packet, direction, tables),
        _ => Verdict::Pass,
    };
    match learnt {
        Verdict::Pass => verdict,
        learnt => learnt,
    }
}

/// The first part: why nobody takes a frame, if that is sure.
#[inline(always)]
pub fn shed(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Option<Reason> {
    if direction == Direction::Tx || !tables.sheds_vlans() {
        return None;
    }
    ingress::shed(frame, headers, vid(frame, headers)?, tables)
}

/// The second part: whether a packet that is for a router does without, by the administrator's word.
#[inline(always)]
pub fn shortcut(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Verdict {
    let may = direction == Direction::Tx && tables.takes_shortcuts();
    match vid(frame, headers) {
        // Where the device has a program, that has decided, unless the tag was among the bytes by then.
        Some(vid) if may => match frame.stripped_tag() {
            Some(_) if tables.parent(vid).has(Parent::PROGRAM) => Verdict::Pass,
            _ => shortcut_of(frame, headers, vid, tables),
        },
        _ => Verdict::Pass,
    }
}

/// The same from a VLAN's own device.
#[inline(always)]
pub fn shortcut_of(
    frame: &impl Frame,
    headers: &Headers,
    vid: Vid,
    tables: &impl Tables,
) -> Verdict {
    match headers.cast {
        Cast::Unicast => allowed::shortcut(frame, headers, vid, tables),
        _ => Verdict::Pass,
    }
}

/// Whether the next part has a say: of what leaves, by host access alone.
#[inline(always)]
pub fn decides(direction: Direction, tables: &impl Tables) -> bool {
    direction == Direction::Rx || tables.gives_host_access()
}

/// The third part, over all other frames.
#[inline(always)]
pub fn decide(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> Verdict {
    match (vid(frame, headers), direction) {
        (None, _) => Verdict::Pass,
        (Some(vid), Direction::Rx) => ingress::classify(frame, headers, vid, tables),
        (Some(vid), Direction::Tx) => egress::classify(frame, headers, vid, tables),
    }
}

/// The shortcut by the router's word: a packet to [`learn`] from.
#[inline(always)]
pub fn learnable(frame: &impl Frame, headers: &Headers) -> Option<Packet> {
    let is_ip = matches!(headers.protocol, Protocol::IPV4 | Protocol::IPV6);
    if headers.cast != Cast::Unicast || !is_ip {
        return None;
    }
    Packet::read(frame, headers, vid(frame, headers)?)
}

/// The VLAN of a frame that is whole up to the end of layer 2.
#[inline(always)]
fn vid(frame: &impl Frame, headers: &Headers) -> Option<Vid> {
    headers.vlan.vid().filter(|_| frame.len() >= HEAD)
}

/// The heartbeat of tables that are kept true and lack nothing of a kind, as [`Settings::incomplete`] has it.
#[inline(always)]
fn trusted(tables: &impl Tables, kind: u32) -> Option<u64> {
    let settings = tables.settings()?;
    let is_true = settings.incomplete & kind == 0 && tables.is_ahead(settings.heartbeat);
    is_true.then_some(settings.heartbeat)
}

/// Whether there is one. Asked last, because most verdicts do not need it.
#[inline(always)]
fn are_true(tables: &impl Tables, kind: u32) -> bool {
    trusted(tables, kind).is_some()
}

/// That of tables that lack no taker.
#[inline(always)]
pub fn heartbeat(tables: &impl Tables) -> Option<u64> {
    trusted(tables, Settings::ENDPOINTS)
}
