//! What somebody may not expect of a trunk that is attached, in words.

use std::collections::BTreeMap;

use vlanfast_common::{Parent, Policy, Settings, Shed, Status, Vid};

use super::Hook;
use crate::{
    hooks::device::Trunk,
    state::{claims::Conflict, listeners::words},
};

/// Of its hooks, its VLANs, and what is switched on. How ingress is read decides about the last.
pub fn all(
    trunk: &Trunk,
    (attached, missing): (&[Hook], &[&str]),
    settings: &Settings,
    (vlans, chosen): (&BTreeMap<Vid, Parent>, &str),
) -> Vec<String> {
    let untagged = vlans.get(&Vid::UNTAGGED).copied().unwrap_or_default();
    let name = trunk.name.to_string();
    let mut warnings = of_hooks(&name, attached, missing);
    if chosen == "xdp" && trunk.strips_tags {
        warnings.push(format!(
            "{name} strips VLAN tags before XDP sees them (rx-vlan-offload is on), so that every frame is passed: run \
             `ethtool -K {name} rxvlan off`"
        ));
    }
    if chosen == "xdp" && !trunk.merges.is_empty() {
        warnings.push(format!(
            "XDP costs {name} {}, so that TCP in bulk comes in packet by packet: --ingress tc leaves it on",
            trunk.merges.join(" and ")
        ));
    }
    warnings.extend(of_tables(settings.incomplete));
    warnings.extend(of_unseen(vlans));
    warnings.extend(of_policy(&name, settings.policy, untagged, chosen));
    warnings
}

/// What the tables lack: nobody counts as absent meanwhile.
fn of_tables(incomplete: u32) -> Option<String> {
    let whole = Settings::ENDPOINTS | Settings::NEIGHBORS | Settings::VLANS;
    (incomplete & whole == whole).then(|| {
        "netlink can't be read as a whole, so that nothing is dropped or limited for want of a receiver; the log of \
         `vlanfast attach` says why"
            .into()
    })
}

/// The addresses that somebody on the wire has as well, the first few by name.
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
            "conflict: {}{more}. Nothing is taken past the wire for an address unless Docker gave it: take it from one \
             of them",
            named.join("; ")
        )
    })
}

/// Whom the kernel knows, and nobody else.
fn of_unseen(vlans: &BTreeMap<Vid, Parent>) -> Option<String> {
    let unseen = vlans
        .iter()
        .filter(|(_, parent)| parent.has(Parent::UNSEEN));
    let unseen: Vec<_> = unseen.map(|(vid, _)| vid.to_string()).collect();
    (!unseen.is_empty()).then(|| {
        format!(
            "there is a receiver that no network namespace shows, so that nothing is shed or limited on VLAN {}: \
             `bridge fdb show` has its MAC or group; `ip netns attach NAME PID` shows its namespace",
            unseen.join(", ")
        )
    })
}

/// Who has more than his share.
pub fn of_quotas(status: &Status) -> Option<String> {
    let (endpoints, addresses) = (status.endpoints_over, status.addresses_over);
    (endpoints + addresses > 0).then(|| {
        format!(
            "{endpoints} endpoints and {addresses} addresses are left out because their containers have more than \
             their share, most of them in network namespace {}: the log of `vlanfast attach` and the metric \
             vlanfast_left_out name each",
            status.most_over
        )
    })
}

/// What others have made of the hooks.
fn of_hooks(trunk: &str, attached: &[Hook], missing: &[&str]) -> Vec<String> {
    let taken = missing.iter().map(|hook| {
        format!(
            "{hook}: somebody took our program off, so that nothing is counted or decided there: end what does \
             that, then run `vlanfast detach {trunk}` and attach it anew"
        )
    });
    let preceded = attached.iter().filter(|hook| !hook.preceded_by.is_empty());
    let preceded = preceded.map(|hook| {
        format!(
            "{}: {} runs before our program: what it keeps to itself is neither counted nor decided about",
            hook.hook,
            hook.preceded_by.join(", ")
        )
    });
    taken.chain(preceded).collect()
}

/// What who switched something on may not expect.
fn of_policy(trunk: &str, policy: Policy, untagged: Parent, chosen: &str) -> Vec<String> {
    let mut warnings = vec![];
    if policy.deliver != 0 && chosen == "xdp" {
        warnings.push(
            "--deliver redirect has no effect where ingress is read by XDP: every frame takes the kernel's \
             own path (--ingress tc redirects)"
                .into(),
        );
    }
    if policy.shed == Shed::Off as u32 {
        return warnings;
    }
    if untagged.has(Parent::TAGGED) {
        warnings.push(format!(
            "VLANs without a device here are not shed: there are receivers on {trunk} that vlanfast can't see \
             ({})",
            words(untagged, Parent::TAGGED)
        ));
    } else if untagged.has(Parent::PROMISCUOUS) && chosen == "xdp" && policy.dry_run == 0 {
        warnings.push(format!(
            "whoever reads {trunk} in promiscuous mode, a packet capture say, does not see what is shed"
        ));
    }
    warnings
}
