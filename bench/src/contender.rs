//! The ways from a trunk into a container that are compared, each with a topology of its own:
//!
//!     router: wire [+ wire.10] ══ host: trunk, and what leads on from it ── container: eth0

use anyhow::{Context, Result};

use crate::{
    frame::{CONTAINER_MAC, TRUNK_MAC, VID, mac_text},
    measure::Effort,
    one_container::{OneContainer, settle},
    rows::Rows,
};

/// What stands on the trunk, and how the container is connected; in the order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// 8021q and macvlan.
    Kernel,
    /// 8021q and macvlan, with vlanfast on the trunk: TC (tcx, or clsact before Linux 6.6) or native XDP.
    Tc,
    Xdp,
    /// vlanfast with a storm limit that every storm exceeds, and without one.
    TcOver,
    XdpOver,
    TcUnlimited,
    /// vlanfast with `--shed mac`, which drops frames that have no receiver here.
    TcShedding,
    XdpShedding,
    /// Programs that do nothing, where vlanfast has its own: the least that it could cost.
    EmptyTc,
    EmptyXdp,
    /// An XDP program that drops everything: the least that shedding could cost.
    DroppingXdp,
    /// The empty TC programs are on another device: what a host pays for having any TC program anywhere.
    TcElsewhere,
    /// ipvlan in mode L2 in place of macvlan.
    Ipvlan,
    /// A Linux bridge with VLAN filtering, and veth.
    Bridge,
    /// The kernel datapath of Open vSwitch with the two flows of the container, and veth.
    OpenVswitch,
    /// What a TC program alone could do: `bpf_redirect_peer` into a veth.
    RedirectPeer,
    /// A macvlan in the trunk's own namespace: the kernel alone, vlanfast, and that with `--deliver redirect`.
    Near,
    NearTc,
    NearRedirect,
}

impl Contender {
    /// Every way from the wire into a container.
    pub const INTO_CONTAINER: [Self; 10] = [
        Self::Kernel,
        Self::Tc,
        Self::Xdp,
        Self::EmptyTc,
        Self::EmptyXdp,
        Self::TcElsewhere,
        Self::Ipvlan,
        Self::Bridge,
        Self::OpenVswitch,
        Self::RedirectPeer,
    ];

    /// The ways to a device in the trunk's own namespace.
    pub const NEAR: [Self; 3] = [Self::Near, Self::NearTc, Self::NearRedirect];

    /// All but XDP, which has no part in what leaves and sees no merged buffers.
    pub const BUT_XDP: [Self; 8] = [
        Self::Kernel,
        Self::Tc,
        Self::EmptyTc,
        Self::TcElsewhere,
        Self::Ipvlan,
        Self::Bridge,
        Self::OpenVswitch,
        Self::RedirectPeer,
    ];

    /// What shows whether vlanfast is worth it.
    pub const WITH_AND_WITHOUT: [Self; 3] = [Self::Kernel, Self::Tc, Self::Xdp];

