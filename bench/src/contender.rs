//! The ways from a trunk into a container that are compared, each with a topology of its own:
//!
//!     router: wire [+ wire.10] ══ host: trunk, and what leads on from it ── container: eth0

use anyhow::{Context, Result};

use crate::{
    Rows,
    frame::VID,
    measure::Effort,
    site::{CONTAINER_MAC, Site, TRUNK_MAC, settle, text},
};

/// In the order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// 8021q and macvlan.
    Kernel,
    /// The same, with vlanfast on the trunk: TC (tcx, or clsact before Linux 6.6) or native XDP.
    Tc,
    Xdp,
    /// The same with a storm limit that every storm is over, and without one.
    TcOver,
    XdpOver,
    TcUnlimited,
    /// The same, and what nobody takes is dropped.
    TcShedding,
    XdpShedding,
    /// Programs that do nothing, where vlanfast has its own: the least that it could cost.
    EmptyTc,
    EmptyXdp,
    /// It drops everything: the least that shedding could cost.
    DroppingXdp,
    /// They are on another device: what a host pays for having any TC program anywhere.
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
    pub const SHORTCUT_CACHE: [Self; 10] = [
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

    /// Those that differ in what leaves, or that take an skb as it comes.
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

    /// Whether vlanfast is worth it.
    pub const WITH_AND_WITHOUT: [Self; 3] = [Self::Kernel, Self::Tc, Self::Xdp];

    /// The word in the row.
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

    /// The rows that it is one of.
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

    /// Whether frames that do not arrive are the point.
    pub const fn limits(self) -> bool {
        matches!(self, Self::TcOver | Self::XdpOver)
    }

    /// On how many sites it is measured. A bridge finds ports and VLANs by hashes with a secret that each
    /// bridge draws: packets of one cost up to 2 % more than those of the next.
    const fn sites(self) -> usize {
        match self {
            Self::Bridge => 16,
            _ => 1,
        }
    }

    /// The mean of what is measured on the sites, one after the other.
    pub fn measured<const N: usize>(
        self,
        effort: Effort,
        mut measure: impl FnMut(&Site, Effort) -> Result<[f64; N]>,
    ) -> Result<[f64; N]> {
        let (sites, effort) = match (self.sites(), effort.quick) {
            (1, _) | (_, true) => (1, effort),
            (sites, false) => (sites, effort.less()),
        };
        let mut sums = [0.0; N];
        for _ in 0..sites {
            let site = self
                .build()
                .with_context(|| format!("failed to set up: {}", self.name()))?;
            let costs = measure(&site, effort)?;
            for (sum, cost) in sums.iter_mut().zip(costs) {
                *sum += cost / sites as f64;
            }
        }
        Ok(sums)
    }

    /// Makes the topology.
    pub fn build(self) -> Result<Site> {
        self.build_on(VID)
    }

    /// The same on another VLAN; on 0, which is untagged, macvlan needs no other module.
    pub fn build_on(self, vid: u16) -> Result<Site> {
        let mut site = match Self::NEAR.contains(&self) {
            true => Site::near(vid)?,
            false => Site::bare(vid)?,
        };
        match self {
            Self::Ipvlan => {
                site.child("type ipvlan mode l2", "")?;
                site.mac = TRUNK_MAC;
            }
            Self::Bridge => site.bridge()?,
            Self::OpenVswitch => site.open_vswitch()?,
            Self::RedirectPeer => site.redirect_peer()?,
            _ => {
                let mac = text(CONTAINER_MAC);
                site.child("type macvlan mode bridge", &format!("address {mac}"))?;
            }
        }
        site.address()?;
        self.attach(&mut site)?;
        settle();
        Ok(site)
    }

    /// A trunk alone, with nothing on it that would need a module.
    pub fn build_trunk(self) -> Result<Site> {
        let mut site = Site::bare(0)?;
        self.attach(&mut site)?;
        settle();
        Ok(site)
    }

    fn attach(self, site: &mut Site) -> Result<()> {
        match self {
            Self::Tc | Self::NearTc => site.attach("tc", &[]),
            Self::NearRedirect => site.attach("tc", &["--deliver", "redirect"]),
            Self::Xdp => site.attach("xdp", &[]),
            Self::TcOver => site.attach("tc", &["--storm-limit", "1"]),
            Self::XdpOver => site.attach("xdp", &["--storm-limit", "1"]),
            Self::TcUnlimited => site.attach("tc", &["--storm-limit", "0"]),
            Self::TcShedding => site.attach("tc", &["--shed", "mac"]),
            Self::XdpShedding => site.attach("xdp", &["--shed", "mac"]),
            Self::EmptyTc => {
                let trunk = site.wire.trunk.clone();
                site.attach_empty_tc(&trunk)
            }
            Self::TcElsewhere => site.attach_empty_tc("lo"),
            Self::EmptyXdp => site.attach_xdp("empty_xdp"),
            Self::DroppingXdp => site.attach_xdp("drop_xdp"),
            _ => Ok(()),
        }
    }
}
