//! Publishes the state of the loop: to `status` through the map `STATUS`, and to the metrics.

use std::{collections::BTreeMap, sync::Arc};

use vlanfast_common::{EndpointKey, Source, SourceStatus, Status, Vid};

use crate::{
    reconcile::Reconciler,
    state::{
        config::Routes,
        listeners::Listener,
        names::{Names, names},
        plan::{Over, Plan},
        report::{LeftOut, Report},
        snapshot::DeviceId,
        tables::Desired,
    },
};

impl Reconciler {
    /// Publishes the state of the sources if nothing else has changed.
    pub(super) fn report_sources(&mut self) -> anyhow::Result<()> {
        let sources = self.sources();
        self.publish.send_if_modified(|published| {
            let Some(published) = published else {
                return false;
            };
            *published = Arc::new(Report {
                sources,
                hooks: self.hooks.clone(),
                ..Report::clone(published)
            });
            true
        });
        let status = self.maps.status()?;
        self.maps.set_status(&Status { sources, ..status })
    }

    fn sources(&self) -> [SourceStatus; Source::ALL.len()] {
        let mut sources = [SourceStatus::default(); Source::ALL.len()];
        sources[Source::Netlink as usize] = self.netlink_status;
        sources[Source::Docker as usize] = self.docker.borrow().status;
        sources
    }

    /// Returns the VLANs from which vlanfast backs off, with the reasons.
    fn listeners(&self) -> BTreeMap<Vid, Vec<Listener>> {
        let vlans = self.installed.vlans.iter();
        let rows = vlans.map(|(vid, parent)| (*vid, Listener::of(*parent).collect::<Vec<_>>()));
        rows.filter(|(_, listeners)| !listeners.is_empty())
            .collect()
    }

    /// Publishes the result of a round to `status` and the metrics.
    pub(super) fn report(&mut self, desired: Desired, plan: &Plan) -> anyhow::Result<()> {
        let docker = self.docker.borrow_and_update().clone();
        let sources = self.sources();
        let over = || plan.over.iter();
        let most = over().max_by_key(|(_, over)| over.endpoints + over.addresses);
        self.maps.set_status(&Status {
            sources,
            endpoints_left_out: plan.endpoints.left_out,
            neighbors_left_out: plan.neighbors.left_out,
            service_parents: desired.service_parents,
            stacked: desired.stacked,
            routes_left_out: plan.routes.left_out,
            endpoints_over: over().map(|(_, over)| over.endpoints).sum(),
            addresses_over: over().map(|(_, over)| over.addresses).sum(),
            most_over: most.map_or(0, |(nsid, _)| *nsid),
        })?;
        let names = names(&desired, &docker.docker);
        let left_out = left_out(&plan.over, &desired, &names);
        self.warn_about_quotas(&left_out);
        // If several devices have the same MAC, only the one in the map is shown.
        let is_installed = |key: &EndpointKey, device: DeviceId| {
            let endpoint = self.installed.endpoints.get(key);
            endpoint.is_some_and(|it| (it.nsid, it.ifindex) == (device.0.number(), device.1.0))
        };
        let endpoints = names.into_iter();
        let endpoints = endpoints.filter(|((key, device), _)| is_installed(key, *device));
        let endpoints = endpoints.map(|((key, _), names)| (key, names)).collect();
        let uses_routes = self.config.routes != Routes::None;
        let maps = self.maps.fills(&self.installed, uses_routes)?;
        let published = Report {
            trunk: self.pins.trunk.to_string(),
            parents: Arc::new(desired.parents),
            endpoints: Arc::new(endpoints),
            maps,
            sources,
            hooks: self.hooks.clone(),
            policy: self.maps.settings()?.policy,
            listeners: Arc::new(self.listeners()),
            conflicts: self.owners.conflicts.clone(),
            left_out: Arc::new(left_out),
        };
        self.publish.send_replace(Some(Arc::new(published)));
        Ok(())
    }

    /// Logs a warning once for each namespace, until it is within its quota again.
    fn warn_about_quotas(&mut self, left_out: &[LeftOut]) {
        for namespace in left_out {
            if !self.over.contains(&namespace.nsid) {
                log::warn!("{namespace}");
            }
        }
        self.over = left_out.iter().map(|namespace| namespace.nsid).collect();
    }
}

/// Lists the namespaces with entries that are left out because of a quota, with their containers' names.
fn left_out(
    over: &BTreeMap<i32, Over>,
    desired: &Desired,
    names: &BTreeMap<(EndpointKey, DeviceId), Names>,
) -> Vec<LeftOut> {
    let container = |nsid| {
        let mut its = desired.devices.iter();
        its.find_map(|(key, device)| {
            let name = names.get(key)?.container.clone();
            name.filter(|_| device.nsid.number() == nsid)
        })
    };
    let namespaces = over.iter().map(|(&nsid, &over)| LeftOut {
        nsid,
        container: container(nsid),
        over,
    });
    namespaces.collect()
}
