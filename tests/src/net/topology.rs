//! A trunk and the wire behind it, which belong to one test.

use anyhow::{Context, Result};

use crate::net::namespace::{Netns, nic, run, unique};

/// A trunk in one namespace, and the other end of its wire in another.
#[derive(Debug)]
pub struct Wire {
    pub host: Netns,
    pub router: Netns,
    /// The trunk's name in `host`. It is unique, because the directory of pins is named after it.
    pub trunk: String,
}

/// The router's end of the wire.
pub const WIRE: &str = "wire";

impl Wire {
    /// Creates a veth pair that is up and has no addresses, with the offloads disabled that merge frames.
    pub fn veth() -> Result<Self> {
        Self::veth_in(Netns::new()?, 1)
    }

    /// Creates a veth pair with a number of queues in each direction.
    pub fn veth_with_queues(queues: u32) -> Result<Self> {
        Self::veth_in(Netns::new()?, queues)
    }

    /// Creates a veth pair whose trunk is in the namespace in which the test began, because Docker works there.
    pub fn here() -> Result<Self> {
        Self::veth_in(Netns::here()?, 1)
    }

    fn veth_in(host: Netns, queues: u32) -> Result<Self> {
        let (router, trunk) = (Netns::new()?, unique());
        let (h, r) = (&host.name, &router.name);
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip link add {trunk} netns {h} address 02:00:00:00:00:0a {queues} type veth \
             peer name {WIRE} netns {r} address 02:00:00:00:00:0b {queues}"
        ))?;
        let wire = Self {
            host,
            router,
            trunk,
        };
        wire.host.run(&format!("ip link set {} up", wire.trunk))?;
        wire.router.run(&format!("ip link set {WIRE} up"))?;
        Ok(wire)
    }

    /// Takes the lab's two virtio NICs, whose driver has native XDP; they return when this is dropped.
    pub fn virtio() -> Result<Self> {
        let (host, router, trunk) = (Netns::new()?, Netns::new()?, unique());
        for (mac, name, netns) in [
            ("52:54:00:00:00:0a", trunk.as_str(), &host),
            ("52:54:00:00:00:0b", WIRE, &router),
        ] {
            let nic = nic(mac)?;
            run(&format!(
                "ip link set {nic} down && ip link set {nic} netns {}",
                netns.name
            ))?;
            netns.run(&format!("ip link set {nic} name {name}"))?;
            // Unless the NIC is promiscuous, QEMU filters by address and VLAN, which a private wire does not need.
            netns.run(&format!("ip link set {name} promisc on up"))?;
        }
        Ok(Self {
            host,
            router,
            trunk,
        })
    }

    /// Creates 802.1Q devices for a VLAN on both ends, `<trunk>.<vid>` and `wire.<vid>`, and sets them up.
    pub fn vlan(&self, vid: u16) -> Result<()> {
        for (netns, device) in [(&self.host, self.trunk.as_str()), (&self.router, WIRE)] {
            netns.run(&format!(
                "ip link add link {device} name {device}.{vid} type vlan id {vid} && \
                 ip link set {device}.{vid} up"
            ))?;
        }
        Ok(())
    }

    /// Creates a container on a VLAN as Docker does: a macvlan in bridge mode in a namespace of its own.
    pub fn container(&self, vid: u16, address: &str) -> Result<Netns> {
        let container = Netns::new()?;
        let (name, trunk) = (&container.name, &self.trunk);
        self.host.run(&format!(
            "ip link add link {trunk}.{vid} name mv{vid} type macvlan mode bridge && \
             ip link set mv{vid} netns {name}"
        ))?;
        container.run(&format!(
            "ip link set mv{vid} name eth0 && ip addr add {address}/24 dev eth0 && ip link set eth0 up"
        ))?;
        Ok(container)
    }

    /// Returns a counter of a device in frames, independent of vlanfast and of packet sockets.
    pub fn statistic(netns: &Netns, device: &str, name: &str) -> Result<u64> {
        let text = netns.run(&format!("ip -s -j link show {device}"))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let (side, field) = name.split_once('_').context("a name like rx_packets")?;
        json[0]["stats64"][side][field]
            .as_u64()
            .with_context(|| format!("{device} has no {name}"))
    }

    /// Keeps VLAN tags in the bytes on both ends, as XDP on a veth needs it.
    pub fn keep_tags(&self) -> Result<()> {
        self.host
            .run(&format!("ethtool -K {} rxvlan off", self.trunk))?;
        self.router.run(&format!("ethtool -K {WIRE} txvlan off"))?;
        Ok(())
    }

    /// Returns this wire after both ends have been set to keep VLAN tags in the bytes.
    pub fn keeping_tags(self) -> Result<Self> {
        self.keep_tags()?;
        Ok(self)
    }
}
