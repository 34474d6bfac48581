//! Bad input gives one line that says what is wrong and an exit code of its own, and changes nothing.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
};

use aya::programs::{Xdp, XdpMode};
use nix::fcntl::{Flock, FlockArg};
use vlanfast_tests::{
    net::{
        namespace::{Netns, run, unique},
        topology::Wire,
    },
    require,
    run::{
        pins::pins,
        program::{Attached, Ended, binary, detach, end, next_binary, vlanfast},
        require::kernel_at_least,
        residue::Residue,
    },
};

/// Checks for one line on stderr, the exit code, and each of the words.
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    let text = &ended.stderr;
    assert_eq!(ended.code, Some(code), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
}

#[test]
fn devices_that_can_not_be_a_trunk_are_refused() {
    require!("devices", nix::unistd::geteuid().is_root(), "needs root");
    let host = Netns::new().unwrap();
    refused(
        &vlanfast(&host, &["attach", "nope"]).unwrap(),
        4,
        &["nope", "ip link"],
    );
    refused(
        &vlanfast(&host, &["attach", "a-name-that-is-too-long"]).unwrap(),
        4,
        &["too-long"],
    );
    refused(
        &vlanfast(&host, &["attach", "lo"]).unwrap(),
        4,
        &["lo", "loopback"],
    );
    host.run("ip tuntap add vft mode tun").unwrap();
    refused(
        &vlanfast(&host, &["attach", "vft"]).unwrap(),
        4,
        &["vft", "not an Ethernet device"],
    );
    refused(&vlanfast(&host, &["detach", "nope"]).unwrap(), 4, &["nope"]);
    refused(
        &vlanfast(&host, &["counters", "nope"]).unwrap(),
        4,
        &["nope"],
    );
    refused(
        &vlanfast(&host, &["status", "lo"]).unwrap(),
        1,
        &["not attached to lo"],
    );
}

