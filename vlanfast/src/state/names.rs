//! Docker's names for the endpoints that netlink found.

/// The names of one endpoint; all empty where Docker knows nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The device's name in its namespace.
    pub device: String,
    pub container: Option<String>,
    pub network: Option<String>,
    /// The Compose project and service.
    pub project: Option<String>,
    pub service: Option<String>,
}
