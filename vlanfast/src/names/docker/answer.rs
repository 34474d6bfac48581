//! What is read of Docker's answers. An answer may be made to cost memory when it is read: three bytes
//! (`{},`) for each element of a list. So each is reduced to what matters of it before the next one is
//! read, texts are cut, and there is a bound on how many are kept.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use vlanfast_common::Mac;

use crate::state::snapshot::{Container, DockerAttachment, DockerNetwork};

/// How many of anything are kept of one answer.
pub const MOST: usize = 32_768;
/// How many networks one container is in.
const NETWORKS: usize = 256;
/// The longest text that is kept. Docker's ids have 64 letters, and devices' names 15.
const TEXT: usize = 128;

/// Text that somebody chose, cut.
#[derive(Default, PartialEq, Eq)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cut;
        impl Visitor<'_> for Cut {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(cut(text)))
            }
        }
        deserializer.deserialize_str(Cut)
    }
}

/// At most [`TEXT`] bytes of it, and a sign that there was more.
pub fn cut(text: &str) -> String {
    match text.len() {
        ..=TEXT => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(TEXT)]),
    }
}

/// An element of a list, reduced to what matters.
pub trait Element: Sized {
    /// How many of [`MOST`] it is; 0 for one that need not be kept.
    fn weight(&self) -> usize;
}

/// What is kept of a list.
pub struct List<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de> + Element> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Element> Visitor<'de> for Elements<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let (mut kept, mut weight) = (vec![], 0);
                while let Some(element) = seq.next_element::<T>()? {
                    weight += element.weight();
                    if weight > MOST {
                        return Err(de::Error::custom(format_args!("more than {MOST} of them")));
                    }
                    if element.weight() > 0 {
                        kept.push(element);
                    }
                }
                Ok(List(kept))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// The answer of `/version`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    api_version: Text,
}

impl Version {
    /// The daemon's newest API, as (1, 41).
    pub fn api(&self) -> Option<(u16, u16)> {
        let (major, minor) = self.api_version.0.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    id: Option<Text>,
    name: Option<Text>,
    driver: Option<Text>,
    options: Option<Options>,
    config_from: Option<ConfigFrom>,
}

#[derive(Deserialize)]
struct Options {
    parent: Option<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: Option<Text>,
}

impl Element for Network {
    /// Macvlans, and what may be a template of one.
    fn weight(&self) -> usize {
        usize::from(self.is_macvlan() || self.parent().is_some())
    }
}

impl Network {
    fn is_macvlan(&self) -> bool {
        self.driver
            .as_ref()
            .is_some_and(|driver| driver.0 == "macvlan")
    }

    fn parent(&self) -> Option<&str> {
        let parent = self.options.as_ref()?.parent.as_ref()?;
        (!parent.0.is_empty()).then_some(&parent.0)
    }

    /// The network that this one was made from. Docker shows none of its options at a network of swarm
    /// scope, whose parent each host decides.
    fn template(&self) -> Option<&Text> {
        self.config_from.as_ref()?.network.as_ref()
    }
}

/// The macvlan networks by their ids.
pub fn macvlans(networks: &[Network]) -> BTreeMap<String, DockerNetwork> {
    let name = |network: &Network| network.name.as_ref().map(|name| name.0.clone());
    // Of several with one name, the first.
    let parents: BTreeMap<_, _> = networks
        .iter()
        .rev()
        .filter_map(|network| Some((name(network)?, network.parent()?)))
        .collect();
    let pair = |network: &Network| {
        let template = || parents.get(&network.template()?.0).copied();
        let known = DockerNetwork {
            name: name(network).unwrap_or_default(),
            parent: network.parent().or_else(template).map(str::to_owned),
        };
        Some((network.id.as_ref()?.0.clone(), known))
    };
    let macvlans = networks.iter().filter(|network| network.is_macvlan());
    macvlans.filter_map(pair).collect()
}

/// A container of a list.
pub struct Listed(pub Container);

impl Element for Listed {
    fn weight(&self) -> usize {
        self.0.attachments.len().max(1)
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Summary {
            names: Option<OwnName>,
            labels: Option<Labels>,
            network_settings: Option<Settings>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Settings {
            networks: Option<DockerAttachments>,
        }
        let summary = Summary::deserialize(deserializer)?;
        let labels = summary.labels.unwrap_or_default();
        let networks = summary.network_settings.and_then(|it| it.networks);
        Ok(Self(Container {
            name: summary.names.unwrap_or_default().0,
            project: labels.project,
            service: labels.service,
            attachments: networks.unwrap_or_default().0,
        }))
    }
}

/// Of a container that others link to, `/other/alias` is a name too.
#[derive(Default)]
struct OwnName(String);

impl<'de> Deserialize<'de> for OwnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = OwnName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OwnName, A::Error> {
                let mut best: Option<String> = None;
                while let Some(Text(name)) = seq.next_element()? {
                    let name = name.strip_prefix('/').unwrap_or(&name);
                    let is_linked = |name: &str| name.contains('/');
                    match &best {
                        Some(known) if !is_linked(known) || is_linked(name) => {}
                        _ => best = Some(name.to_owned()),
                    }
                }
                Ok(OwnName(best.unwrap_or_default()))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

/// Those of Compose.
#[derive(Default)]
struct Labels {
    project: Option<String>,
    service: Option<String>,
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(Text(key)) = map.next_key()? {
                    let label = match key.as_str() {
                        "com.docker.compose.project" => &mut labels.project,
                        "com.docker.compose.service" => &mut labels.service,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *label = map.next_value::<Option<Text>>()?.map(|text| text.0);
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// The networks that a container is in.
#[derive(Default)]
struct DockerAttachments(Vec<DockerAttachment>);

impl<'de> Deserialize<'de> for DockerAttachments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = DockerAttachments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("networks")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<DockerAttachments, A::Error> {
                let mut attachments = vec![];
                while map.next_key::<IgnoredAny>()?.is_some() {
                    let endpoint = map.next_value::<Option<Settings>>()?;
                    attachments.extend(endpoint.and_then(Settings::attachment));
                    if attachments.len() > NETWORKS {
                        let error = format_args!("a container in more than {NETWORKS} networks");
                        return Err(de::Error::custom(error));
                    }
                }
                // They come without an order, and two lists of the same must be equal.
                attachments.sort_by(|a, b| a.network.cmp(&b.network));
                Ok(DockerAttachments(attachments))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// A container's place in a network.
#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "NetworkID")]
    network: Option<Text>,
    #[serde(rename = "MacAddress")]
    mac: Option<Text>,
    #[serde(rename = "IPAddress")]
    v4: Option<Text>,
    #[serde(rename = "GlobalIPv6Address")]
    v6: Option<Text>,
}

impl Settings {
    fn attachment(self) -> Option<DockerAttachment> {
        Some(DockerAttachment {
            network: self.network?.0,
            mac: self.mac.as_ref().and_then(|text| mac(&text.0)),
            addresses: [self.v4, self.v6]
                .into_iter()
                .filter_map(|address| address?.0.parse().ok())
                .filter(|address: &IpAddr| !address.is_unspecified())
                .collect(),
        })
    }
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
