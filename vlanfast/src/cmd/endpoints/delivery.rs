//! Whether `--deliver redirect` applies to an endpoint, and why not.

use vlanfast_common::{
    Direction, Endpoint, Parent, RedirectBlocked, Settings, redirect_blocked_by,
};

use crate::{
    hooks,
    hooks::{Kind, device::Trunk},
    maps::{tables, tables::Heartbeat},
    netlink::Netlink,
    pins::Pins,
    state::listeners::words,
};

/// What the trunk does with unicast for endpoints.
pub enum Delivery {
    /// Nothing.
    Kernel,
    /// It is redirected, unless there is a reason against it that is the same for all.
    Redirect { not: Option<&'static str> },
}

impl Delivery {
    pub async fn read(kernel: &Netlink, pins: &Pins, settings: &Settings) -> anyhow::Result<Self> {
        if settings.policy.deliver == 0 {
            return Ok(Self::Kernel);
        }
        // A trunk that has gone has none.
        let ingress = match Trunk::of_index(kernel, settings.ifindex).await? {
            Some(trunk) => hooks::kind(kernel, &trunk, pins, Direction::Rx).await?,
            None => None,
        };
        let reasons = [
            (ingress.is_none(), "nothing is attached"),
            (ingress.is_some_and(Kind::is_xdp), "ingress is read by XDP"),
            (settings.policy.dry_run != 0, "dry run"),
            (
                Heartbeat::of(settings, tables::now()?) != Heartbeat::Alive,
                "no heartbeat",
            ),
            (
                settings.incomplete & Settings::ENDPOINTS != 0,
                "the map ENDPOINTS lacks somebody",
            ),
        ];
        let first = reasons.into_iter().find(|(holds, _)| *holds);
        Ok(Self::Redirect {
            not: first.map(|(_, reason)| reason),
        })
    }

    /// The word for an endpoint on a VLAN, and why it is not `redirect` where that is asked for.
    pub fn to(
        &self,
        parent: Option<&Parent>,
        endpoint: &Endpoint,
    ) -> (&'static str, Option<String>) {
        let Self::Redirect { not } = self else {
            return ("kernel", None);
        };
        let parent = parent.copied().unwrap_or_default();
        let why = match redirect_blocked_by(parent, *endpoint) {
            Some(RedirectBlocked::Elsewhere) => Some("in another namespace".into()),
            Some(RedirectBlocked::Conflict) => Some("another device has its MAC".into()),
            Some(RedirectBlocked::Listeners) => Some(format!(
                "others would miss it ({})",
                words(parent, Parent::NO_STEER)
            )),
            Some(RedirectBlocked::Down) => Some("its VLAN's device is down or elsewhere".into()),
            None => not.map(str::to_owned),
        };
        (if why.is_none() { "redirect" } else { "kernel" }, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_next_to_an_open_trunk_is_redirected_to() {
        let receiver = Endpoint {
            nsid: Endpoint::OWN_NAMESPACE,
            ..Endpoint::default()
        };
        let parent = |flags| Parent {
            ifindex: 3,
            flags,
            ..Parent::default()
        };
        let open = Delivery::Redirect { not: None };
        let up = parent(Parent::UP);
        assert_eq!(open.to(Some(&up), &receiver), ("redirect", None));
        assert_eq!(Delivery::Kernel.to(Some(&up), &receiver), ("kernel", None));
        let container = Endpoint {
            nsid: 3,
            ..receiver
        };
        let twice = Endpoint {
            flags: Endpoint::CONFLICT,
            ..receiver
        };
        let read = parent(Parent::UP | Parent::PROMISCUOUS | Parent::GUESTS);
        let down = parent(0);
        let shut = Delivery::Redirect {
            not: Some("dry run"),
        };
        for (delivery, parent, receiver, why) in [
            (&open, Some(&up), container, "in another namespace"),
            (&shut, Some(&up), container, "in another namespace"),
            (&open, Some(&up), twice, "another device has its MAC"),
            (
                &open,
                Some(&read),
                receiver,
                "others would miss it (read in promiscuous mode)",
            ),
            (
                &open,
                Some(&down),
                receiver,
                "its VLAN's device is down or elsewhere",
            ),
            (
                &open,
                None,
                receiver,
                "its VLAN's device is down or elsewhere",
            ),
            (&shut, Some(&up), receiver, "dry run"),
        ] {
            assert_eq!(
                delivery.to(parent, &receiver),
                ("kernel", Some(why.to_owned()))
            );
        }
    }
}
