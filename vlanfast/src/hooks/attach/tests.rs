//! A driver that refused XDP is not asked again at a restart.

use crate::hooks::attach::*;

#[test]
fn what_the_driver_refused_is_not_tried_again_unless_asked_for() {
    let refused = |reason: IngressReason| Settings {
        ingress_reason: reason as u32,
        ..Settings::default()
    };
    let xdp = |reason, keep_tags| Choice {
        ingress: Ingress::XdpNative,
        reason,
        keep_tags,
    };
    use IngressReason::{Asked, KeepsOffload, NoNativeXdp, StripsTags, Suitable};
    for (old, keep_tags) in [
        (NoNativeXdp, false),
        (NoNativeXdp, true),
        (KeepsOffload, true),
    ] {
        let again = remembered(xdp(Suitable, keep_tags), &refused(old));
        assert_eq!(
            (again.ingress, again.reason, again.keep_tags),
            (Ingress::Tc, old, false)
        );
    }
    for (choice, old) in [
        (xdp(Asked, true), refused(NoNativeXdp)),
        (xdp(Asked, true), refused(KeepsOffload)),
        // Somebody has turned it off since, or allows it now.
        (xdp(Suitable, false), refused(KeepsOffload)),
        (xdp(Suitable, true), refused(StripsTags)),
        (xdp(Suitable, true), Settings::default()),
    ] {
        assert_eq!(remembered(choice, &old), choice);
    }
}
