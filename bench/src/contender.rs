//! The ways from a trunk into a container that are compared, each with a topology of its own:
//!
//!     router: wire [+ wire.10] ══ host: trunk, and what leads on from it ── container: eth0
//!
//! Addresses are static everywhere, so that nothing but the frames that are measured is on its way.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap},
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode},
};
use vlanfast_tests::{
    program::Attached,
    topology::{Netns, WIRE, Wire},
};

use crate::{
    frame::VID,
    generator::{self, prepare},
    place::{self, Inside},
};

/// In the order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// 8021q and macvlan.
    Kernel,
    /// The same, with vlanfast on the trunk: TC (tcx, or clsact before Linux 6.6) or native XDP.
    Tc,
    Xdp,
    /// Programs that do nothing, where vlanfast has its own: the least that it could cost.
    EmptyTc,
    EmptyXdp,
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
}

const CONTAINER_MAC: [u8; 6] = [0x02, 0, 0, 0, 1, 2];
pub const TRUNK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// The host's end of a veth pair.
const PORT: &str = "port0";

/// A topology that is up. Dropped, it is gone.
pub struct Site {
    /// First, so that it detaches while there still is a trunk.
    attached: Option<Attached>,
    /// Programs of the benchmark's own, which go with it.
    ebpf: Option<Ebpf>,
    pub wire: Wire,
    pub container: Netns,
    /// Where the wire sends what is for the container.
    pub mac: [u8; 6],
}

impl Contender {
    pub const ALL: [Self; 10] = [
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

    /// The word in the row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel alone",
            Self::Tc => "vlanfast, TC",
            Self::Xdp => "vlanfast, XDP",
            Self::EmptyTc => "empty TC programs",
            Self::EmptyXdp => "an empty XDP program",
            Self::TcElsewhere => "empty TC programs elsewhere",
            Self::Ipvlan => "ipvlan L2",
            Self::Bridge => "bridge + veth",
            Self::OpenVswitch => "Open vSwitch + veth",
            Self::RedirectPeer => "TC redirect_peer + veth",
        }
    }

    /// Makes the topology.
    pub fn build(self) -> Result<Site> {
        let mut site = Site::bare()?;
        match self {
            Self::Kernel
            | Self::Tc
            | Self::Xdp
            | Self::EmptyTc
            | Self::EmptyXdp
            | Self::TcElsewhere => {
                let mac = text(CONTAINER_MAC);
                site.child("type macvlan mode bridge", &format!("address {mac}"))?;
            }
            Self::Ipvlan => {
                site.child("type ipvlan mode l2", "")?;
                site.mac = TRUNK_MAC;
            }
            Self::Bridge => site.bridge()?,
            Self::OpenVswitch => site.open_vswitch()?,
            Self::RedirectPeer => site.ebpf = Some(site.redirect_peer()?),
        }
        site.address()?;
        self.attach(&mut site)?;
        settle();
        Ok(site)
    }

    /// A trunk alone, with nothing on it that would need a module.
    pub fn build_trunk(self) -> Result<Site> {
        let mut site = Site::bare()?;
        self.attach(&mut site)?;
        settle();
        Ok(site)
    }

    fn attach(self, site: &mut Site) -> Result<()> {
        match self {
            Self::Tc => site.attach("tc"),
            Self::Xdp => site.attach("xdp"),
            Self::EmptyTc => {
                let trunk = site.wire.trunk.clone();
                site.attach_empty_tc(&trunk)
            }
            Self::TcElsewhere => site.attach_empty_tc("lo"),
            Self::EmptyXdp => site.attach_empty_xdp(),
            _ => Ok(()),
        }
    }
}

impl Site {
    fn bare() -> Result<Self> {
        let wire = Wire::veth()?;
        prepare(&wire)?;
        Ok(Self {
            attached: None,
            ebpf: None,
            wire,
            container: Netns::new()?,
            mac: CONTAINER_MAC,
        })
    }

    /// Takes a running vlanfast on the trunk.
    fn attach(&mut self, ingress: &str) -> Result<()> {
        if ingress == "xdp" {
            self.wire.keep_tags()?;
        }
        let arguments = ["--ingress", ingress, "--docker", "off", "--metrics", "off"];
        self.attached = Some(Attached::start(
            &self.wire.host,
            &self.wire.trunk,
            &arguments,
        )?);
        Ok(())
    }

