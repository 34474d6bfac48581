//! What becomes of a frame: from its headers and the tables to a [`Verdict`]. Whatever is not understood,
//! not known or not sure is passed.

mod allowed;
mod egress;
mod ingress;
mod learned;

use crate::{
    Buckets, Cast, Claim, Direction, Endpoint, EndpointKey, Flow, FlowKey, Frame, Headers,
    Neighbor, NeighborKey, Packet, VlanPairCounters, VlanPair, Parent, Protocol, Reason, Route, Settings,
    Verdict, Vid, Vlan,
};

pub use allowed::destination;
pub use ingress::note_double;
pub use learned::learn;

/// What a decision is based on beside the frame. In the kernel the switches are constants, so that what
/// is off costs nothing.
pub trait Tables {
    fn steers(&self) -> bool;

    /// In frames/s for each VLAN; 0 for none.
    fn storm_limit(&self) -> u32;

    /// For all other group frames, in frames/s for each VLAN; 0 for none.
    fn group_limit(&self) -> u32;

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

    /// Whether unicast goes to its receiver's device at once, which only TC can do.
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
    fn pair(&self, key: VlanPair) -> Option<&VlanPairCounters>;

    /// Who on the wire says that he has an address.
    fn claim(&self, key: NeighborKey) -> Option<Claim>;

    fn note_claim(&self, key: NeighborKey, claim: Claim);

    /// Sets [`Endpoint::CONFLICT`] from now on, before the loader does.
    fn mark_conflict(&self, key: EndpointKey);

    /// See [`note_double`]. In the kernel it has a stack of its own.
    fn note_double(&self, receiver: EndpointKey)
    where
        Self: Sized,
    {
        note_double(receiver, self);
    }

    fn buckets(&self, vid: Vid) -> Option<&Buckets>;

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
pub const LINEAR_LEN: usize = 22;

/// Whether a frame that is neither shed nor takes the [`shortcut`] is passed whatever is in the tables: the
/// common case.
#[inline(always)]
pub fn is_plain(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> bool {
    match direction {
        // The constants one after the other, so that each is a branch that the verifier removes; it leaves the load,
        // so that few are asked for every frame.
        Direction::Rx => {
            let is_read = tables.learns() || tables.delivers();
            // What is reflected to the trunk itself comes in again.
            let is_again = tables.gives_host_access() && headers.vlan == Vlan::UNTAGGED;
            let is_claim = tables.takes_shortcuts() && headers.protocol == Protocol::ARP;
            headers.cast == Cast::Unicast
                && !is_read
                && !is_again
                && !is_claim
                && !meets(frame, headers, direction, tables)
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
    let learnt = match learnable(frame, headers, direction) {
        Some(packet) if tables.learns() => learn(&packet, direction, tables),
        _ => Verdict::Pass,
    };
    if learnt != Verdict::Pass {
        return learnt;
    }
    meet(frame, headers, direction, tables);
    decide(frame, headers, direction, tables)
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
        // Where the device has a program, that has decided.
        Some(vid) if may && is_the_hosts_tag(headers) => {
            match tables.parent(vid).has(Parent::PROGRAM) {
                true => Verdict::Pass,
                false => shortcut_of(frame, headers, vid, tables),
            }
        }
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

/// The fourth part, which decides nothing: notes who on the wire tells the host of an address with a container's MAC.
#[inline(always)]
pub fn meet(frame: &impl Frame, headers: &Headers, direction: Direction, tables: &impl Tables) {
    match vid(frame, headers) {
        Some(vid) if meets(frame, headers, direction, tables) => {
            ingress::meet(frame, headers, vid, tables);
        }
        _ => {}
    }
}

/// Whether that part has a say: of ARP and of neighbour discovery, where there is host access.
#[inline(always)]
pub fn meets(
    frame: &impl Frame,
    headers: &Headers,
    direction: Direction,
    tables: &impl Tables,
) -> bool {
    let may = direction == Direction::Rx && tables.gives_host_access();
    may && headers.cast == Cast::Unicast
        && (headers.protocol == Protocol::ARP || is_icmpv6(frame, headers))
}

/// Not behind extension headers, with which nobody sends neighbour discovery.
#[inline(always)]
fn is_icmpv6(frame: &impl Frame, headers: &Headers) -> bool {
    const ICMPV6: u8 = 58;
    headers.protocol == Protocol::IPV6 && frame.whole().read(headers.network + 6) == Some([ICMPV6])
}

/// Whether the next part has a say: of what leaves, by host access, or to see who is new where frames are shed.
#[inline(always)]
pub fn decides(direction: Direction, tables: &impl Tables) -> bool {
    direction == Direction::Rx || tables.gives_host_access() || tables.sheds_vlans()
}

/// The last part, over all other frames.
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

/// The third part, the shortcut by the router's word: a packet to [`learn`] from.
#[inline(always)]
pub fn learnable(frame: &impl Frame, headers: &Headers, direction: Direction) -> Option<Packet> {
    let is_ip = matches!(headers.protocol, Protocol::IPV4 | Protocol::IPV6);
    let may = direction == Direction::Rx || is_the_hosts_tag(headers);
    if headers.cast != Cast::Unicast || !is_ip || !may {
        return None;
    }
    Packet::read(frame, headers, vid(frame, headers)?)
}

/// The VLAN of a frame that is whole up to the end of layer 2.
#[inline(always)]
fn vid(frame: &impl Frame, headers: &Headers) -> Option<Vid> {
    headers.vlan.vid().filter(|_| frame.len() >= LINEAR_LEN)
}

/// Whether a frame that leaves has the VLAN of the device that it came by: its tag is in metadata, or it has none.
/// What is among the bytes there is what a container wrote, and no switch would take an untagged port's word for a
/// VLAN.
#[inline(always)]
fn is_the_hosts_tag(headers: &Headers) -> bool {
    headers.network == Headers::ETHERNET && !headers.protocol.is_stacked()
}

/// Whether anything goes to a receiver past the wire, where somebody may have the address as well.
#[inline(always)]
fn goes_past_the_wire(tables: &impl Tables) -> bool {
    tables.gives_host_access() || tables.takes_shortcuts() || tables.learns()
}

/// Whether somebody on the wire says that he has an address. Not one who has turned out to be here: a device's new
/// MAC is on the wire before the tables have it.
#[inline(always)]
fn is_claimed(key: NeighborKey, tables: &impl Tables) -> bool {
    let Some(claim) = tables.claim(key) else {
        return false;
    };
    tables.endpoint(key.endpoint(claim.mac)).is_none()
}

/// The heartbeat of tables that are kept true and lack nothing of a kind, as [`Settings::incomplete`] has it.
#[inline(always)]
fn trusted_heartbeat(tables: &impl Tables, kind: u32) -> Option<u64> {
    let settings = tables.settings()?;
    let is_true = settings.incomplete & kind == 0 && tables.is_ahead(settings.heartbeat);
    is_true.then_some(settings.heartbeat)
}

/// Whether there is one. Asked last, because most verdicts do not need it.
#[inline(always)]
fn tables_trusted(tables: &impl Tables, kind: u32) -> bool {
    trusted_heartbeat(tables, kind).is_some()
}

/// That of tables that lack no receiver.
#[inline(always)]
pub fn heartbeat(tables: &impl Tables) -> Option<u64> {
    trusted_heartbeat(tables, Settings::ENDPOINTS)
}
