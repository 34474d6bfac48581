//! Which hook reads what comes in. Pure: from what the trunk is and what the user asked for.

use vlanfast_common::IngressReason;

use crate::{cli::IngressMode, error::Error, hooks::device::Trunk};

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
    /// `rx-vlan-offload` has to be off for it, and is ours to turn off.
    pub keep_tags: bool,
}

/// What the user asked for, as far as it decides.
#[derive(Clone, Copy, Debug)]
pub struct IngressRequest {
    pub ingress: IngressMode,
    /// `rx-vlan-offload` may be turned off.
    pub manage_offloads: bool,
    /// What nobody takes is dropped, which pays by XDP.
    pub sheds: bool,
}

/// Chooses. `auto` always finds a way; what was asked for by name is taken, or refused with a reason.
/// Offloads are in the way, unless they may be managed.
pub fn choose(trunk: &Trunk, wish: IngressRequest) -> Result<Choice, Error> {
    let ingress = match wish.ingress {
        IngressMode::Auto => return Ok(auto(trunk, wish)),
        IngressMode::Tc => Ingress::Tc,
        IngressMode::Xdp => Ingress::XdpNative,
        IngressMode::XdpGeneric => Ingress::XdpGeneric,
    };
    if ingress != Ingress::Tc {
        if let Some(xdp) = &trunk.xdp {
            return Err(Error::HookTaken {
                trunk: trunk.name.to_string(),
                owner: xdp.describe(),
            });
        }
        if trunk.strips_tags && !wish.manage_offloads {
            return Err(Error::StripsTags {
                trunk: trunk.name.to_string(),
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
        keep_tags: ingress != Ingress::Tc && trunk.strips_tags,
    })
}

/// XDP only where nothing is lost by it, so that nobody is worse off than by TC: what comes in packet by packet,
/// where the NIC merged it, costs bulk TCP more than XDP saves. Shedding is worth that to whoever asks for it.
fn auto(trunk: &Trunk, wish: IngressRequest) -> Choice {
    let against = if trunk.xdp.is_some() {
        Some(IngressReason::ForeignXdp)
    } else if trunk.kind.is_some() {
        Some(IngressReason::SoftwareDevice)
    } else if !trunk.merges.is_empty() && !wish.sheds {
        Some(IngressReason::CostsOffloads)
    } else if trunk.strips_tags && !wish.manage_offloads {
        Some(IngressReason::StripsTags)
    } else {
        None
    };
    match against {
        Some(reason) => Choice {
            ingress: Ingress::Tc,
            reason,
            keep_tags: false,
        },
        // Whether the driver agrees shows when it is attached; see `hooks::attach`.
        None => Choice {
            ingress: Ingress::XdpNative,
            reason: IngressReason::Suitable,
            keep_tags: trunk.strips_tags,
        },
    }
}

/// The reason in words, as `status` gives it.
pub fn explain(reason: IngressReason, trunk: &Trunk) -> String {
    match reason {
        IngressReason::Asked => "asked for with --ingress".into(),
        IngressReason::Suitable => "native XDP, and the tags stay in the bytes".into(),
        IngressReason::SoftwareDevice => format!(
            "{}: XDP on a software device costs more than it saves",
            trunk.kind.as_deref().unwrap_or("software device")
        ),
        IngressReason::StripsTags => {
            "not XDP: the NIC strips VLAN tags before it (rx-vlan-offload is on; see --manage-offloads)"
                .into()
        }
        IngressReason::NoNativeXdp => "not XDP: the driver has no native XDP, or refused it".into(),
        IngressReason::ForeignXdp => "not XDP: that hook is someone else's".into(),
        IngressReason::KeepsOffload => {
            "not XDP: the driver refused to leave VLAN tags to it (rx-vlan-offload stays on)".into()
        }
        IngressReason::CostsOffloads => {
            // Somebody may have turned them off since.
            let lost = match &*trunk.merges {
                [] => "the NIC's merging of packets".into(),
                features => features.join(" and "),
            };
            format!("not XDP: it would cost {lost} (--ingress xdp takes it all the same)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::device::AttachedXdp;

    fn nic() -> Trunk {
        Trunk {
            name: "eth0".into(),
            ifindex: 2,
            kind: None,
            strips_tags: false,
            merges: vec![],
            xdp: None,
        }
    }

    fn wish(ingress: IngressMode) -> IngressRequest {
        IngressRequest {
            ingress,
            manage_offloads: false,
            sheds: false,
        }
    }

    fn managing(ingress: IngressMode) -> IngressRequest {
        IngressRequest {
            manage_offloads: true,
            ..wish(ingress)
        }
    }

    fn auto_of(trunk: &Trunk) -> (Ingress, IngressReason) {
        let choice = choose(trunk, wish(IngressMode::Auto)).unwrap();
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
            choose(&taken, managing(IngressMode::Xdp)),
            Err(Error::HookTaken { .. })
        ));
        assert_eq!(
            choose(&taken, managing(IngressMode::Tc)).unwrap().ingress,
            Ingress::Tc
        );
    }

    #[test]
    fn xdp_on_a_nic_that_strips_tags_names_the_remedy() {
        let stripping = Trunk {
            strips_tags: true,
            ..nic()
        };
        for asked in [IngressMode::Xdp, IngressMode::XdpGeneric] {
            let error = choose(&stripping, wish(asked)).unwrap_err().to_string();
            assert!(error.contains("ethtool -K eth0 rxvlan off"), "{error}");
            assert!(error.contains("--manage-offloads"), "{error}");
        }
    }

    #[test]
    fn only_who_has_not_let_it_manage_offloads_is_told_of_that() {
        let numbers: Vec<_> = (0..).map_while(IngressReason::from_number).collect();
        assert_eq!(numbers.len(), 8);
        for (number, reason) in (0..).zip(numbers) {
            assert_eq!(reason as u32, number);
            let said = explain(reason, &nic());
            let is_told = said.contains("--manage-offloads");
            assert_eq!(is_told, reason == IngressReason::StripsTags, "{said}");
        }
    }

    #[test]
    fn xdp_that_costs_an_offload_is_for_those_who_shed_or_name_it() {
        for merges in [
            vec!["rx-gro-hw"],
            vec!["rx-lro"],
            vec!["rx-gro-hw", "rx-lro"],
        ] {
            let merging = Trunk { merges, ..nic() };
            assert_eq!(
                auto_of(&merging),
                (Ingress::Tc, IngressReason::CostsOffloads)
            );
            let said = explain(IngressReason::CostsOffloads, &merging);
            assert!(said.contains(&merging.merges.join(" and ")), "{said}");
            assert!(said.contains("--ingress xdp"), "{said}");

            let sheds = IngressRequest {
                sheds: true,
                ..wish(IngressMode::Auto)
            };
            for wish in [sheds, wish(IngressMode::Xdp)] {
                let choice = choose(&merging, wish).unwrap();
                assert_eq!(choice.ingress, Ingress::XdpNative, "{wish:?}");
            }
            // It does not matter then whether tags could be left to XDP.
            let stripping = Trunk {
                strips_tags: true,
                ..merging
            };
            let choice = choose(&stripping, managing(IngressMode::Auto)).unwrap();
            assert_eq!(
                (choice.ingress, choice.reason, choice.keep_tags),
                (Ingress::Tc, IngressReason::CostsOffloads, false)
            );
        }
    }

    #[test]
    fn an_offload_that_may_be_managed_is_in_nobodys_way() {
        let stripping = Trunk {
            strips_tags: true,
            ..nic()
        };
        let taken = |trunk: &Trunk, asked| {
            let choice = choose(trunk, managing(asked)).unwrap();
            (choice.ingress, choice.keep_tags)
        };
        assert_eq!(
            taken(&stripping, IngressMode::Auto),
            (Ingress::XdpNative, true)
        );
        assert_eq!(
            taken(&stripping, IngressMode::Xdp),
            (Ingress::XdpNative, true)
        );
        assert_eq!(taken(&stripping, IngressMode::Tc), (Ingress::Tc, false));
        assert_eq!(
            taken(&nic(), IngressMode::Auto),
            (Ingress::XdpNative, false)
        );
        let veth = Trunk {
            kind: Some("veth".into()),
            ..stripping
        };
        assert_eq!(taken(&veth, IngressMode::Auto), (Ingress::Tc, false));
        assert_eq!(
            taken(&veth, IngressMode::XdpGeneric),
            (Ingress::XdpGeneric, true)
        );
    }
}
