//! Sends requests to the Docker API.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::{
    clock::seconds_since_1970,
    names::docker::{
        answer::{List, Listed, Network, Version, cut, macvlans},
        error::Error,
        http,
        http::Answer,
    },
    state::snapshot::Docker,
};

/// The newest API version that is supported. A daemon answers in the version of the request.
const API: (u16, u16) = (1, 53);

/// The events after which names may have changed. Health checks (`exec_…`, every few seconds) are not among them.
const EVENTS: &[&str] = &[
    // Events of containers.
    "start",
    "die",
    "rename",
    // Events of networks.
    "create",
    "connect",
    "disconnect",
    "destroy",
    "remove",
    "update",
];

/// The maximum number of networks in a request for their containers. If there are more, all containers are requested,
/// because a path is limited to 64 KiB.
const NAMED: usize = 256;

/// A daemon that has answered once.
pub struct Client {
    socket: PathBuf,
    version: (u16, u16),
}

impl Client {
    pub async fn connect(socket: PathBuf) -> Result<Self, Error> {
        let answer = http::get(&socket, "/version").await?;
        let version: Version = read(answer).await?;
        let theirs = version.api().ok_or(Error::Version)?;
        Ok(Self {
            socket,
            version: theirs.min(API),
        })
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Error> {
        let (major, minor) = self.version;
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        http::get(&self.socket, &format!("/v{major}.{minor}{path}?{query}")).await
    }

    /// Requests events. Each part of the answer means that names may have changed, so it need not be parsed.
    pub async fn events(&self) -> Result<Answer, Error> {
        let filters = json!({"type": ["container", "network"], "event": EVENTS}).to_string();
        // Docker answers a moment before it starts to listen. This also returns events of that moment.
        let since = seconds_since_1970().to_string();
        self.get("/events", &[("since", &since), ("filters", &filters)])
            .await
    }

    /// Lists the macvlan networks and the containers attached to them.
    pub async fn list(&self) -> Result<Docker, Error> {
        let List::<Network>(networks) = read(self.get("/networks", &[]).await?).await?;
        let networks = macvlans(&networks);
        if networks.is_empty() {
            // Without a network to filter by, Docker would list every container.
            return Ok(Docker::default());
        }
        let mut filters = Map::from_iter([("status".into(), json!(["running", "paused"]))]);
        if networks.len() <= NAMED {
            let ids: Vec<_> = networks.keys().map(String::as_str).collect();
            filters.insert("network".into(), json!(ids));
        }
        let filters = Value::Object(filters).to_string();
        let answer = self
            .get("/containers/json", &[("filters", &filters)])
            .await?;
        let List::<Listed>(containers) = read(answer).await?;
        Ok(Docker {
            networks,
            containers: containers.into_iter().map(|listed| listed.0).collect(),
        })
    }
}

/// Parses an answer, in another thread because a long one takes a while.
async fn read<T: DeserializeOwned + Send + 'static>(answer: Answer) -> Result<T, Error> {
    let whole = answer.whole().await?;
    // An error message quotes the answer, so it is truncated as well.
    let parse = move || {
        serde_json::from_slice(&whole).map_err(|error| Error::Answer(cut(&error.to_string())))
    };
    spawn_blocking(parse).await.map_err(|_| Error::Ended)?
}
