//! What somebody may not expect of a trunk that is attached, in words.

use vlanfast_common::{Parent, Policy, Settings, Shed};

use super::Hook;
use crate::{datapath::device::Trunk, state::listeners::words};

/// Of its hooks, its tables, and what is switched on. Untagged traffic and how ingress is read decide about the last.
pub fn all(
    trunk: &Trunk,
    (attached, missing): (&[Hook], &[&str]),
    settings: &Settings,
    (untagged, chosen): (Parent, &str),
) -> Vec<String> {
    let name = trunk.name.to_string();
    let mut warnings = of_hooks(&name, attached, missing);
    if chosen == "xdp" && trunk.strips_tags {
        warnings.push(format!(
            "{name} strips VLAN tags before XDP sees them (rx-vlan-offload is on), so that every frame is passed: run \
             `ethtool -K {name} rxvlan off`"
        ));
    }
    warnings.extend(of_tables(settings.incomplete));
    warnings.extend(of_policy(&name, settings.policy, untagged, chosen));
    warnings
}

/// What the tables lack: nobody counts as absent meanwhile.
fn of_tables(incomplete: u32) -> Option<String> {
    let whole = Settings::ENDPOINTS | Settings::NEIGHBORS | Settings::VLANS;
    (incomplete & whole == whole).then(|| {
        "netlink can't be read as a whole, so that nothing is dropped or limited for want of a taker; the log of \
         `vlanfast attach` says why"
            .into()
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
            "VLANs without a device here are not shed: there are takers on {trunk} that vlanfast can't see \
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
