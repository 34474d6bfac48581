//! Devices and pins that are gone, and others that have taken their place.

use std::{fs, thread, time::Duration};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::signal::{Signal, kill};
use vlanfast_tests::{
    net::{
        namespace::{in_netns, run, unique},
        topology::Wire,
    },
    require,
    run::{
        pins::{is_pinned, pins},
        program::{Attached, vlanfast},
        require::kernel_at_least,
        residue::Residue,
    },
};

/// An index may be reused by another device, however late the process learns of it.
#[test]
fn a_stranger_with_the_index_of_a_trunk_that_is_gone_is_left_alone() {
    require!("index", nix::unistd::geteuid().is_root(), "needs root");
    for is_late in [false, true] {
        let wire = Wire::veth().unwrap();
        let (host, trunk) = (&wire.host, &wire.trunk);
        let arguments = ["--docker", "off", "--metrics", "off"];
        let attached = Attached::start(host, trunk, &arguments).unwrap();
        let ifindex = attached.status().unwrap()["ifindex"].as_u64().unwrap();
        if is_late {
            kill(attached.pid(), Signal::SIGSTOP).unwrap();
        }
        let stranger = unique();
        host.run(&format!(
            "ip link del {trunk} && ip link add {stranger} index {ifindex} type veth peer name other && \
             ip link set {stranger} up && ip link set other up"
        ))
        .unwrap();
        if is_late {
            // The wait is longer than the interval between two checks of the hooks.
            thread::sleep(Duration::from_millis(2_500));
            kill(attached.pid(), Signal::SIGCONT).unwrap();
        }
        let ended = attached.end().unwrap();
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert!(ended.stderr.contains("is gone"), "{ended:?}");
        assert!(!ended.stderr.contains("put back"), "{ended:?}");
        let status = vlanfast(host, &["status", &stranger]).unwrap();
        assert!(status.stderr.contains("not attached"), "{status:?}");
        let filters = host.run(&format!("tc filter show dev {stranger} ingress"));
        assert_eq!(filters.unwrap().trim(), "");
        if kernel_at_least(6, 6) {
            let (path, device) = (host.path(), stranger.clone());
            let query = move || Ok(SchedClassifier::query_tcx(&device, TcAttachType::Ingress)?.1);
            let programs = in_netns(&path, query).unwrap();
            assert!(programs.is_empty(), "{programs:?}");
        }
        assert!(!is_pinned(trunk) && !is_pinned(&stranger));
    }
}

/// Removing the pins of a running process detaches its programs.
#[test]
fn a_process_whose_pins_were_removed_ends_and_leaves_nothing() {
    require!("removed", nix::unistd::geteuid().is_root(), "needs root");
    for (pattern, on_exit) in [("", "detach"), ("/*", "keep")] {
        let wire = Wire::veth().unwrap();
        wire.keep_tags().unwrap();
        let (host, trunk) = (&wire.host, &wire.trunk);
        host.run(&format!("ethtool -K {trunk} rxvlan on")).unwrap();
        let before = Residue::of(host, trunk).unwrap();
        let arguments = [
            "--docker",
            "off",
            "--metrics",
            "off",
            "--ingress",
            "xdp-generic",
            "--manage-offloads",
            "--on-exit",
            on_exit,
        ];
        let attached = Attached::start(host, trunk, &arguments).unwrap();
        let directory = pins(trunk);
        let line = format!("rm -r {}{pattern}", directory.display());
        run(&line).unwrap();
        let ended = attached.end().unwrap();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("removed the pins"), "{ended:?}");
        let _ = fs::remove_dir(&directory);
        before.wait_until_as_before(host, trunk).unwrap();
    }
}
