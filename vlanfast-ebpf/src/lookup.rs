//! What the decisions in `vlanfast-common` ask for, answered from the maps and from the switches that
//! the loader has set.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, HeartbeatCache, Mac, Neighbor,
    NeighborKey, Parent, Route, Settings, Shed, Shortcut, Tables, Vid, VlanPair, VlanPairCounters,
    note_double,
};

use crate::maps::{
    BUCKETS, CLAIMS, ENDPOINTS, FLOWS, NEIGHBORS, NEW_FLOW, NEW_PAIR, PAIRS, ROUTES, SETTINGS,
    VLANS,
};

// The fields of a `Policy`, one by one. The loader sets them before it loads the programs, so that the
// verifier knows each as a constant, and removes the code for what is off.

#[unsafe(no_mangle)]
static STEER: Global<u16> = Global::new(0);

#[unsafe(no_mangle)]
static STORM_LIMIT: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static GROUP_LIMIT: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static SHED: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static DRY_RUN: Global<u16> = Global::new(0);

#[unsafe(no_mangle)]
static HOST_ACCESS: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static SHORTCUT: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static SHORTCUT_REFRESH: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static DELIVER: Global<u32> = Global::new(0);

/// Each load of the programs has its own, as it has its own tables.
static PULSE: HeartbeatCache = HeartbeatCache::new();

/// Whether verdicts are counted but not carried out.
#[inline(always)]
pub fn is_dry_run() -> bool {
    DRY_RUN.load() != 0
}

/// The maps and switches, as seen from a hook.
pub struct Maps {
    /// Whether the hook can redirect. XDP can't: a macvlan has no `ndo_xdp_xmit`.
    redirects: bool,
}

impl Maps {
    pub const TC: Self = Self { redirects: true };
    pub const XDP: Self = Self { redirects: false };
}

impl Tables for Maps {
    #[inline(always)]
    fn steers(&self) -> bool {
        STEER.load() != 0
    }

    #[inline(always)]
    fn storm_limit(&self) -> u32 {
        STORM_LIMIT.load()
    }

    #[inline(always)]
    fn group_limit(&self) -> u32 {
        GROUP_LIMIT.load()
    }

    #[inline(always)]
    fn sheds_vlans(&self) -> bool {
        SHED.load() >= Shed::Vlan as u32
    }

    #[inline(always)]
    fn sheds_macs(&self) -> bool {
        SHED.load() >= Shed::Mac as u32
    }

    #[inline(always)]
    fn gives_host_access(&self) -> bool {
        HOST_ACCESS.load() != 0
    }

    #[inline(always)]
    fn takes_shortcuts(&self) -> bool {
        SHORTCUT.load() == Shortcut::Allow as u32
    }

    #[inline(always)]
    fn learns(&self) -> bool {
        SHORTCUT.load() == Shortcut::Learned as u32
    }

    #[inline(always)]
    fn refresh(&self) -> u64 {
        SHORTCUT_REFRESH.load() as u64 * 1_000_000_000
    }

    #[inline(always)]
    fn delivers(&self) -> bool {
        self.redirects && DELIVER.load() != 0
    }

    #[inline(always)]
    fn parent(&self, vid: Vid) -> Parent {
        let parent = VLANS.get(vid.get().into());
        parent.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint> {
        // SAFETY: the kernel keeps a map's memory while a program may look at it, but gives that of an entry that was
        // removed to the next at once. The loader waits until programs like this one have ended before it writes
        // another (`Maps::apply`). Of several that it overwrites in one round, one may show what the next got.
        unsafe { ENDPOINTS.get(key) }.copied()
    }

    #[inline(always)]
    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor> {
        // SAFETY: as above; a value is 8 bytes, which the kernel copies as one.
        unsafe { NEIGHBORS.get(key) }.copied()
    }

    #[inline(always)]
    fn route(&self, key: NeighborKey) -> Option<Route> {
        // SAFETY: as above.
        unsafe { ROUTES.get(key) }.copied()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        // SAFETY: the kernel keeps an entry's memory while a program may look at it. That it gives it to another
        // flow in this very moment is an answer too many for that one, if it has the same ends, and harms no
        // memory.
        unsafe { FLOWS.get(key) }
    }

    #[inline(always)]
    fn open_flow(&self, key: &FlowKey) -> Option<&Flow> {
        // Another CPU's is as good.
        let _ = FLOWS.insert(key, NEW_FLOW.get(0)?, BPF_NOEXIST.into());
        self.flow(key)
    }

    #[inline(always)]
    fn forget_flow(&self, key: &FlowKey) {
        let _ = FLOWS.remove(key);
    }

    #[inline(always)]
    fn pair(&self, key: VlanPair) -> Option<&VlanPairCounters> {
        // SAFETY: as above; there are entries for every pair that is seen, and none goes.
        let pair = unsafe { PAIRS.get(key) };
        if pair.is_some() {
            return pair;
        }
        let _ = PAIRS.insert(key, NEW_PAIR.get(0)?, BPF_NOEXIST.into());
        // SAFETY: as above.
        unsafe { PAIRS.get(key) }
    }

    #[inline(always)]
    fn claim(&self, key: NeighborKey) -> Option<Claim> {
        // SAFETY: as above; who claims an address is another's word in any case.
        unsafe { CLAIMS.get(key) }.copied()
    }

    #[inline(always)]
    fn note_claim(&self, key: NeighborKey, claim: Claim) {
        let _ = CLAIMS.insert(key, claim, 0);
    }

    #[inline(always)]
    fn mark_conflict(&self, key: EndpointKey) {
        if let Some(endpoint) = ENDPOINTS.get_ptr_mut(key) {
            // SAFETY: as in `endpoint`. The loader replaces entries as a whole, and hears of the claim.
            unsafe { (*endpoint).flags |= Endpoint::CONFLICT };
        }
    }

    #[inline(always)]
    fn note_double(&self, receiver: EndpointKey) {
        double(receiver.vid, receiver.mac().to_bits());
    }

    #[inline(always)]
    fn buckets(&self, vid: Vid) -> Option<&Buckets> {
        BUCKETS.get(vid.get().into())
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // The time of the last tick, 1 to 10 ms ago at the most: it costs less than the time itself.
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn exact_now(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn is_ahead(&self, heartbeat: u64) -> bool {
        // The verifier makes a load of it.
        // SAFETY: no arguments.
        let tick = unsafe { bpf_jiffies64() };
        PULSE.is_fresh(heartbeat, tick, || self.now())
    }
}

/// Notes that a station on the wire has the MAC of an endpoint. It is a BPF function of its own,
/// because its keys need a stack.
#[inline(never)]
fn double(vid: u16, mac: u64) {
    let receiver = EndpointKey::new(Vid::new(vid), Mac::from_bits(mac));
    note_double(receiver, &Maps::TC);
}