/// Checks what `status` reports about each trunk, and a key of its JSON. Both end with an error in one line.
fn is_shown(host: &Netns, rows: &[(&String, &str, &str)]) {
    let text = vlanfast(host, &["status"]).unwrap();
    let json = vlanfast(host, &["status", "--json"]).unwrap();
    for (trunk, word, key) in rows {
        let line = format!("{trunk}: {word}");
        assert!(text.stdout.contains(&line), "no '{line}' in {text:?}");
        let mut objects = json.stdout.lines().map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            object
        });
        let object = objects.find(|object| object["trunk"] == **trunk).unwrap();
        assert!(!object[*key].is_null(), "{object}");
    }
    for ended in [text, json] {
        assert!(!matches!(ended.code, None | Some(0)), "{ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn one_trunk_that_can_not_be_shown_hides_no_other() {
    require!("hidden", nix::unistd::geteuid().is_root(), "needs root");
    let (gone, other, fine) = (
        Wire::veth().unwrap(),
        Wire::veth().unwrap(),
        Wire::veth().unwrap(),
    );
    let host = &fine.host;
    // Trunks of other namespaces are not shown.
    for wire in [&gone, &other] {
        let trunk = &wire.trunk;
        wire.host
            .run(&format!("ip link set {trunk} netns {}", host.name))
            .unwrap();
        host.run(&format!("ip link set {trunk} up")).unwrap();
    }
    // One device is gone, and one has the maps of another version.
    Attached::start(host, &gone.trunk, &["--metrics", "off"])
        .unwrap()
        .kill()
        .unwrap();
    host.run(&format!("ip link del {}", gone.trunk)).unwrap();
    let next = next_binary();
    Attached::start_by(next, host, &other.trunk, &["--metrics", "off"])
        .unwrap()
        .kill()
        .unwrap();
    fs::remove_file(pins(&other.trunk).join("ENDPOINTS")).unwrap();
    let attached = Attached::start(host, &fine.trunk, &["--metrics", "off"]).unwrap();
    // One directory of pins is locked and still empty.
    let starting = unique();
    let pins_of_fine = pins(&fine.trunk);
    let id = pins_of_fine.file_name().unwrap().to_str().unwrap();
    let (namespace, _) = id.split_once(':').unwrap();
    let directory = pins_of_fine.with_file_name(format!("{namespace}:9999:{starting}"));
    fs::create_dir(&directory).unwrap();
    let lock = File::open(&directory).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();

    is_shown(
        host,
        &[
            (&gone.trunk, "failed to read its status", "error"),
            (&other.trunk, "failed to read its status", "error"),
            (&starting, "starting, process", "pid"),
            (&fine.trunk, "attached by process", "hooks"),
        ],
    );
    refused(
        &vlanfast(host, &["status", &gone.trunk]).unwrap(),
        4,
        &["no such device", "vlanfast detach"],
    );

    attached.stop().unwrap();
    drop(lock);
    fs::remove_dir(&directory).unwrap();
    for wire in [&gone, &other] {
        detach(host, &wire.trunk).unwrap();
    }
}

#[test]
fn wrong_usage_is_code_2() {
    let host = Netns::new().unwrap();
    for arguments in [
        &["attach"][..],
        &["attach", "eth0", "--ingress", "magic"],
        &["counters", "--vlan", "4096"],
        &["nothing"],
    ] {
        assert_eq!(
            vlanfast(&host, arguments).unwrap().code,
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn one_trunk_has_one_vlanfast() {
    require!("one", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let pid = attached.pid().to_string();
    refused(
        &vlanfast(&wire.host, &["attach", &wire.trunk]).unwrap(),
        7,
        &[&wire.trunk, &pid],
    );
    assert_eq!(Residue::of(&wire.host, &wire.trunk).unwrap(), before);
    attached.stop().unwrap();
}

#[test]
fn xdp_on_a_device_that_strips_tags_names_the_remedy() {
    require!("strips", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let remedy = format!("ethtool -K {} rxvlan off", wire.trunk);
    for ingress in ["xdp", "xdp-generic"] {
        let ended = vlanfast(&wire.host, &["attach", &wire.trunk, "--ingress", ingress]).unwrap();
        refused(&ended, 4, &["strips VLAN tags", &remedy, "--ingress tc"]);
    }
    assert_eq!(Residue::of(&wire.host, &wire.trunk).unwrap(), before);
}

#[test]
fn an_xdp_program_of_someone_else_is_named_and_left_alone() {
    require!("foreign", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.clone());
    // Any program that is not pinned as ours will do, such as the object's own.
    let path = host.path();
    let name = trunk.clone();
    let _foreign = vlanfast_tests::net::namespace::in_netns(&path, move || {
        let mut ebpf = super::strangers();
        let program: &mut Xdp = ebpf.program_mut("stranger_xdp").unwrap().try_into()?;
        program.load()?;
        program.attach(&name, XdpMode::Driver)?;
        Ok(ebpf)
    })
    .unwrap();
    let before = Residue::of(host, &trunk).unwrap();
    let ended = vlanfast(host, &["attach", &trunk, "--ingress", "xdp"]).unwrap();
    refused(&ended, 5, &[&trunk, "stranger_xdp", "--ingress tc"]);
    assert_eq!(Residue::of(host, &trunk).unwrap(), before);
    // `auto` uses the TC hook, which is free.
    let attached = Attached::start(host, &trunk, &[]).unwrap();
    let status = attached.status().unwrap();
    assert_eq!(status["ingress"]["chosen"], "tc");
    assert!(
        status["ingress"]["reason"]
            .as_str()
            .unwrap()
            .contains("another program"),
        "{status}"
    );
    attached.stop().unwrap();
}

#[test]
fn missing_rights_are_named() {
    require!("rights", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    // Every user may run this copy.
    let copy = format!("/tmp/{}", wire.trunk);
    run(&format!("cp {} {copy} && chmod 755 {copy}", binary())).unwrap();
    let attach = |setpriv: &str| {
        let line = format!("exec setpriv {setpriv} {copy} attach {}", wire.trunk);
        end(wire.host.command("sh").args(["-c", &line])).unwrap()
    };
    let nobody = attach("--reuid=65534 --regid=65534 --clear-groups");
    let all = [
        "CAP_NET_ADMIN",
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_NET_BROADCAST",
    ];
    refused(&nobody, 3, &all);
    let without = attach("--bounding-set=-net_admin --inh-caps=-net_admin");
    refused(&without, 3, &["CAP_NET_ADMIN"]);
    assert!(!without.stderr.contains("CAP_BPF"), "{}", without.stderr);
    let without = attach("--bounding-set=-net_broadcast --inh-caps=-net_broadcast");
    refused(&without, 3, &["lacks CAP_NET_BROADCAST:"]);
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(Residue::of(&wire.host, &wire.trunk).unwrap(), before);
}

#[test]
fn a_kernel_without_bpf_is_named() {
    require!("kernel", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let mut without = wire.host.command(&binary());
    without.args(["attach", &wire.trunk]);
    let filter = without_bpf();
    // SAFETY: the closure applies a filter that was created before the fork.
    unsafe {
        without.pre_exec(move || seccompiler::apply_filter(&filter).map_err(std::io::Error::other));
    }
    refused(&end(&mut without).unwrap(), 6, &["bpf(2)"]);
    assert_eq!(Residue::of(&wire.host, &wire.trunk).unwrap(), before);
}

#[test]
fn a_kernel_with_an_old_number_and_every_feature_is_taken() {
    require!("number", nix::unistd::geteuid().is_root(), "needs root");
    /// With this flag of personality(2) the kernel reports version 2.6.x to this thread and to its children.
    const UNAME26: libc::c_ulong = 0x002_0000;
    let wire = Wire::veth().unwrap();
    // SAFETY: the call takes numbers only.
    let own = unsafe { libc::personality(0xffff_ffff) };
    unsafe { libc::personality(UNAME26) };
    let release = nix::sys::utsname::uname().unwrap().release().to_owned();
    let attached = Attached::start(
        &wire.host,
        &wire.trunk,
        &["--docker", "off", "--metrics", "off"],
    );
    unsafe { libc::personality(own as libc::c_ulong) };
    assert!(release.to_string_lossy().starts_with("2.6."), "{release:?}");
    let attached = attached.unwrap();
    let tc = if kernel_at_least(6, 6) {
        "tcx"
    } else {
        "clsact"
    };
    assert_eq!(attached.kind("ingress").unwrap(), tc);
    attached.stop().unwrap();
}

/// Returns a seccomp filter under which bpf(2) is not implemented.
fn without_bpf() -> seccompiler::BpfProgram {
    use seccompiler::{SeccompAction, SeccompFilter};
    SeccompFilter::new(
        [(libc::SYS_bpf, vec![])].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap()
    .try_into()
    .unwrap()
}
