//! The values that options take, beside those that `vlanfast-common` and `state` have types for.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use vlanfast_common::{Shed, Shortcut};

/// The address at which metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    Off,
    At(SocketAddr),
}

impl Default for Metrics {
    /// Loopback only, because metrics tell which containers run here.
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

/// The hook that is to read incoming frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IngressMode {
    /// Native XDP on a NIC that has it and leaves VLAN tags in the frame, otherwise TC
    Auto,
    /// TC: tcx from Linux 6.6 on, clsact before
    Tc,
    /// Native XDP, or an error that says why it can't be used
    Xdp,
    /// XDP behind the driver: works with every driver and is slower than TC
    XdpGeneric,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How unicast is delivered to a macvlan or macvtap in the trunk's own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeliverMode {
    /// The kernel delivers it by the VLAN device and macvlan
    Kernel,
    /// TC ingress redirects it to the endpoint's device, which costs more
    Redirect,
}

/// What happens to the attached programs when the process ends regularly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// They are removed, and nothing is left
    Detach,
    /// They stay, pass and count every frame, and the next attach takes them over
    Keep,
}

/// Reads a [`Shed`] by its name.
pub fn shed() -> impl TypedValueParser<Value = Shed> {
    const VALUES: [(Shed, &str); 3] = [
        (Shed::Off, "Drop nothing"),
        (
            Shed::Vlan,
            "Drop frames of VLANs for which this host has no device",
        ),
        (
            Shed::Mac,
            "Drop those, and unicast to a MAC that no endpoint on the VLAN has",
        ),
    ];
    named(VALUES, Shed::name)
}

/// Reads a [`Shortcut`] by its name.
pub fn shortcut() -> impl TypedValueParser<Value = Shortcut> {
    const VALUES: [(Shortcut, &str); 3] = [
        (Shortcut::Off, "Every packet takes the router"),
        (
            Shortcut::Allow,
            "Packets between the VLANs of --shortcut-allow take the shortcut",
        ),
        (
            Shortcut::Learned,
            "Packets of flows that the router is seen to forward take the shortcut",
        ),
    ];
    named(VALUES, Shortcut::name)
}

/// Reads a value of an enum of `vlanfast-common` by its name. The value's help is given beside it.
fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(T, &'static str); N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let possible = values.map(|(value, help)| PossibleValue::new(name(value)).help(help));
    PossibleValuesParser::new(possible).try_map(move |text| {
        let mut values = values.iter().map(|(value, _)| *value);
        values
            .find(|value| name(*value) == text)
            .ok_or("no such value")
    })
}
