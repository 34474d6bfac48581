//! Which hook reads what comes in. Pure: from what the trunk is and what the user asked for.

use vlanfast_common::IngressReason;

use super::device::Trunk;
use crate::{cli::Asked, error::Error};

/// A hook for ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    XdpNative,
    XdpGeneric,
    Tc,
}

/// A hook, and why that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub ingress: Ingress,
    pub reason: IngressReason,
}

/// Chooses. `auto` always finds a way; what was asked for by name is taken, or refused with a reason.
pub fn choose(trunk: &Trunk, asked: Asked) -> Result<Choice, Error> {
    let ingress = match asked {
        Asked::Auto => return Ok(auto(trunk)),
        Asked::Tc => Ingress::Tc,
        Asked::Xdp => Ingress::XdpNative,
        Asked::XdpGeneric => Ingress::XdpGeneric,
    };
    if ingress != Ingress::Tc {
        if let Some(xdp) = &trunk.xdp {
            return Err(Error::HookTaken {
                trunk: trunk.name.clone(),
                owner: xdp.describe(),
            });
        }
        if trunk.strips_tags {
            return Err(Error::StripsTags {
                trunk: trunk.name.clone(),
                // A veth hides the tags that its peer sends as metadata, whatever it is set to.
                peer: match trunk.kind.as_deref() {
                    Some("veth") => " (and txvlan off on its peer)",
                    _ => "",
                },
            });
        }
    }
    Ok(Choice {
        ingress,
        reason: IngressReason::Asked,
    })
}

fn auto(trunk: &Trunk) -> Choice {
    let against = if trunk.xdp.is_some() {
        Some(IngressReason::ForeignXdp)
    } else if trunk.kind.is_some() {
        Some(IngressReason::SoftwareDevice)
    } else if trunk.strips_tags {
        Some(IngressReason::StripsTags)
    } else {
        None
    };
    match against {
        Some(reason) => Choice {
            ingress: Ingress::Tc,
            reason,
        },
        // Whether the driver has it shows when it is attached; see `IngressReason::NoNativeXdp`.
        None => Choice {
            ingress: Ingress::XdpNative,
            reason: IngressReason::Suitable,
        },
    }
}

/// The reason in words, as `status` gives it.
pub fn explain(reason: IngressReason, kind: Option<&str>) -> String {
    match reason {
        IngressReason::Asked => "asked for with --ingress".into(),
        IngressReason::Suitable => "native XDP, and the tags stay in the bytes".into(),
        IngressReason::SoftwareDevice => format!(
            "{}: XDP on a software device costs more than it saves",
            kind.unwrap_or("software device")
        ),
        IngressReason::StripsTags => {
            "not XDP: the NIC strips VLAN tags before it (rx-vlan-offload is on)".into()
        }
        IngressReason::NoNativeXdp => "not XDP: the driver has no native XDP, or refused it".into(),
        IngressReason::ForeignXdp => "not XDP: that hook is someone else's".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::device::AttachedXdp;

    fn nic() -> Trunk {
        Trunk {
            name: "eth0".into(),
            ifindex: 2,
            kind: None,
            strips_tags: false,
            xdp: None,
        }
    }

    fn auto_of(trunk: &Trunk) -> (Ingress, IngressReason) {
        let choice = choose(trunk, Asked::Auto).unwrap();
        (choice.ingress, choice.reason)
    }

    #[test]
    fn auto_takes_xdp_only_on_a_nic_that_keeps_tags() {
        assert_eq!(
            auto_of(&nic()),
            (Ingress::XdpNative, IngressReason::Suitable)
        );
        let veth = Trunk {
            kind: Some("veth".into()),
            ..nic()
        };
        assert_eq!(auto_of(&veth), (Ingress::Tc, IngressReason::SoftwareDevice));
        let stripping = Trunk {
            strips_tags: true,
            ..nic()
        };
        assert_eq!(
            auto_of(&stripping),
            (Ingress::Tc, IngressReason::StripsTags)
        );
    }

    #[test]
    fn a_foreign_program_turns_auto_to_tc_and_xdp_to_an_error() {
        let xdp = Some(AttachedXdp {
            program_id: u32::MAX,
            generic: false,
        });
        let taken = Trunk { xdp, ..nic() };
        assert_eq!(auto_of(&taken), (Ingress::Tc, IngressReason::ForeignXdp));
        assert!(matches!(
            choose(&taken, Asked::Xdp),
            Err(Error::HookTaken { .. })
        ));
        assert_eq!(choose(&taken, Asked::Tc).unwrap().ingress, Ingress::Tc);
    }

    #[test]
    fn xdp_on_a_nic_that_strips_tags_names_the_remedy() {
        let stripping = Trunk {
            strips_tags: true,
            ..nic()
        };
        for asked in [Asked::Xdp, Asked::XdpGeneric] {
            let error = choose(&stripping, asked).unwrap_err().to_string();
            assert!(error.contains("ethtool -K eth0 rxvlan off"), "{error}");
        }
    }
}