    fn attach_empty_tc(&mut self, device: &str) -> Result<()> {
        let mut ebpf = generator::load()?;
        let program: &mut SchedClassifier = ebpf
            .program_mut("empty_tc")
            .context("no program empty_tc")?
            .try_into()?;
        program.load()?;
        let _inside = Inside::enter(&self.wire.host)?;
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            program.attach(device, hook)?;
        }
        self.ebpf = Some(ebpf);
        Ok(())
    }

    fn attach_empty_xdp(&mut self) -> Result<()> {
        let mut ebpf = generator::load()?;
        self.wire.keep_tags()?;
        let program: &mut Xdp = ebpf
            .program_mut("empty_xdp")
            .context("no program empty_xdp")?
            .try_into()?;
        program.load()?;
        let _inside = Inside::enter(&self.wire.host)?;
        program.attach(&self.wire.trunk, XdpMode::Driver)?;
        self.ebpf = Some(ebpf);
        Ok(())
    }

    /// A device on the trunk's VLAN device, moved into the container.
    fn child(&self, kind: &str, options: &str) -> Result<()> {
        let (trunk, container) = (&self.wire.trunk, &self.container.name);
        self.wire.host.run(&format!(
            "ip link add link {trunk} name {trunk}.{VID} type vlan id {VID} && \
             ip link set {trunk}.{VID} up && \
             ip link add link {trunk}.{VID} name child0 {options} {kind} && \
             ip link set child0 netns {container}"
        ))?;
        self.container.run("ip link set child0 name eth0")?;
        Ok(())
    }

    /// A veth pair between host and container.
    fn veth(&self) -> Result<()> {
        let container = &self.container.name;
        self.wire.host.run(&format!(
            "ip link add {PORT} type veth peer name eth0 address {} netns {container} && \
             ip link set {PORT} up",
            text(CONTAINER_MAC)
        ))?;
        Ok(())
    }

    fn bridge(&self) -> Result<()> {
        self.veth()?;
        let trunk = &self.wire.trunk;
        self.wire.host.run(&format!(
            "ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0 && \
             ip link set {trunk} master br0 && ip link set {PORT} master br0 && \
             bridge vlan add vid {VID} dev {trunk} && \
             bridge vlan add vid {VID} pvid untagged dev {PORT} && \
             bridge fdb add {} dev {PORT} vlan {VID} master static && \
             bridge fdb add {} dev {trunk} vlan {VID} master static && \
             ip link set br0 up",
            text(CONTAINER_MAC),
            text(ROUTER_MAC)
        ))?;
        Ok(())
    }

    /// By the flows that its daemon would put there, without the daemon: nothing is ever learned anew.
    fn open_vswitch(&self) -> Result<()> {
        self.veth()?;
        let trunk = &self.wire.trunk;
        // Ports are numbered as they are added; 0 is the datapath's own.
        self.wire.host.run(&format!(
            "ovs-dpctl add-dp dp0 && ovs-dpctl add-if dp0 {trunk} && ovs-dpctl add-if dp0 {PORT} && \
             ovs-dpctl add-flow dp0 'in_port(1),eth(src={router},dst={container}),eth_type(0x8100),\
             vlan(vid={VID},pcp=0),encap(eth_type(0x0800),ipv4(frag=no))' pop_vlan,2 && \
             ovs-dpctl add-flow dp0 'in_port(2),eth(src={container}),eth_type(0x0800),\
             ipv4(frag=no)' 'push_vlan(vid={VID},pcp=0),1'",
            router = text(ROUTER_MAC),
            container = text(CONTAINER_MAC),
        ))?;
        Ok(())
    }

    fn redirect_peer(&self) -> Result<Ebpf> {
        self.veth()?;
        let mut ebpf = generator::load()?;
        let trunk = place::ifindex(&self.wire.host, &self.wire.trunk)?;
        let port = place::ifindex(&self.wire.host, PORT)?;
        let mut place = [0; 8];
        place[..2].copy_from_slice(&VID.to_ne_bytes());
        place[2..].copy_from_slice(&CONTAINER_MAC);
        let map = ebpf.map_mut("CONTAINERS").context("no map CONTAINERS")?;
        HashMap::<_, [u8; 8], u32>::try_from(map)?.insert(place, port, 0)?;
        let map = ebpf.map_mut("UPLINK").context("no map UPLINK")?;
        Array::<_, [u32; 2]>::try_from(map)?.set(0, [trunk, u32::from(VID)], 0)?;
        let _inside = Inside::enter(&self.wire.host)?;
        for (name, device) in [
            ("to_container", self.wire.trunk.as_str()),
            ("to_wire", PORT),
        ] {
            let program: &mut SchedClassifier = ebpf
                .program_mut(name)
                .with_context(|| format!("no program {name}"))?
                .try_into()?;
            program.load()?;
            program.attach(device, TcAttachType::Ingress)?;
        }
        Ok(ebpf)
    }

    /// The container's address, and a way out that needs no ARP.
    fn address(&self) -> Result<()> {
        self.container.run(&format!(
            "ip addr add 10.0.{VID}.2/24 dev eth0 && ip link set eth0 up && \
             ip neigh add 10.0.{VID}.1 lladdr {} dev eth0 nud permanent",
            text(ROUTER_MAC)
        ))?;
        Ok(())
    }

    /// The router's device on the VLAN, for those who need someone there.
    pub fn router(&self) -> Result<()> {
        self.wire.router.run(&format!(
            "ip link add link {WIRE} name {WIRE}.{VID} type vlan id {VID} && \
             ip addr add 10.0.{VID}.1/24 dev {WIRE}.{VID} && ip link set {WIRE}.{VID} up && \
             ip neigh add 10.0.{VID}.2 lladdr {} dev {WIRE}.{VID} nud permanent",
            text(self.mac)
        ))?;
        Ok(())
    }

    /// Packets that the container's device received.
    pub fn received(&self) -> Result<u64> {
        Wire::statistic(&self.container, "eth0", "rx_packets")
    }

    /// Fails unless all of `sent` frames arrived: a figure for frames that got lost means nothing.
    pub fn check(&self, before: u64, sent: u64) -> Result<()> {
        let arrived = self.received()? - before;
        ensure!(
            arrived >= sent,
            "{arrived} of {sent} frames reached the container"
        );
        Ok(())
    }
}

/// Lets a daemon take in what has changed, and the kernel finish what it put off. Costs no time in the
/// lab, whose clock jumps when nobody has anything to do.
pub fn settle() {
    thread::sleep(Duration::from_secs(2));
}

/// The device `wire`.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];

/// A MAC address as `ip` reads it.
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
