//! What the loop says of itself: to `status` by a map, and to the metrics.

use std::{collections::BTreeMap, sync::Arc};

use vlanfast_common::{Parent, Source, SourceStatus, Status, Vid};

use super::Reconciler;
use crate::{
    datapath::pins::{ENDPOINTS, NEIGHBORS, ROUTES, VLANS},
    state::{
        desired::Desired,
        listeners::Listener,
        names::names,
        plan::Plan,
        published::{MapFill, Published},
        wishes::Routes,
    },
};

impl Reconciler {
    /// Reports how the sources do, where nothing else is new.
    pub(super) fn report_sources(&mut self) -> anyhow::Result<()> {
        let sources = self.sources();
        self.publish.send_if_modified(|published| {
            let Some(published) = published else {
                return false;
            };
            *published = Arc::new(Published {
                sources,
                hooks: self.hooks.clone(),
                ..Published::clone(published)
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

    /// The VLANs that are left alone, and why.
    fn listeners(&self) -> BTreeMap<Vid, Vec<Listener>> {
        let vlans = self.installed.vlans.iter();
        let rows = vlans.map(|(vid, parent)| (*vid, Listener::of(*parent).collect::<Vec<_>>()));
        rows.filter(|(_, listeners)| !listeners.is_empty())
            .collect()
    }

    /// Tells `status` and the metrics.
    pub(super) fn report(&mut self, desired: Desired, plan: &Plan) -> anyhow::Result<()> {
        let docker = self.docker.borrow_and_update().clone();
        let sources = self.sources();
        self.maps.set_status(&Status {
            sources,
            endpoints_left_out: plan.endpoints.left_out,
            neighbors_left_out: plan.neighbors.left_out,
            service_parents: desired.service_parents,
            stacked: desired.stacked,
            routes_left_out: plan.routes.left_out,
            reserved: [0; 3],
        })?;
        let mut endpoints = names(&desired, &docker.docker);
        endpoints.retain(|key, _| self.installed.endpoints.contains_key(key));
        let fill = |map, entries: usize, capacity, left_out| MapFill {
            map,
            entries: entries as u32,
            capacity,
            left_out,
        };
        let installed = &self.installed;
        let mut published = Published {
            trunk: self.pins.trunk.to_string(),
            parents: Arc::new(desired.parents),
            endpoints: Arc::new(endpoints),
            maps: vec![
                fill(VLANS, installed.vlans.len(), Parent::COUNT, 0),
                fill(
                    ENDPOINTS,
                    installed.endpoints.len(),
                    self.capacity.endpoints,
                    plan.endpoints.left_out,
                ),
                fill(
                    NEIGHBORS,
                    installed.neighbors.len(),
                    self.capacity.neighbors,
                    plan.neighbors.left_out,
                ),
                fill(
                    ROUTES,
                    installed.routes.len(),
                    self.capacity.routes,
                    plan.routes.left_out,
                ),
            ],
            sources,
            hooks: self.hooks.clone(),
            policy: self.maps.settings()?.policy,
            listeners: Arc::new(self.listeners()),
        };
        if self.wishes.routes == Routes::None {
            published.maps.retain(|fill| fill.map != ROUTES);
        }
        self.publish.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}
