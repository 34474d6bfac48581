//! The options of `vlanfast attach`.

use clap::{ArgAction, Args};
use vlanfast_common::{Policy, Shed, Shortcut};

use crate::{
    cli::values::{self, DeliverMode, IngressMode, Metrics, OnExit, Switch},
    names::docker::DockerSocket,
    state::{
        config::{Routes, VlanConfig},
        name::Name,
        quotas::Quotas,
        vids::{VidPair, Vids},
    },
};

#[derive(Args)]
pub struct AttachArgs {
    /// The network device that carries the VLANs, e.g. eth0 (not eth0.10)
    ///
    /// Any Ethernet device will do: a NIC, a bond, a bridge, a veth. Alternative names
    /// (`ip link property`) work as well. Example: vlanfast attach eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Name,

    /// The hook that reads incoming frames
    ///
    /// `vlanfast status` shows the hook that was chosen, and why. Example: --ingress tc
    #[arg(long, value_enum, default_value_t = IngressMode::Auto, verbatim_doc_comment)]
    pub ingress: IngressMode,

    /// Turn rx-vlan-offload off if native XDP needs that; detaching turns it on again
    ///
    /// Most NICs strip VLAN tags before XDP sees the frame. Without this option `--ingress
    /// auto` then uses TC, and `--ingress xdp` is an error.
    /// Example: --ingress xdp --manage-offloads
    #[arg(long, verbatim_doc_comment)]
    pub manage_offloads: bool,

    /// Deliver ARP requests, neighbour solicitations and DHCP replies to their target only
    ///
    /// A request for an endpoint on this host is delivered only to that endpoint: vlanfast
    /// rewrites the destination MAC, and the endpoint answers itself. All other frames to a
    /// group reach every endpoint on the VLAN. Example: --steer off
    #[arg(long, value_enum, default_value_t = Switch::On, verbatim_doc_comment)]
    pub steer: Switch,

    /// Rate limit for ARP and ND requests that go to all endpoints, in frames/s per VLAN
    ///
    /// Requests for targets that are not on this host, and requests for targets that can't
    /// be the only receiver, have this limit each. Excess requests are dropped; 0 disables
    /// the limit. Example: --storm-limit 500
    #[arg(long, value_name = "PPS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000), verbatim_doc_comment)]
    pub storm_limit: u32,

    /// Rate limit for other broadcast and multicast, in frames/s per VLAN
    ///
    /// Excess frames are dropped; 0 disables the limit. Example: --group-limit 50000
    #[arg(long, value_name = "PPS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000), verbatim_doc_comment)]
    pub group_limit: u32,

    /// Drop frames that have no receiver on this host
    ///
    /// It costs least in XDP. vlanfast refuses to attach if something on the trunk receives
    /// frames that vlanfast can't see, and `mac` if the trunk is a bond or a team.
    /// Example: --shed mac
    #[arg(long, value_parser = values::shed(), default_value = "off", verbatim_doc_comment)]
    pub shed: Shed,

    /// VLANs on which this host and its own containers reach each other
    ///
    /// macvlan keeps a host from its own containers. On these VLANs vlanfast passes frames
    /// between them, if the host has an address there. VID 0 is untagged traffic.
    /// Example: --host-access 10,20
    #[arg(long, value_name = "VID,…|all|off", default_value_t = Vids::Off, verbatim_doc_comment)]
    pub host_access: Vids,

    /// Let packets between VLANs of this host bypass the router
    ///
    /// `allow` bypasses the router's ACLs: enable it only between VLANs that the router does
    /// not filter. `learned` follows the router: it takes the shortcut only for flows that
    /// the router is seen to forward. Example: --shortcut learned
    #[arg(long, value_parser = values::shortcut(), default_value = "off", verbatim_doc_comment)]
    pub shortcut: Shortcut,

