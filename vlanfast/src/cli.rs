//! The command line.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use vlanfast_common::{Policy, Shed, Shortcut};

use crate::{
    names::docker::DockerSocket,
    state::{
        config::{Routes, VlanConfig},
        name::Name,
        quotas::Quotas,
        vids::{VidPair, Vids},
    },
};

/// VLAN-aware eBPF fast path for Docker macvlan containers on an 802.1Q trunk.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 fine; 1 failed; 2 wrong usage; 3 not permitted; 4 no such device, or one that can't be \
a trunk; 5 the hook, or the directory for pins, is someone else's; 6 the kernel lacks something; 7 already attached";

#[derive(Subcommand)]
pub enum Command {
    /// Attach to a trunk, or take over what is attached, and stay until Ctrl-C or SIGTERM
    Attach(AttachArgs),
    /// Take vlanfast off a trunk, also when nobody is left who attached it
    Detach(DetachArgs),
    /// Show what is attached, where, and why not elsewhere
    Status(StatusArgs),
    /// Show who is behind the trunk: VLAN, MAC, addresses, container
    Endpoints(EndpointsArgs),
    /// Show packets and bytes of each VLAN
    Counters(CountersArgs),
    /// Show or forget what --shortcut learned has learnt
    Flows(FlowsArgs),
}

#[derive(Args)]
pub struct AttachArgs {
    /// The NIC that carries the VLANs, e.g. eth0 (not eth0.10)
    pub trunk: Name,

    /// Where to read what comes in
    #[arg(long, value_enum, default_value_t = IngressMode::Auto)]
    pub ingress: IngressMode,

    /// Turn off what keeps the NIC from native XDP (rx-vlan-offload); detaching turns it on again
    #[arg(long)]
    pub manage_offloads: bool,

    /// Give ARP requests, neighbour solicitations and DHCP replies to the one they are for
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub steer: Switch,

    /// How many requests/s for an address, which go to everyone, each VLAN takes; 0 takes all
    #[arg(long, value_name = "PPS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub storm_limit: u32,

    /// How many other broadcasts and multicasts/s each VLAN takes; 0 takes all
    #[arg(long, value_name = "PPS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub group_limit: u32,

    /// What to drop because nobody here takes it; refused where others listen on the trunk
    #[arg(long, value_enum, default_value_t = Shedding::Off)]
    pub shed: Shedding,

    /// VLANs on which this host and its containers reach each other
    #[arg(long, value_name = "VID,…|all|off", default_value_t = Vids::Off)]
    pub host_access: Vids,

    /// Which packets between VLANs of this host do without the router
    #[arg(long, value_enum, default_value_t = Shortcuts::Off)]
    pub shortcut: Shortcuts,

    /// The pairs of VLANs for --shortcut allow
    #[arg(
        long,
        value_name = "VID:VID,…",
        value_delimiter = ',',
        required_if_eq("shortcut", "allow"),
        requires = "shortcut"
    )]
    pub shortcut_allow: Vec<VidPair>,

    /// After how long a learnt flow asks the router again; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "shortcut",
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub shortcut_refresh: u32,

    /// How unicast reaches a macvlan or macvtap in the trunk's own namespace
    #[arg(long, value_enum, default_value_t = Delivery::Kernel)]
    pub deliver: Delivery,

    /// Decide and count, and change no packet
    #[arg(long)]
    pub dry_run: bool,

    /// What Ctrl-C, SIGTERM and SIGHUP do to what is attached
    #[arg(long, value_enum, default_value_t = OnExit::Detach)]
    pub on_exit: OnExit,

    /// How many containers and other devices there is room for; four addresses each
    #[arg(long, value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_endpoints: u32,

    /// How many of these one container may have; more are left out
    #[arg(long, value_name = "N", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_endpoints_per_namespace: u32,

    /// How many addresses each of them may have; more are left out
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_addresses_per_endpoint: u32,

    /// Where containers get their names from
    #[arg(long, value_name = "auto|off|SOCKET", default_value_t = DockerSocket::Auto)]
    pub docker: DockerSocket,

    /// Where Prometheus finds the metrics
    #[arg(long, value_name = "ADDR:PORT|off", default_value_t = Metrics::default())]
    pub metrics: Metrics,

    /// Show messages of the BPF programs: -v frames steered, dropped or passed unread, -vv all
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    Off,
    At(SocketAddr),
}

