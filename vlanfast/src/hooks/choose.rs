//! Chooses the hook that reads incoming frames, from the properties of the trunk and the user's request. This module
//! does no input or output.

use vlanfast_common::IngressReason;

use crate::{cli::IngressMode, error::Error, hooks::device::Trunk};

/// A hook that can read ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    XdpNative,
    XdpGeneric,
    Tc,
}

/// The chosen hook and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub ingress: Ingress,
    pub reason: IngressReason,
    /// Whether `rx-vlan-offload` has to be turned off for it; the user has allowed that.
    pub keep_tags: bool,
}

/// The part of the user's request that decides.
#[derive(Clone, Copy, Debug)]
pub struct IngressRequest {
    pub ingress: IngressMode,
    /// Whether `rx-vlan-offload` may be turned off.
    pub manage_offloads: bool,
    /// Whether frames are shed, which costs least in XDP.
    pub sheds: bool,
}

/// Chooses the hook. `auto` always finds one; a hook that was asked for by name is used or refused with a reason. VLAN
/// offload rules XDP out unless it may be managed.
pub fn choose(trunk: &Trunk, request: IngressRequest) -> Result<Choice, Error> {
    let ingress = match request.ingress {
        IngressMode::Auto => return Ok(auto(trunk, request)),
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
        if trunk.strips_tags && !request.manage_offloads {
            return Err(Error::StripsTags {
                trunk: trunk.name.to_string(),
                // The peer of a veth sends tags as metadata, which XDP does not see, whatever the veth's own setting.
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

/// Chooses XDP only if nothing is lost by it. If XDP keeps the NIC from merging packets, that costs bulk TCP more than
/// XDP saves, so TC is chosen; but a user who sheds frames gains more from XDP.
fn auto(trunk: &Trunk, request: IngressRequest) -> Choice {
    let against = if trunk.xdp.is_some() {
        Some(IngressReason::ForeignXdp)
    } else if trunk.kind.is_some() {
        Some(IngressReason::SoftwareDevice)
    } else if !trunk.merges.is_empty() && !request.sheds {
        Some(IngressReason::CostsOffloads)
    } else if trunk.strips_tags && !request.manage_offloads {
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
        // Whether the driver accepts this shows when the program is attached; see `hooks::attach`.
        None => Choice {
            ingress: Ingress::XdpNative,
            reason: IngressReason::Suitable,
            keep_tags: trunk.strips_tags,
        },
    }
}

/// The reason in words, for `status`.
pub fn explain(reason: IngressReason, trunk: &Trunk) -> String {
    match reason {
        IngressReason::Asked => "requested by --ingress".into(),
        IngressReason::Suitable => "native XDP, and the NIC leaves VLAN tags in the frame".into(),
        IngressReason::SoftwareDevice => format!(
            "{}: XDP on a software device costs more than it saves",
            trunk.kind.as_deref().unwrap_or("software device")
        ),
        IngressReason::StripsTags => {
            "not XDP: the NIC strips VLAN tags before XDP (rx-vlan-offload is on; see --manage-offloads)"
                .into()
        }
        IngressReason::NoNativeXdp => "not XDP: the driver has no native XDP, or refused it".into(),
        IngressReason::ForeignXdp => "not XDP: another program is on the XDP hook".into(),
        IngressReason::KeepsOffload => {
            "not XDP: the driver refused to turn rx-vlan-offload off".into()
        }
        IngressReason::CostsOffloads => {
            // The features may have been turned off since.
            let lost = match &*trunk.merges {
                [] => "packet merging by the NIC".into(),
                features => features.join(" and "),
            };
            format!("not XDP: it would cost {lost} (--ingress xdp uses XDP all the same)")
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

    fn request(ingress: IngressMode) -> IngressRequest {
        IngressRequest {
            ingress,
            manage_offloads: false,
            sheds: false,
        }
    }

    fn managing(ingress: IngressMode) -> IngressRequest {
        IngressRequest {
            manage_offloads: true,
            ..request(ingress)
        }
    }

    fn auto_of(trunk: &Trunk) -> (Ingress, IngressReason) {
        let choice = choose(trunk, request(IngressMode::Auto)).unwrap();
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
    fn another_xdp_program_makes_auto_choose_tc_and_xdp_an_error() {
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
            let error = choose(&stripping, request(asked)).unwrap_err().to_string();
            assert!(error.contains("ethtool -K eth0 rxvlan off"), "{error}");
            assert!(error.contains("--manage-offloads"), "{error}");
        }
    }

    #[test]
    fn manage_offloads_is_suggested_only_where_it_would_help() {
        let numbers: Vec<_> = (0..).map_while(IngressReason::from_number).collect();
        assert_eq!(numbers.len(), 8);
        for (number, reason) in (0..).zip(numbers) {
            assert_eq!(reason as u32, number);
            let text = explain(reason, &nic());
            let suggests = text.contains("--manage-offloads");
            assert_eq!(suggests, reason == IngressReason::StripsTags, "{text}");
        }
    }

    #[test]
    fn xdp_that_costs_an_offload_is_chosen_for_shedding_or_by_name() {
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
            let text = explain(IngressReason::CostsOffloads, &merging);
            assert!(text.contains(&merging.merges.join(" and ")), "{text}");
            assert!(text.contains("--ingress xdp"), "{text}");

            let sheds = IngressRequest {
                sheds: true,
                ..request(IngressMode::Auto)
            };
            for request in [sheds, request(IngressMode::Xdp)] {
                let choice = choose(&merging, request).unwrap();
                assert_eq!(choice.ingress, Ingress::XdpNative, "{request:?}");
            }
            // Whether tags are stripped does not matter then.
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
    fn vlan_offload_that_may_be_managed_does_not_rule_xdp_out() {
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
