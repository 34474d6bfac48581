//! The network that most tables measure on: a router, a wire, a trunk, and one container.
//!
//!     router: wire ══ host: trunk [+ trunk.10] ── container: eth0
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
    net::{
        namespace::Netns,
        topology::{WIRE, Wire},
    },
    run::program::Attached,
};

use crate::{
    frame::{CONTAINER_MAC, ROUTER_MAC, VID, mac_text},
    generator::{self, prepare},
    netns::{self, Inside},
};

/// The host's end of a veth pair.
const PORT: &str = "port0";

/// A network that is up. It is taken down when this is dropped.
pub struct OneContainer {
    /// First, so that it detaches while there still is a trunk.
    attached: Option<Attached>,
    /// Programs of the benchmark's own, which go with it.
    ebpf: Option<Ebpf>,
    pub wire: Wire,
    pub container: Netns,
    /// The container is the host itself.
    is_near: bool,
    /// The container's VLAN; 0 is untagged.
    vid: u16,
    /// Where the wire sends what is for the container.
    pub mac: [u8; 6],
}

impl OneContainer {
    pub fn bare(vid: u16) -> Result<Self> {
        let wire = Wire::veth()?;
        prepare(&wire)?;
        Ok(Self {
            attached: None,
            ebpf: None,
            wire,
            vid,
            container: Netns::new()?,
            is_near: false,
            mac: CONTAINER_MAC,
        })
    }

    /// A network with the container in the trunk's own namespace.
    pub fn near(vid: u16) -> Result<Self> {
        let mut network = Self::bare(vid)?;
        network.container = network.wire.host.again()?;
        network.is_near = true;
        Ok(network)
    }

    /// Attaches vlanfast to the trunk, with the flags that all rows have and those of this one.
    pub fn attach(&mut self, ingress: &str, flags: &[&str]) -> Result<()> {
        if ingress == "xdp" {
            self.wire.keep_tags()?;
        }
        let common = ["--ingress", ingress, "--docker", "off", "--metrics", "off"];
        let arguments = [&common[..], flags].concat();
        self.attached = Some(Attached::start(
            &self.wire.host,
            &self.wire.trunk,
            &arguments,
        )?);
        Ok(())
    }

    pub fn attach_empty_tc(&mut self, device: &str) -> Result<()> {
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

    pub fn attach_xdp(&mut self, name: &str) -> Result<()> {
        let mut ebpf = generator::load()?;
        self.wire.keep_tags()?;
        let program: &mut Xdp = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        program.load()?;
        let _inside = Inside::enter(&self.wire.host)?;
        program.attach(&self.wire.trunk, XdpMode::Driver)?;
        self.ebpf = Some(ebpf);
        Ok(())
    }

    /// What containers' devices are made on: the trunk's VLAN device, or the trunk itself.
    pub fn parent(&self) -> String {
        match (&self.wire.trunk, self.vid) {
            (trunk, 0) => trunk.clone(),
            (trunk, vid) => format!("{trunk}.{vid}"),
        }
    }

    /// A device on the parent, moved into the container.
    pub fn child(&self, kind: &str, options: &str) -> Result<()> {
        let (trunk, parent, vid) = (&self.wire.trunk, self.parent(), self.vid);
        if vid != 0 {
            self.wire.host.run(&format!(
                "ip link add link {trunk} name {parent} type vlan id {vid} && \
                 ip link set {parent} up"
            ))?;
        }
        self.wire.host.run(&format!(
            "ip link add link {parent} name child0 {options} {kind} && \
             ip link set child0 netns {}",
            self.container.name
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
            mac_text(CONTAINER_MAC)
        ))?;
        Ok(())
    }

    pub fn bridge(&self) -> Result<()> {
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
            mac_text(CONTAINER_MAC),
            mac_text(ROUTER_MAC)
        ))?;
        Ok(())
    }

    /// A datapath of Open vSwitch with the flows that its daemon would install, and without the daemon, so that no
    /// flow is ever learnt anew.
    pub fn open_vswitch(&self) -> Result<()> {
        self.veth()?;
        let trunk = &self.wire.trunk;
        // Ports are numbered as they are added; 0 is the datapath's own.
        self.wire.host.run(&format!(
            "ovs-dpctl add-dp dp0 && ovs-dpctl add-if dp0 {trunk} && ovs-dpctl add-if dp0 {PORT} && \
             ovs-dpctl add-flow dp0 'in_port(1),eth(src={router},dst={container}),eth_type(0x8100),\
             vlan(vid={VID},pcp=0),encap(eth_type(0x0800),ipv4(frag=no))' pop_vlan,2 && \
             ovs-dpctl add-flow dp0 'in_port(2),eth(src={container}),eth_type(0x0800),\
             ipv4(frag=no)' 'push_vlan(vid={VID},pcp=0),1'",
            router = mac_text(ROUTER_MAC),
            container = mac_text(CONTAINER_MAC),
        ))?;
        Ok(())
    }

    pub fn redirect_peer(&mut self) -> Result<()> {
        self.veth()?;
        let mut ebpf = generator::load()?;
        let trunk = netns::ifindex(&self.wire.host, &self.wire.trunk)?;
        let port = netns::ifindex(&self.wire.host, PORT)?;
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
        self.ebpf = Some(ebpf);
        Ok(())
    }

    /// The container's address, and a way out that needs no ARP.
    pub fn address(&self) -> Result<()> {
        self.container.run(&format!(
            "ip addr add 10.0.{VID}.2/24 dev eth0 && ip link set eth0 up && \
             ip neigh add 10.0.{VID}.1 lladdr {} dev eth0 nud permanent",
            mac_text(ROUTER_MAC)
        ))?;
        Ok(())
    }

    /// Gives the router a device on the VLAN, where a table needs an end there.
    pub fn router(&self) -> Result<()> {
        self.wire.router.run(&format!(
            "ip link add link {WIRE} name {WIRE}.{VID} type vlan id {VID} && \
             ip addr add 10.0.{VID}.1/24 dev {WIRE}.{VID} && ip link set {WIRE}.{VID} up && \
             ip neigh add 10.0.{VID}.2 lladdr {} dev {WIRE}.{VID} nud permanent",
            mac_text(self.mac)
        ))?;
        Ok(())
    }

    /// Packets that the container's device received. Near the trunk, IPv4 packets of the namespace: macvlan
    /// does not count what is redirected to its device.
    pub fn received(&self) -> Result<u64> {
        if self.is_near {
            let line = "grep ^Ip: /proc/net/snmp | tail -n 1 | cut -d ' ' -f 4";
            let number = self.container.run(line)?;
            return number.trim().parse().context("InReceives is a number");
        }
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
