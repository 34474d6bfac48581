//! The command line. `cli/attach.rs` has the options of `vlanfast attach`, `cli/values.rs` the values that options
//! take.

mod attach;
mod values;

use clap::{Args, Parser, Subcommand};

pub use self::{
    attach::AttachArgs,
    values::{DeliverMode, IngressMode, Metrics, OnExit, Switch},
};
use crate::{names::docker::DockerSocket, state::name::Name};

/// VLAN-aware eBPF fast path for Docker macvlan containers on an 802.1Q trunk
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong usage
  3  missing permissions
  4  no such device, or a device that can't be a trunk
  5  the hook or the pin directory belongs to somebody else
  6  the kernel lacks a feature
  7  already attached

`vlanfast help COMMAND` describes every option and gives examples.";

const ATTACH_EXAMPLES: &str = "\
Examples:
  Attach to eth0 with the defaults, and detach again with Ctrl-C:
    vlanfast attach eth0

  Attach by native XDP, and drop frames that have no receiver on this host:
    vlanfast attach eth0 --ingress xdp --manage-offloads --shed mac

  Let the host reach its containers on VLANs 10 and 20, and let these two VLANs
  exchange packets without the router:
    vlanfast attach eth0 --host-access 10,20 --shortcut allow --shortcut-allow 10:20";

const DETACH_EXAMPLE: &str = "\
Example:
  End the process that is attached to eth0, and remove the programs and the pins:
    vlanfast detach eth0";

const STATUS_EXAMPLE: &str = "\
Example:
  Check that the maps of eth0 are in sync:
    vlanfast status eth0 --json | jq -e '.heartbeat == \"alive\"'";

const ENDPOINTS_EXAMPLE: &str = "\
Example:
  List the containers on VLAN 10:
    vlanfast endpoints eth0 --json | jq -r '.[] | select(.vlan == 10).container'";

const COUNTERS_EXAMPLE: &str = "\
Example:
  Watch the packets of VLAN 10:
    vlanfast counters eth0 --vlan 10 --watch";

const FLOWS_EXAMPLE: &str = "\
Example:
  Forget all flows, after the rules of the router have changed:
    vlanfast flows flush eth0";

#[derive(Subcommand)]
pub enum Command {
    /// Attach to a trunk, or take over what is attached, and stay until Ctrl-C or SIGTERM
    #[command(after_long_help = ATTACH_EXAMPLES)]
    Attach(Box<AttachArgs>),
    /// Take vlanfast off a trunk, whether a process is still attached or not
    #[command(after_long_help = DETACH_EXAMPLE)]
    Detach(DetachArgs),
    /// Show what is attached to which hook, and why; the policy, the VLANs and warnings
    #[command(after_long_help = STATUS_EXAMPLE)]
    Status(StatusArgs),
    /// Show the endpoints on the trunk: VLAN, MAC, addresses, container
    #[command(after_long_help = ENDPOINTS_EXAMPLE)]
    Endpoints(EndpointsArgs),
    /// Show packets and bytes of each VLAN
    #[command(after_long_help = COUNTERS_EXAMPLE)]
    Counters(CountersArgs),
    /// Show or forget the flows that --shortcut learned has learnt
    #[command(after_long_help = FLOWS_EXAMPLE)]
    Flows(FlowsArgs),
}

#[derive(Args)]
pub struct DetachArgs {
    /// The trunk
    ///
    /// Any name of the device will do. A trunk that was removed is named as it was
    /// called last, to clean up after it. Example: vlanfast detach eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Name,
}

#[derive(Args)]
pub struct StatusArgs {
    /// Only this trunk
    ///
    /// Without it, all trunks of this network namespace are shown.
    /// Example: vlanfast status eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Option<Name>,

    /// Print one JSON object per trunk
    ///
    /// Each object is one line. Example: vlanfast status --json | jq .warnings
    #[arg(long, verbatim_doc_comment)]
    pub json: bool,
}

#[derive(Args)]
pub struct EndpointsArgs {
    /// Only this trunk
    ///
    /// Without it, all trunks of this network namespace are shown.
    /// Example: vlanfast endpoints eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Option<Name>,

    /// Source of container names
    ///
    /// `auto` asks the daemon that `docker` would ask, if it is on this host; `off` asks
    /// none. Example: --docker /run/user/1000/docker.sock
    #[arg(long, value_name = "auto|off|SOCKET", default_value_t = DockerSocket::Auto,
          verbatim_doc_comment)]
    pub docker: DockerSocket,

    /// Print a JSON array
    ///
    /// Example: vlanfast endpoints --json | jq '.[] | select(.conflict)'
    #[arg(long, verbatim_doc_comment)]
    pub json: bool,
}

#[derive(Args)]
pub struct CountersArgs {
    /// Only this trunk
    ///
    /// Without it, all trunks of this network namespace are shown.
    /// Example: vlanfast counters eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Option<Name>,

    /// Only this VLAN; 0 is untagged and priority-tagged traffic
    ///
    /// Without it, all VLANs that had traffic are shown. Example: --vlan 10
    #[arg(long, value_name = "VID", value_parser = clap::value_parser!(u16).range(0..=4095),
          verbatim_doc_comment)]
    pub vlan: Option<u16>,

    /// Print them again every second
    ///
    /// It ends with Ctrl-C. Example: vlanfast counters eth0 --watch
    #[arg(long, verbatim_doc_comment)]
    pub watch: bool,

    /// Print a JSON array
    ///
    /// Example: vlanfast counters --json | jq '.[] | {vlan, drops}'
    #[arg(long, verbatim_doc_comment)]
    pub json: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FlowsArgs {
    #[command(subcommand)]
    pub command: Option<FlowsCommand>,

    /// Only this trunk
    ///
    /// Without it, all trunks of this network namespace are shown.
    /// Example: vlanfast flows eth0
    #[arg(verbatim_doc_comment)]
    pub trunk: Option<Name>,

    /// Print a JSON array
    ///
    /// Example: vlanfast flows --json | jq 'map(.packets) | add'
    #[arg(long, verbatim_doc_comment)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum FlowsCommand {
    /// Forget all flows: the router is probed again for each
    #[command(after_long_help = FLOWS_EXAMPLE)]
    Flush {
        /// Only this trunk
        ///
        /// Without it, the flows of all trunks of this network namespace are forgotten.
        /// Example: vlanfast flows flush eth0
        #[arg(verbatim_doc_comment)]
        trunk: Option<Name>,
    },
}
