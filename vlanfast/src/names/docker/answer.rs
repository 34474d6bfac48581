//! Parses Docker's answers. A small element such as `{},` could take much more memory than its three bytes. So each
//! element is reduced to what is needed before the next one is read, texts are truncated, and the number of elements is
//! limited.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use vlanfast_common::Mac;

use crate::state::snapshot::{Container, DockerAttachment, DockerNetwork};

/// The maximum number of elements that are kept of one answer.
pub const MOST: usize = 32_768;
/// The maximum number of networks of one container.
const NETWORKS: usize = 256;
/// The maximum length of a text. Docker's ids have 64 letters, and device names 15.
const TEXT: usize = 128;

/// A text of unknown origin, truncated.
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

/// Truncates a text to [`TEXT`] bytes, and marks that by an ellipsis.
pub fn cut(text: &str) -> String {
    match text.len() {
        ..=TEXT => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(TEXT)]),
    }
}

/// An element of a list, reduced to what is needed.
pub trait Element: Sized {
    /// Returns how much the element counts towards [`MOST`]; 0 for one that is not kept.
    fn weight(&self) -> usize;
}

/// The elements of a list that are kept.
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
                        return Err(de::Error::custom(format_args!("more than {MOST} elements")));
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

/// The answer to `/version`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    api_version: Text,
}

impl Version {
    /// Returns the newest API version of the daemon, for example (1, 41).
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
    /// Macvlan networks are kept, and networks that may be the template of one.
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

    /// Returns the network from which this one was created. A network of swarm scope has no options of its own, because
    /// each host chooses its parent.
    fn template(&self) -> Option<&Text> {
        self.config_from.as_ref()?.network.as_ref()
    }
}

/// Returns the macvlan networks by their ids.
pub fn macvlans(networks: &[Network]) -> BTreeMap<String, DockerNetwork> {
    let name = |network: &Network| network.name.as_ref().map(|name| name.0.clone());
    // If several networks have the same name, the first one counts.
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

/// A container in a list.
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

/// The container's own name. If other containers link to it, `/other/alias` is one of its names as well.
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

/// The labels that Docker Compose sets.
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

/// The networks to which a container is attached.
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
                // Docker lists them in no particular order, but equal lists must compare as equal.
                attachments.sort_by(|a, b| a.network.cmp(&b.network));
                Ok(DockerAttachments(attachments))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// An attachment of a container to a network.
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

/// Parses a MAC of six hexadecimal bytes separated by colons.
fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}
