//! The warnings in `status`: what works otherwise than one would expect of an attached trunk.

use std::collections::BTreeMap;

use vlanfast_common::{Parent, Policy, Settings, Shed, Status, Vid};

use crate::{
    cmd::status::report::HookReport,
    hooks::device::Trunk,
    state::{claims::Conflict, listeners::words},
};

/// The warnings about the hooks, the VLANs and the policy. `chosen` is the hook that reads ingress.
pub fn all(
    trunk: &Trunk,
    (attached, missing): (&[HookReport], &[&str]),
    settings: &Settings,
    (vlans, chosen): (&BTreeMap<Vid, Parent>, &str),
) -> Vec<String> {
    let untagged = vlans.get(&Vid::UNTAGGED).copied().unwrap_or_default();
    let name = trunk.name.to_string();
    let mut warnings = of_hooks(&name, attached, missing);
    if chosen == "xdp" && trunk.strips_tags {
        warnings.push(format!(
            "{name} strips VLAN tags before XDP sees them (rx-vlan-offload is on), so every frame is passed: run \
             `ethtool -K {name} rxvlan off`"
        ));
    }
    if chosen == "xdp" && !trunk.merges.is_empty() {
        warnings.push(format!(
            "XDP keeps {name} from merging packets ({}), which slows bulk TCP down: --ingress tc leaves it on",
            trunk.merges.join(", ")
        ));
    }
    warnings.extend(of_tables(settings.incomplete));
    warnings.extend(of_unseen(vlans));
    warnings.extend(of_policy(&name, settings.policy, untagged, chosen));
    warnings
}

/// The tables are incomplete, so no endpoint counts as absent.
fn of_tables(incomplete: u32) -> Option<String> {
    let whole = Settings::ENDPOINTS | Settings::NEIGHBORS | Settings::VLANS;
    (incomplete & whole == whole).then(|| {
        "netlink can't be read completely, so no frame is dropped or limited for lack of a receiver; the log of \
         `vlanfast attach` says why"
            .into()
    })
}

/// The addresses that a host on the wire claims as well. The first few are named.
pub fn of_conflicts(conflicts: impl Iterator<Item = Conflict>) -> Option<String> {
    const NAMED: usize = 3;
    let all: Vec<_> = conflicts.collect();
    let named: Vec<_> = all.iter().take(NAMED).map(Conflict::to_string).collect();
    let more = match all.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!all.is_empty()).then(|| {
        format!(
            "address conflict: {}{more}. Frames for such an address take the wire unless Docker assigned the address: \
             remove it from one of the hosts",
            named.join("; ")
        )
    })
}

/// Receivers that only the kernel knows.
fn of_unseen(vlans: &BTreeMap<Vid, Parent>) -> Option<String> {
    let unseen = vlans
        .iter()
        .filter(|(_, parent)| parent.has(Parent::UNSEEN));
    let unseen: Vec<_> = unseen.map(|(vid, _)| vid.to_string()).collect();
    (!unseen.is_empty()).then(|| {
        format!(
            "VLAN {} has a receiver that no network namespace shows, so nothing is shed or limited there: \
             `bridge fdb show` lists its MAC or group, and `ip netns attach NAME PID` makes the namespace visible",
            unseen.join(", ")
        )
    })
}

/// Containers that have more endpoints or addresses than allowed.
pub fn of_quotas(status: &Status) -> Option<String> {
    let (endpoints, addresses) = (status.endpoints_over, status.addresses_over);
    (endpoints + addresses > 0).then(|| {
        format!(
            "{endpoints} endpoints and {addresses} addresses are left out because their containers exceed their quotas, \
             most of them in network namespace {}: the log of `vlanfast attach` and the metric vlanfast_left_out name \
             each container",
            status.most_over
        )
    })
}

/// What other tools have done to the hooks.
fn of_hooks(trunk: &str, attached: &[HookReport], missing: &[&str]) -> Vec<String> {
    let taken = missing.iter().map(|hook| {
        format!(
            "{hook}: somebody took our program off, so no frame is counted or changed there: end what does that, then \
             run `vlanfast detach {trunk}` and attach again"
        )
    });
    let preceded = attached.iter().filter(|hook| !hook.preceded_by.is_empty());
    let preceded = preceded.map(|hook| {
        format!(
            "{}: {} runs before our program: packets that it drops or redirects are not counted",
            hook.hook,
            hook.preceded_by.join(", ")
        )
    });
    taken.chain(preceded).collect()
}

/// Options that do not work as the user may expect.
fn of_policy(trunk: &str, policy: Policy, untagged: Parent, chosen: &str) -> Vec<String> {
    let mut warnings = vec![];
    if policy.deliver != 0 && chosen == "xdp" {
        warnings.push(
            "--deliver redirect has no effect because ingress is read by XDP: every frame takes the kernel's own path \
             (use --ingress tc)"
                .into(),
        );
    }
    if policy.shed == Shed::Off as u32 {
        return warnings;
    }
    if untagged.has(Parent::TAGGED) {
        warnings.push(format!(
            "VLANs without a device on this host are not shed: {trunk} has receivers that vlanfast can't see ({})",
            words(untagged, Parent::TAGGED)
        ));
    } else if untagged.has(Parent::PROMISCUOUS) && chosen == "xdp" && policy.dry_run == 0 {
        warnings.push(format!(
            "a packet capture on {trunk}, or anything else in promiscuous mode, does not see the frames that are shed"
        ));
    }
    warnings
}
