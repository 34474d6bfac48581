//! Every shell sees the same pins, whichever way it entered the namespace.

use std::process::Command;

use vlanfast_tests::{
    net::topology::Wire,
    require,
    run::{
        pins::PINS,
        program::{Ended, binary, end},
    },
};

use crate::strangers::assert_refused;

/// Runs a shell script as process 1 of a PID namespace, with mounts of its own that every process in it sees at
/// `/proc/1/root`.
fn as_process_1(lines: &str) -> Ended {
    let script = format!("set -e\numount -l /sys/fs/bpf 2>/dev/null || true\n{lines}");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        &script,
    ]);
    end(&mut command).unwrap()
}

#[test]
fn ip_netns_exec_and_every_other_shell_see_the_same_pins() {
    require!("netns exec", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (trunk, name, vlanfast) = (&wire.trunk, &wire.host.name, binary());
    let ways = [
        format!("ip netns exec {name} {vlanfast}"),
        format!("nsenter --net=/run/netns/{name} {vlanfast}"),
    ];
    for (one, other) in [
        (&ways[0], &ways[1]),
        (&ways[1], &ways[0]),
        (&ways[0], &ways[0]),
    ] {
        let ended = as_process_1(&format!(
            "mount -t bpf -o mode=700 bpf /sys/fs/bpf
             {one} attach {trunk} --docker off --metrics off >/dev/null &
             for i in $(seq 300); do
               {other} status {trunk} 2>/dev/null | grep -q 'heartbeat alive' && break; sleep 0.2
             done
             {other} status {trunk} | grep \"attached by process $!\"
             {one} status {trunk} | grep \"attached by process $!\"
             {other} detach {trunk}
             wait $!
             test ! -e {PINS}
             if {one} status {trunk}; then exit 9; fi"
        ));
        assert_eq!(ended.code, Some(0), "{one}, then {other}: {ended:?}");
        let detached = format!("{trunk}: detached");
        assert!(ended.stdout.contains(&detached), "{ended:?}");
    }
}

#[test]
fn without_a_bpf_file_system_the_way_to_one_is_named() {
    require!("no bpffs", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (trunk, name, vlanfast) = (&wire.trunk, &wire.host.name, binary());
    let mount = "mount -t bpf -o mode=700 bpf /sys/fs/bpf";
    for verb in ["attach", "status", "detach", "counters"] {
        let plain = as_process_1(&format!(
            "exec nsenter --net=/run/netns/{name} {vlanfast} {verb} {trunk}"
        ));
        assert_refused(verb, &plain, 6, &[mount]);
        assert!(!plain.stderr.contains("ip netns"), "{plain:?}");
        let hidden = as_process_1(&format!(
            "ip netns exec {name} {vlanfast} {verb} {trunk}; exit $?"
        ));
        assert_refused(
            verb,
            &hidden,
            6,
            &[mount, "nsenter --net=", "ip netns exec"],
        );
    }
}
