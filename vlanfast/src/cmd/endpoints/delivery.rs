//! Whether frames for an endpoint are redirected by `--deliver redirect`, and what blocks it.

use vlanfast_common::{
    Direction, Endpoint, Parent, RedirectBlocked, Settings, redirect_blocked_by,
};

use crate::{
    hooks::{AttachKind, device::Trunk, inspect::attach_kind},
    maps::{tables, tables::Heartbeat},
    netlink::Netlink,
    pins::Pins,
    state::listeners::words,
};

/// How the trunk delivers unicast to endpoints.
pub enum DeliveryReport {
    /// The kernel delivers it.
    Kernel,
    /// It is redirected, unless something blocks that for all endpoints.
    Redirect { blocked_by: Option<&'static str> },
}

impl DeliveryReport {
    pub async fn read(kernel: &Netlink, pins: &Pins, settings: &Settings) -> anyhow::Result<Self> {
        if settings.policy.deliver == 0 {
            return Ok(Self::Kernel);
        }
        // A trunk that was removed has no hooks.
        let ingress = match Trunk::of_index(kernel, settings.ifindex).await? {
            Some(trunk) => attach_kind(kernel, &trunk, pins, Direction::Rx).await?,
            None => None,
        };
        let reasons = [
            (ingress.is_none(), "nothing is attached"),
            (
                ingress.is_some_and(AttachKind::is_xdp),
                "ingress is read by XDP",
            ),
            (settings.policy.dry_run != 0, "dry run"),
            (
                Heartbeat::of(settings, tables::now()?) != Heartbeat::Alive,
                "no heartbeat",
            ),
            (
                settings.incomplete & Settings::ENDPOINTS != 0,
                "the map ENDPOINTS is incomplete",
            ),
        ];
        let first = reasons.into_iter().find(|(holds, _)| *holds);
        Ok(Self::Redirect {
            blocked_by: first.map(|(_, reason)| reason),
        })
    }

    /// How frames are delivered to an endpoint on a VLAN (`kernel` or `redirect`), and what blocks a redirect that was
    /// asked for.
    pub fn to(
        &self,
        parent: Option<&Parent>,
        endpoint: &Endpoint,
    ) -> (&'static str, Option<String>) {
        let Self::Redirect { blocked_by } = self else {
            return ("kernel", None);
        };
        let parent = parent.copied().unwrap_or_default();
        let why = match redirect_blocked_by(parent, *endpoint) {
            Some(RedirectBlocked::Elsewhere) => Some("in another namespace".into()),
            Some(RedirectBlocked::Conflict) => Some("another device has its MAC".into()),
            Some(RedirectBlocked::Listeners) => Some(format!(
                "other listeners need the frame too ({})",
                words(parent, Parent::NO_STEER)
            )),
            Some(RedirectBlocked::Down) => {
                Some("its VLAN's device is down or in another namespace".into())
            }
            None => blocked_by.map(str::to_owned),
        };
        (if why.is_none() { "redirect" } else { "kernel" }, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_redirected_to_an_endpoint_unless_something_blocks_it() {
        let endpoint = Endpoint {
            nsid: Endpoint::OWN_NAMESPACE,
            ..Endpoint::default()
        };
        let parent = |flags| Parent {
            ifindex: 3,
            flags,
            ..Parent::default()
        };
        let open = DeliveryReport::Redirect { blocked_by: None };
        let up = parent(Parent::UP);
        assert_eq!(open.to(Some(&up), &endpoint), ("redirect", None));
        assert_eq!(
            DeliveryReport::Kernel.to(Some(&up), &endpoint),
            ("kernel", None)
        );
        let container = Endpoint {
            nsid: 3,
            ..endpoint
        };
        let twice = Endpoint {
            flags: Endpoint::CONFLICT,
            ..endpoint
        };
        let read = parent(Parent::UP | Parent::PROMISCUOUS | Parent::GUESTS);
        let down = parent(0);
        let shut = DeliveryReport::Redirect {
            blocked_by: Some("dry run"),
        };
        for (delivery, parent, endpoint, why) in [
            (&open, Some(&up), container, "in another namespace"),
            (&shut, Some(&up), container, "in another namespace"),
            (&open, Some(&up), twice, "another device has its MAC"),
            (
                &open,
                Some(&read),
                endpoint,
                "other listeners need the frame too (read in promiscuous mode)",
            ),
            (
                &open,
                Some(&down),
                endpoint,
                "its VLAN's device is down or in another namespace",
            ),
            (
                &open,
                None,
                endpoint,
                "its VLAN's device is down or in another namespace",
            ),
            (&shut, Some(&up), endpoint, "dry run"),
        ] {
            assert_eq!(
                delivery.to(parent, &endpoint),
                ("kernel", Some(why.to_owned()))
            );
        }
    }
}