impl Default for Metrics {
    /// For this host alone: what containers there are is nobody else's business.
    fn default() -> Self {
        Self::At((Ipv4Addr::LOCALHOST, 9436).into())
    }
}

impl FromStr for Metrics {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::At)
                .map_err(|_| "expected off, or an address and a port like 127.0.0.1:9436"),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Where the user wants ingress to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IngressMode {
    /// Native XDP on a NIC that has it and keeps the tags in the bytes; else TC
    Auto,
    /// TC: tcx from Linux 6.6, clsact before
    Tc,
    /// Native XDP, or an error
    Xdp,
    /// XDP behind the driver: works with every driver, slower than TC
    XdpGeneric,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What is dropped because nobody takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shedding {
    /// Nothing
    Off,
    /// Frames of VLANs for which the host has no device
    Vlan,
    /// And unicast for MACs that nobody on the VLAN has
    Mac,
}

/// Which packets between VLANs of this host do without the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shortcuts {
    /// None
    Off,
    /// Those between the VLANs of --shortcut-allow, whatever the router would do with them
    Allow,
    /// Those of flows that the router is seen to send on
    Learned,
}

/// How unicast reaches a macvlan or macvtap in the trunk's own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// By the VLAN's device and macvlan
    Kernel,
    /// From TC ingress straight to its device, which costs more
    Redirect,
}

impl AttachArgs {
    /// How much room one container may have.
    pub const fn quotas(&self) -> Quotas {
        Quotas {
            addresses: self.max_addresses_per_endpoint,
            endpoints: self.max_endpoints_per_namespace,
        }
    }

    /// What the programs are to do.
    pub fn policy(&self) -> Policy {
        let shed = match self.shed {
            Shedding::Off => Shed::Off,
            Shedding::Vlan => Shed::Vlan,
            Shedding::Mac => Shed::Mac,
        };
        let shortcut = match self.shortcut {
            Shortcuts::Off => Shortcut::Off,
            Shortcuts::Allow => Shortcut::Allow,
            Shortcuts::Learned => Shortcut::Learned,
        };
        Policy {
            steer: (self.steer == Switch::On).into(),
            storm_limit: self.storm_limit,
            group_limit: self.group_limit,
            shed: shed as u32,
            dry_run: self.dry_run.into(),
            host_access: (self.host_access != Vids::Off).into(),
            shortcut: shortcut as u32,
            shortcut_refresh: self.shortcut_refresh,
            deliver: (self.deliver == Delivery::Redirect).into(),
        }
    }

    /// What is wanted for some VLANs.
    pub fn wishes(&self) -> VlanConfig {
        VlanConfig {
            host_access: self.host_access.clone(),
            routes: match self.shortcut {
                Shortcuts::Off => Routes::None,
                Shortcuts::Allow => Routes::Between(self.shortcut_allow.clone()),
                Shortcuts::Learned => Routes::Everywhere,
            },
        }
    }
}

/// What becomes of what is attached when its process ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// It is taken off, and nothing is left
    Detach,
    /// It stays, passes and counts every frame, and the next attach takes it over
    Keep,
}

#[derive(Args)]
pub struct DetachArgs {
    /// The trunk it is attached to
    pub trunk: Name,
}

#[derive(Args)]
pub struct StatusArgs {
    /// One trunk only
    pub trunk: Option<Name>,

    /// One JSON object per trunk
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct EndpointsArgs {
    /// One trunk only
    pub trunk: Option<Name>,

    /// Where containers get their names from
    #[arg(long, value_name = "auto|off|SOCKET", default_value_t = DockerSocket::Auto)]
    pub docker: DockerSocket,

    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct CountersArgs {
    /// One trunk only
    pub trunk: Option<Name>,

    /// One VLAN only; 0 is untagged and priority-tagged traffic
    #[arg(long, value_name = "VID", value_parser = clap::value_parser!(u16).range(0..=4095))]
    pub vlan: Option<u16>,

    /// Show them anew every second
    #[arg(long)]
    pub watch: bool,

    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FlowsArgs {
    #[command(subcommand)]
    pub command: Option<FlowsCommand>,

    /// One trunk only
    pub trunk: Option<Name>,

    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum FlowsCommand {
    /// Forget all of them: the router is asked about each anew
    Flush {
        /// One trunk only
        trunk: Option<Name>,
    },
}
