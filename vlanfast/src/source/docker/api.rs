//! The requests, and what of their answers matters.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION,
    models::{ContainerSummary, EndpointSettings, Network},
    query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptions},
};
use futures_util::{Stream, TryStreamExt};
use tokio::net::UnixStream;
use vlanfast_common::Mac;

use super::Error;
use crate::{
    clock::seconds_since_1970,
    state::snapshot::{Attachment, Container, Docker, DockerNetwork},
};

/// After which there may be other names. Health checks (`exec_…`, every few seconds) are not among
/// them.
const EVENTS: &[&str] = &[
    // container
    "start",
    "die",
    "rename",
    // network
    "create",
    "connect",
    "disconnect",
    "destroy",
    "remove",
    "update",
];

/// A daemon that answered once.
pub struct Client(bollard::Docker);

impl Client {
    pub async fn connect(socket: &Path, limit: Duration) -> Result<Self, Error> {
        // bollard can't tell a socket that is missing from one that we may not use.
        UnixStream::connect(socket).await.map_err(Error::Connect)?;
        let client = bollard::Docker::connect_with_unix(
            &socket.to_string_lossy(),
            // In whole seconds.
            limit.as_secs().max(1),
            API_DEFAULT_VERSION,
        )?;
        // bollard up to 0.21.1 sends no version, and each daemon then answers in its own (bollard
        // issue 736). One that sends it must not send a newer one than the daemon knows.
        Ok(Self(client.negotiate_version().await?))
    }

    /// Each says that there may be other names now.
    pub fn events(&self) -> impl Stream<Item = Result<(), Error>> {
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", EVENTS.to_vec()),
        ]);
        let options = EventsOptionsBuilder::default()
            // Docker answers a moment before it listens; this brings what happened in between.
            .since(&seconds_since_1970().to_string())
            .filters(&filters);
        let events = self.0.events(Some(options.build()));
        events.map_ok(|_| ()).map_err(Error::from)
    }

    /// The macvlan networks, and the containers in them.
    pub async fn list(&self) -> Result<Docker, Error> {
        let networks = self.0.list_networks(None::<ListNetworksOptions>).await?;
        let networks = macvlans(&networks);
        if networks.is_empty() {
            // Without a network to filter by, Docker would list every container.
            return Ok(Docker::default());
        }
        let filters = HashMap::from([
            ("network", networks.keys().map(String::as_str).collect()),
            ("status", vec!["running", "paused"]),
        ]);
        let options = ListContainersOptionsBuilder::default().filters(&filters);
        let containers = self.0.list_containers(Some(options.build())).await?;
        Ok(Docker {
            networks,
            containers: containers.into_iter().map(container).collect(),
        })
    }
}

fn macvlans(networks: &[Network]) -> BTreeMap<String, DockerNetwork> {
    let macvlans = networks
        .iter()
        .filter(|network| network.driver.as_deref() == Some("macvlan"));
    let pair = |network: &Network| {
        let known = DockerNetwork {
            name: network.name.clone().unwrap_or_default(),
            parent: parent(network).or_else(|| parent(template(network, networks)?)),
        };
        Some((network.id.clone()?, known))
    };
    macvlans.filter_map(pair).collect()
}

fn parent(network: &Network) -> Option<String> {
    let parent = network.options.as_ref()?.get("parent")?;
    (!parent.is_empty()).then(|| parent.clone())
}

/// The network that another one was made from. Docker shows none of its options at a network of swarm
/// scope, whose parent each host decides.
fn template<'a>(network: &Network, networks: &'a [Network]) -> Option<&'a Network> {
    let name = network.config_from.as_ref()?.network.as_ref();
    networks.iter().find(|other| other.name.as_ref() == name)
}

fn container(summary: ContainerSummary) -> Container {
    let mut labels = summary.labels.unwrap_or_default();
    let settings = summary.network_settings.unwrap_or_default();
    let networks = settings.networks.unwrap_or_default();
    let mut attachments: Vec<_> = networks.into_values().filter_map(attachment).collect();
    // They come without an order, and two lists of the same must be equal.
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    Container {
        name: name(&summary.names.unwrap_or_default()),
        project: labels.remove("com.docker.compose.project"),
        service: labels.remove("com.docker.compose.service"),
        attachments,
    }
}

/// Of a container that others link to, `/other/alias` is a name too.
fn name(names: &[String]) -> String {
    let mut names = names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name));
    let own = names.clone().find(|name| !name.contains('/'));
    own.or(names.next()).unwrap_or_default().to_owned()
}

fn attachment(settings: EndpointSettings) -> Option<Attachment> {
    let addresses = [settings.ip_address, settings.global_ipv6_address];
    Some(Attachment {
        network: settings.network_id?,
        mac: settings.mac_address.as_deref().and_then(mac),
        addresses: addresses
            .into_iter()
            .filter_map(|address| address?.parse().ok())
            .filter(|address: &IpAddr| !address.is_unspecified())
            .collect(),
    })
}

/// Six bytes in hexadecimal with colons between.
fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}
