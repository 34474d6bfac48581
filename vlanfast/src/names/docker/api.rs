//! The requests.

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

/// The newest API that this was written for. A daemon's answers are in the version that they are asked
/// for in.
const API: (u16, u16) = (1, 53);

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

/// How many networks are named in the question for their containers. With more, all containers are
/// asked for: a path can't have more than 64 KiB.
const NAMED: usize = 256;

/// A daemon that answered once.
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

    /// Whatever comes of this answer, there may be other names now: it need not be understood.
    pub async fn events(&self) -> Result<Answer, Error> {
        let filters = json!({"type": ["container", "network"], "event": EVENTS}).to_string();
        // Docker answers a moment before it listens; this brings what happened in between.
        let since = seconds_since_1970().to_string();
        self.get("/events", &[("since", &since), ("filters", &filters)])
            .await
    }

    /// The macvlan networks, and the containers in them.
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

/// Reads an answer. A long one takes a while, in which the rest of the process has better things to do.
async fn read<T: DeserializeOwned + Send + 'static>(answer: Answer) -> Result<T, Error> {
    let whole = answer.whole().await?;
    // What is wrong is told in the words that are wrong, however many they are.
    let parse = move || {
        serde_json::from_slice(&whole).map_err(|error| Error::Answer(cut(&error.to_string())))
    };
    spawn_blocking(parse).await.map_err(|_| Error::Ended)?
}