    /// The name of the row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel | Self::Near => "kernel alone",
            Self::Tc | Self::NearTc => "vlanfast, TC",
            Self::NearRedirect => "vlanfast, TC, redirecting",
            Self::Xdp => "vlanfast, XDP",
            Self::TcOver => "vlanfast, TC, over the limit",
            Self::XdpOver => "vlanfast, XDP, over the limit",
            Self::TcUnlimited => "vlanfast, TC, no limit",
            Self::TcShedding => "vlanfast, TC, shedding",
            Self::XdpShedding => "vlanfast, XDP, shedding",
            Self::EmptyTc => "empty TC programs",
            Self::EmptyXdp => "an empty XDP program",
            Self::DroppingXdp => "an XDP program that only drops",
            Self::TcElsewhere => "empty TC programs elsewhere",
            Self::Ipvlan => "ipvlan L2",
            Self::Bridge => "bridge + veth",
            Self::OpenVswitch => "Open vSwitch + veth",
            Self::RedirectPeer => "TC redirect_peer + veth",
        }
    }

    /// The least set of rows that has it.
    pub const fn belongs(self) -> Rows {
        match self {
            Self::Kernel | Self::Near => Rows::Kernel,
            Self::Tc | Self::Xdp | Self::NearTc | Self::NearRedirect => Rows::Vlanfast,
            Self::TcOver | Self::XdpOver | Self::TcUnlimited => Rows::Vlanfast,
            Self::TcShedding | Self::XdpShedding => Rows::Vlanfast,
            Self::EmptyTc | Self::EmptyXdp | Self::DroppingXdp | Self::TcElsewhere => Rows::All,
            Self::Ipvlan | Self::Bridge | Self::OpenVswitch | Self::RedirectPeer => Rows::All,
        }
    }

    /// Whether it drops frames on purpose, so that a figure does not need all of them to arrive.
    pub const fn limits(self) -> bool {
        matches!(self, Self::TcOver | Self::XdpOver)
    }

    /// On how many networks it is measured, one made after the other. A bridge finds ports and VLANs by hashes with a secret that each
    /// bridge draws: packets of one cost up to 2 % more than those of the next.
    const fn networks(self) -> usize {
        match self {
            Self::Bridge => 16,
            _ => 1,
        }
    }

    /// Measures on each network in turn, and gives the means.
    pub fn measured<const N: usize>(
        self,
        effort: Effort,
        mut measure: impl FnMut(&OneContainer, Effort) -> Result<[f64; N]>,
    ) -> Result<[f64; N]> {
        let (networks, effort) = match (self.networks(), effort.quick) {
            (1, _) | (_, true) => (1, effort),
            (networks, false) => (networks, effort.less()),
        };
        let mut sums = [0.0; N];
        for _ in 0..networks {
            let network = self
                .build()
                .with_context(|| format!("failed to set up: {}", self.name()))?;
            let costs = measure(&network, effort)?;
            for (sum, cost) in sums.iter_mut().zip(costs) {
                *sum += cost / networks as f64;
            }
        }
        Ok(sums)
    }

    /// Makes the network, with the container on VLAN 10.
    pub fn build(self) -> Result<OneContainer> {
        self.build_on(VID)
    }

    /// Makes the network with the container on any VLAN. 0 is untagged, for which macvlan needs no other module.
    pub fn build_on(self, vid: u16) -> Result<OneContainer> {
        let mut network = match Self::NEAR.contains(&self) {
            true => OneContainer::near(vid)?,
            false => OneContainer::bare(vid)?,
        };
        match self {
            Self::Ipvlan => {
                network.child("type ipvlan mode l2", "")?;
                network.mac = TRUNK_MAC;
            }
            Self::Bridge => network.bridge()?,
            Self::OpenVswitch => network.open_vswitch()?,
            Self::RedirectPeer => network.redirect_peer()?,
            _ => {
                let mac = mac_text(CONTAINER_MAC);
                network.child("type macvlan mode bridge", &format!("address {mac}"))?;
            }
        }
        network.address()?;
        self.attach(&mut network)?;
        settle();
        Ok(network)
    }

    /// Makes a trunk alone, with nothing on it that would need a module.
    pub fn build_trunk(self) -> Result<OneContainer> {
        let mut network = OneContainer::bare(0)?;
        self.attach(&mut network)?;
        settle();
        Ok(network)
    }

    fn attach(self, network: &mut OneContainer) -> Result<()> {
        match self {
            Self::Tc | Self::NearTc => network.attach("tc", &[]),
            Self::NearRedirect => network.attach("tc", &["--deliver", "redirect"]),
            Self::Xdp => network.attach("xdp", &[]),
            Self::TcOver => network.attach("tc", &["--storm-limit", "1"]),
            Self::XdpOver => network.attach("xdp", &["--storm-limit", "1"]),
            Self::TcUnlimited => network.attach("tc", &["--storm-limit", "0"]),
            Self::TcShedding => network.attach("tc", &["--shed", "mac"]),
            Self::XdpShedding => network.attach("xdp", &["--shed", "mac"]),
            Self::EmptyTc => {
                let trunk = network.wire.trunk.clone();
                network.attach_empty_tc(&trunk)
            }
            Self::TcElsewhere => network.attach_empty_tc("lo"),
            Self::EmptyXdp => network.attach_xdp("empty_xdp"),
            Self::DroppingXdp => network.attach_xdp("drop_xdp"),
            _ => Ok(()),
        }
    }
}