    /// The pairs of VLANs for --shortcut allow
    ///
    /// Each pair is valid in both directions. Example: --shortcut-allow 10:20,10:30
    #[arg(
        long,
        value_name = "VID:VID,…",
        value_delimiter = ',',
        required_if_eq("shortcut", "allow"),
        requires = "shortcut",
        verbatim_doc_comment
    )]
    pub shortcut_allow: Vec<VidPair>,

    /// How often --shortcut learned probes the router again for each flow, in seconds
    ///
    /// A rule that is added to the router takes effect on a flow within this time; 0 means
    /// never. Example: --shortcut-refresh 5
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "shortcut",
          value_parser = clap::value_parser!(u32).range(0..=86_400), verbatim_doc_comment)]
    pub shortcut_refresh: u32,

    /// How unicast is delivered to a macvlan or macvtap in the trunk's own network namespace
    ///
    /// `vlanfast endpoints` shows what blocks a redirect. Example: --deliver redirect
    #[arg(long, value_enum, default_value_t = DeliverMode::Kernel, verbatim_doc_comment)]
    pub deliver: DeliverMode,

    /// Decide and count, but change and drop no frame
    ///
    /// The counters then show what would have happened. Example: --shed mac --dry-run
    #[arg(long, verbatim_doc_comment)]
    pub dry_run: bool,

    /// What happens to the attached programs on Ctrl-C, SIGTERM and SIGHUP
    ///
    /// After a crash or a kill -9 they always stay, and every frame is passed.
    /// Example: --on-exit keep
    #[arg(long, value_enum, default_value_t = OnExit::Detach, verbatim_doc_comment)]
    pub on_exit: OnExit,

    /// The number of endpoints (containers and other devices) that the maps have room for
    ///
    /// There is room for four addresses each. A full map never makes an endpoint look
    /// absent: its frames take the kernel's own path. Example: --max-endpoints 65536
    #[arg(long, value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20), verbatim_doc_comment)]
    pub max_endpoints: u32,

    /// The number of endpoints that one network namespace may have; more are left out
    ///
    /// It keeps one container from filling the maps.
    /// Example: --max-endpoints-per-namespace 16
    #[arg(long, value_name = "N", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20), verbatim_doc_comment)]
    pub max_endpoints_per_namespace: u32,

    /// The number of addresses that one endpoint may have; more are left out
    ///
    /// Example: --max-addresses-per-endpoint 8
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20), verbatim_doc_comment)]
    pub max_addresses_per_endpoint: u32,

    /// Source of container names
    ///
    /// `auto` asks the daemon that `docker` would ask, if it is on this host; `off` asks
    /// none. Example: --docker /run/user/1000/docker.sock
    #[arg(long, value_name = "auto|off|SOCKET", default_value_t = DockerSocket::Auto,
          verbatim_doc_comment)]
    pub docker: DockerSocket,

    /// The address at which Prometheus metrics are served
    ///
    /// The default is loopback only, because metrics tell which containers run here.
    /// Example: --metrics 10.0.0.1:9436
    #[arg(long, value_name = "ADDR:PORT|off", default_value_t = Metrics::default(),
          verbatim_doc_comment)]
    pub metrics: Metrics,

    /// Log messages of the BPF programs: -v steered, dropped and unreadable frames, -vv all
    ///
    /// The default is none, which costs nothing: the programs are loaded without this code.
    /// Example: vlanfast attach eth0 -v
    #[arg(short, long, action = ArgAction::Count, verbatim_doc_comment)]
    pub verbose: u8,
}

impl AttachArgs {
    /// The quotas of one network namespace and of one endpoint.
    pub const fn quotas(&self) -> Quotas {
        Quotas {
            addresses: self.max_addresses_per_endpoint,
            endpoints: self.max_endpoints_per_namespace,
        }
    }

    /// The policy that the programs are loaded with.
    pub fn policy(&self) -> Policy {
        Policy {
            steer: (self.steer == Switch::On).into(),
            storm_limit: self.storm_limit,
            group_limit: self.group_limit,
            shed: self.shed as u32,
            dry_run: self.dry_run.into(),
            host_access: (self.host_access != Vids::Off).into(),
            shortcut: self.shortcut as u32,
            shortcut_refresh: self.shortcut_refresh,
            deliver: (self.deliver == DeliverMode::Redirect).into(),
        }
    }

    /// The configuration of single VLANs.
    pub fn vlan_config(&self) -> VlanConfig {
        VlanConfig {
            host_access: self.host_access.clone(),
            routes: match self.shortcut {
                Shortcut::Off => Routes::None,
                Shortcut::Allow => Routes::Between(self.shortcut_allow.clone()),
                Shortcut::Learned => Routes::Everywhere,
            },
        }
    }
}
