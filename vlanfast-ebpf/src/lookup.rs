//! What the decisions in `vlanfast-common` ask for, answered from the maps and from the switches that
//! the loader has set.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use vlanfast_common::{
    Buckets, Claim, Endpoint, EndpointKey, Flow, FlowKey, HeartbeatCache, Lookup, Mac, Neighbor,
    NeighborKey, Parent, Policy, Route, Settings, Switches, Vid, VlanPair, VlanPairCounters,
    record_duplicate_mac,
};

use crate::maps::{
    BUCKETS, CLAIMS, ENDPOINTS, FLOWS, NEIGHBORS, NEW_FLOW, NEW_PAIR, PAIRS, ROUTES, SETTINGS,
    VLANS,
};

/// Which features are on. The loader sets it before it loads the programs, so that the verifier knows
/// each field as a constant, and removes the code for what is off.
#[unsafe(no_mangle)]
static POLICY: Global<Policy> = Global::new(Policy::OFF);

/// Each load of the programs has its own, as it has its own tables.
static HEARTBEAT_CACHE: HeartbeatCache = HeartbeatCache::new();

/// Whether verdicts are counted but not carried out.
#[inline(always)]
pub fn is_dry_run() -> bool {
    Maps::TC.is_dry_run()
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

impl Switches for Maps {
    /// Loads one field by a volatile load of its own: of a load of all fields, LLVM would keep a copy on the
    /// stack, where the verifier does not follow constants.
    #[inline(always)]
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T {
        // SAFETY: `Global` is transparent, and holds a valid value from the start; nobody writes while a program runs.
        let policy = unsafe { &*(&raw const POLICY).cast::<Policy>() };
        let field: *const T = field(policy);
        // SAFETY: the field is one of `POLICY`.
        unsafe { field.read_volatile() }
    }

    #[inline(always)]
    fn can_redirect(&self) -> bool {
        self.redirects
    }
}

impl Lookup for Maps {
    #[inline(always)]
    fn parent(&self, vid: Vid) -> Parent {
        let parent = VLANS.get(vid.get().into());
        parent.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint> {
        // SAFETY: the kernel keeps a map's memory while a program may look at it, but gives that of an entry that was
        // removed to the next at once. The loader waits until programs like this one have ended before it writes
        // another (the loader's `TableMaps::apply`). Of several that it overwrites in one round, one may show what the next got.
        unsafe { ENDPOINTS.get(key) }.copied()
    }

    #[inline(always)]
    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor> {
        // SAFETY: as in `endpoint`; a value is 8 bytes, which the kernel copies as one.
        unsafe { NEIGHBORS.get(key) }.copied()
    }

    #[inline(always)]
    fn route(&self, key: NeighborKey) -> Option<Route> {
        // SAFETY: as in `neighbor`.
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
        // SAFETY: there are entries for every pair that was seen, and none is removed.
        let pair = unsafe { PAIRS.get(key) };
        if pair.is_some() {
            return pair;
        }
        let _ = PAIRS.insert(key, NEW_PAIR.get(0)?, BPF_NOEXIST.into());
        // SAFETY: entries are not removed.
        unsafe { PAIRS.get(key) }
    }

    #[inline(always)]
    fn claim(&self, key: NeighborKey) -> Option<Claim> {
        // SAFETY: as in `endpoint`. What a claim says is the word of a station on the wire in any case.
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
    fn record_duplicate_mac(&self, endpoint: EndpointKey) {
        record(endpoint.vid, endpoint.mac().to_bits());
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
        HEARTBEAT_CACHE.is_fresh(heartbeat, tick, || self.now())
    }
}

/// Notes that a station on the wire has the MAC of an endpoint. It is a BPF function of its own,
/// because its keys need a stack.
#[inline(never)]
fn record(vid: u16, mac: u64) {
    let endpoint = EndpointKey::new(Vid::new(vid), Mac::from_bits(mac));
    record_duplicate_mac(endpoint, &Maps::TC);
}
