//! What a decision asks for beside the frame: which features are on, and what the maps hold.

use crate::{
    abi::{
        Claim, Endpoint, EndpointKey, Flow, FlowKey, Mac, Neighbor, NeighborKey, Parent, Policy,
        Route, Settings, Shed, Shortcut, Vid, VlanPair, VlanPairCounters,
    },
    bucket::Buckets,
};

/// Which features are on: the [`Policy`] of a loaded program, one question for each.
///
/// In the kernel each field is a constant of the program, and the verifier removes the code of what is off. So every
/// answer reads a single field.
pub trait Switches {
    /// Reads one field of the policy.
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T;

    /// Whether the hook can redirect a frame to another device. XDP cannot: a macvlan has no `ndo_xdp_xmit`.
    #[inline(always)]
    fn can_redirect(&self) -> bool {
        true
    }

    /// `--steer`: a group frame for one endpoint goes to that endpoint alone.
    #[inline(always)]
    fn steers(&self) -> bool {
        self.policy(|policy| &policy.steer) != 0
    }

    /// `--dry-run`: decisions are counted, and not carried out.
    #[inline(always)]
    fn is_dry_run(&self) -> bool {
        self.policy(|policy| &policy.dry_run) != 0
    }

    /// `--storm-limit`: ARP and ND requests that go to everyone, in frames/s for each VLAN; 0 for no limit.
    #[inline(always)]
    fn storm_limit(&self) -> u32 {
        self.policy(|policy| &policy.storm_limit)
    }

    /// `--group-limit`: all other group frames, in frames/s for each VLAN; 0 for no limit.
    #[inline(always)]
    fn group_limit(&self) -> u32 {
        self.policy(|policy| &policy.group_limit)
    }

    /// [`Shed::Vlan`] or more.
    #[inline(always)]
    fn sheds_vlans(&self) -> bool {
        self.policy(|policy| &policy.shed) >= Shed::Vlan as u32
    }

    /// [`Shed::Mac`].
    #[inline(always)]
    fn sheds_macs(&self) -> bool {
        self.policy(|policy| &policy.shed) >= Shed::Mac as u32
    }

    /// `--host-access`: whether [`Parent::HOST_ACCESS`] can be set on any VLAN.
    #[inline(always)]
    fn gives_host_access(&self) -> bool {
        self.policy(|policy| &policy.host_access) != 0
    }

    /// [`Shortcut::Allow`].
    #[inline(always)]
    fn takes_shortcuts(&self) -> bool {
        self.policy(|policy| &policy.shortcut) == Shortcut::Allow as u32
    }

    /// [`Shortcut::Learned`].
    #[inline(always)]
    fn learns(&self) -> bool {
        self.policy(|policy| &policy.shortcut) == Shortcut::Learned as u32
    }

    /// `--shortcut-refresh`: after how many nanoseconds a flow probes its router again; 0 for never.
    #[inline(always)]
    fn refresh(&self) -> u64 {
        self.policy(|policy| &policy.shortcut_refresh) as u64 * 1_000_000_000
    }

    /// `--deliver redirect`, at a hook that can redirect.
    #[inline(always)]
    fn delivers(&self) -> bool {
        self.can_redirect() && self.policy(|policy| &policy.deliver) != 0
    }

    /// Whether frames reach an endpoint without having been on the wire, where another host may claim the same
    /// address.
    #[inline(always)]
    fn bypasses_the_wire(&self) -> bool {
        self.gives_host_access() || self.takes_shortcuts() || self.learns()
    }
}

impl Switches for Policy {
    #[inline(always)]
    fn policy<T: Copy>(&self, field: impl FnOnce(&Policy) -> &T) -> T {
        *field(self)
    }
}

/// What the maps hold, and the clock.
pub trait Lookup: Switches {
    /// The host's device for a VLAN; the trunk itself for VID 0.
    fn parent(&self, vid: Vid) -> Parent;

    fn endpoint(&self, key: EndpointKey) -> Option<Endpoint>;

    fn neighbor(&self, key: NeighborKey) -> Option<Neighbor>;

    /// The route to an address. The key has the sender's VLAN with [`Shortcut::Allow`], and
    /// [`NeighborKey::ANYWHERE`] with [`Shortcut::Learned`].
    fn route(&self, key: NeighborKey) -> Option<Route>;

    fn flow(&self, key: &FlowKey) -> Option<&Flow>;

    /// Makes a flow that is all zero.
    fn open_flow(&self, key: &FlowKey) -> Option<&Flow>;

    fn forget_flow(&self, key: &FlowKey);

    /// The counters of two VLANs, made where there are none.
    fn pair(&self, key: VlanPair) -> Option<&VlanPairCounters>;

    /// Which host on the wire claims an address.
    fn claim(&self, key: NeighborKey) -> Option<Claim>;

    fn note_claim(&self, key: NeighborKey, claim: Claim);

    /// Sets [`Endpoint::CONFLICT`] at once, before the loader does.
    fn mark_conflict(&self, key: EndpointKey);

    /// See [`record_duplicate_mac`]. The kernel runs it in a BPF function with a stack of its own.
    #[inline(always)]
    fn record_duplicate_mac(&self, endpoint: EndpointKey)
    where
        Self: Sized,
    {
        record_duplicate_mac(endpoint, self);
    }

    fn buckets(&self, vid: Vid) -> Option<&Buckets>;

    fn settings(&self) -> Option<&Settings>;

    /// Now, in nanoseconds, by the clock of [`Settings::heartbeat`], to about 10 ms.
    fn now(&self) -> u64;

    /// Now, in nanoseconds, by the clock of [`Settings::heartbeat`], to the nanosecond.
    fn exact_now(&self) -> u64;

    /// Whether a [`Settings::heartbeat`] is ahead of now.
    #[inline(always)]
    fn is_ahead(&self, heartbeat: u64) -> bool {
        heartbeat > self.now()
    }
}

/// Records that a host on the wire has an endpoint's MAC, and marks the endpoint at once.
#[inline(always)]
pub fn record_duplicate_mac(endpoint: EndpointKey, tables: &impl Lookup) {
    tables.mark_conflict(endpoint);
    record_claim(NeighborKey::of_mac(endpoint), endpoint.mac(), tables);
}

/// Records which MAC on the wire claims an address.
#[inline(always)]
pub fn record_claim(key: NeighborKey, mac: Mac, tables: &impl Lookup) {
    let heard = tables.now();
    let claim = Claim {
        heard,
        mac: mac.0,
        reserved: 0,
    };
    tables.note_claim(key, claim);
}

/// The heartbeat of tables that are kept in sync and lack nothing of a kind, as [`Settings::incomplete`] has it.
#[inline(always)]
fn trusted_heartbeat(tables: &impl Lookup, kind: u32) -> Option<u64> {
    let settings = tables.settings()?;
    let is_trusted = settings.incomplete & kind == 0 && tables.is_ahead(settings.heartbeat);
    is_trusted.then_some(settings.heartbeat)
}

/// Whether the tables are kept in sync and lack nothing of a kind. It is asked last, because most verdicts do not
/// depend on it.
#[inline(always)]
pub fn tables_trusted(tables: &impl Lookup, kind: u32) -> bool {
    trusted_heartbeat(tables, kind).is_some()
}

/// The heartbeat of tables that lack no endpoint.
#[inline(always)]
pub fn heartbeat(tables: &impl Lookup) -> Option<u64> {
    trusted_heartbeat(tables, Settings::ENDPOINTS)
}
