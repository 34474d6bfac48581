//! A device that cannot be read still counts as present, and a signal ends any phase.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    thread,
    time::{Duration, Instant},
};

use aya::Ebpf;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns},
};
use serde_json::Value;
use tokio::runtime::Builder;
use vlanfast::{
    maps::load,
    netlink::{
        Netlink,
        tc::{FilterSlot, Filters, NoClsact},
    },
    state::{name::Name, snapshot::Ifindex},
};
use vlanfast_common::{Direction, Policy};
use vlanfast_tests::{
    fixtures::macvlans::{attach, container},
    net::{namespace::Netns, topology::Wire},
    require,
    run::{
        observe::{endpoint, eventually},
        pinned_tables::PinnedTables,
        pins::is_pinned,
        program::{detach, vlanfast},
    },
};

/// `Büro` in ISO 8859-1, which is not valid UTF-8.
const ALIAS: &str = r#""$(printf 'B\374ro')""#;
/// A name that is not UTF-8 either, and one that clears a terminal; each in a shell's notation and as vlanfast shows
/// it.
const NAMES: [(&str, &str); 2] = [
    (r#""$(printf '\377\376')""#, r"\xff\xfe"),
    (r#""$(printf '\033[2J')""#, r"\u{1b}[2J"),
];

fn set_alias(netns: &Netns, device: &str) {
    let line = format!("ip link set {device} alias {ALIAS}");
    netns.run(&line).unwrap();
}

/// Returns the output of `status` without the fields that change by themselves.
fn status(attached: &vlanfast_tests::run::program::Attached) -> Value {
    let mut status = attached.status().unwrap();
    status.as_object_mut().unwrap().remove("sources");
    status
}

/// Creates a container whose device has addresses of both IP versions.
fn with_both(wire: &Wire, device: &str, address: &str, address6: &str) -> Netns {
    let container = container(wire, device, address);
    let line = format!(
        "echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6; \
         ip addr add {address6}/64 dev {device} nodad"
    );
    container.run(&line).unwrap();
    container
}

fn has(row: &Value, address: &str) -> bool {
    let addresses = row["addresses"].as_array().unwrap();
    addresses.iter().any(|it| it == address)
}

#[test]
fn an_alias_that_is_not_utf8_on_an_attached_trunk_changes_nothing() {
    require!("alias", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &["--storm-limit", "20", "--on-exit", "keep"]);
    let _first = with_both(&wire, "mv0", "192.0.2.10", "fd00::10");
    let there = |endpoints: &[Value]| {
        endpoint(endpoints, "mv0").is_some_and(|row| has(row, "192.0.2.10") && has(row, "fd00::10"))
    };
    eventually("both addresses", &attached, there);
    let before = status(&attached);
    assert_eq!(before["policy"]["storm_limit"], 20, "{before:#}");
    set_alias(&wire.host, &wire.trunk);
    // Once the next container is known, the change before it has been processed.
    let second = container(&wire, "mv1", "192.0.2.11");
    eventually("the next", &attached, |rows| rows.len() == 2 && there(rows));
    drop(second);
    eventually("the first alone", &attached, |rows| {
        rows.len() == 1 && there(rows)
    });
    // A namespace disappears before its device does, so the device is a hidden receiver for a moment.
    let start = Instant::now();
    while status(&attached) != before && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(&attached), before);
    assert_eq!(attached.status().unwrap()["heartbeat"], "alive");
    let ended = vlanfast(&wire.host, &["detach", &wire.trunk]).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!is_pinned(&wire.trunk));
}

#[test]
fn an_alias_that_is_not_utf8_does_not_prevent_attaching() {
    require!(
        "alias before",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = Wire::veth().unwrap();
    set_alias(&wire.host, &wire.trunk);
    set_alias(&wire.router, "wire");
    let inside = container(&wire, "mv0", "192.0.2.10");
    set_alias(&inside, "mv0");
    let attached = attach(&wire, &["--storm-limit", "20"]);
    let there = |endpoints: &[Value]| endpoint(endpoints, "mv0").is_some();
    eventually("the endpoint", &attached, there);
    assert_eq!(
        attached.status().unwrap()["ifindex"]
            .as_u64()
            .map(|it| it > 0),
        Some(true)
    );
    // The alias also changes while the daemon listens.
    inside.run("ip link set mv0 down").unwrap();
    set_alias(&inside, "mv0");
    inside.run("ip addr add 192.0.2.99/24 dev mv0").unwrap();
    eventually("its second address", &attached, |endpoints| {
        endpoint(endpoints, "mv0")
            .is_some_and(|row| has(row, "192.0.2.10") && has(row, "192.0.2.99"))
    });
    attached.stop().unwrap();
    assert!(!is_pinned(&wire.trunk));
    detach(&wire.host, &wire.trunk).unwrap();
}

#[test]
fn devices_whose_names_are_not_utf8_are_shown_escaped_and_stay_in_the_tables() {
    require!("names", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let inside = with_both(&wire, "mv0", "192.0.2.10", "fd00::10");
    eventually("both addresses", &attached, |endpoints| {
        endpoint(endpoints, "mv0").is_some_and(|row| has(row, "fd00::10"))
    });
    let mac = inside.mac("mv0").unwrap();
    let tables = PinnedTables::open(&wire.trunk).unwrap();
    let mut device = "mv0".to_owned();
    for (name, shown) in NAMES {
        // Before Linux 6.2 a device must be down for a change of its name, and loses its IPv6 addresses.
        let line = format!(
            "ip link set {device} name {name} 2>/dev/null || {{ ip link set {device} down && \
             ip link set {device} name {name} && ip link set {name} up && \
             ip addr add fd00::10/64 dev {name} nodad; }}"
        );
        inside.run(&line).unwrap();
        device = name.to_owned();
        // Once this later device is known, the loop has processed the change.
        let later = container(&wire, "later", "192.0.2.11");
        eventually("the next", &attached, |endpoints| {
            endpoint(endpoints, "later").is_some()
        });
        let rows = attached.endpoints().unwrap();
        let row = endpoint(&rows, shown).unwrap_or_else(|| panic!("no {shown} in {rows:#?}"));
        assert!(has(row, "192.0.2.10") && has(row, "fd00::10"), "{row}");
        for address in ["192.0.2.10", "fd00::10"] {
            let address: IpAddr = address.parse().unwrap();
            // Where the name could not be changed on a device that is up, it comes back.
            eventually(&address.to_string(), &attached, |_| {
                tables.has(0, mac, address).unwrap()
            });
        }
        let text = vlanfast(&wire.host, &["endpoints", &wire.trunk, "--docker", "off"]).unwrap();
        assert!(text.stdout.contains(shown), "{}", text.stdout);
        assert!(
            !text.stdout.contains(['\u{1b}', '\u{fffd}']),
            "{}",
            text.stdout
        );
        drop(later);
    }
    inside.run(&format!("ip link del {device}")).unwrap();
    eventually("nobody", &attached, <[Value]>::is_empty);
    attached.stop().unwrap();
}

/// Runs work in a namespace, on a thread that ends with it.
fn inside<T: Send>(netns: &Netns, work: impl AsyncFnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            let file = File::open(netns.path()).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        });
        there
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn programs(filters: &Filters) -> Vec<u32> {
    let programs = filters.list.iter().map(|filter| filter.program.as_ref());
    programs.map(|program| program.unwrap().id).collect()
}

/// Finds the index of the trunk by its name and by an alternative name; other names and indices find no device.
async fn found_by_every_name(netlink: &Netlink, trunk: &str) -> Ifindex {
    let alternative = Name::from(format!("{trunk}-an-alternative-name").as_str());
    let by = async |name: &Name| netlink.link(name).await.unwrap();
    let device = by(&alternative).await.unwrap();
    assert_eq!(device.name, Name::from(trunk));
    assert_eq!(by(&trunk.into()).await, Some(device.clone()));
    for none in ["nobody", "nobody-by-a-longer-name", ""] {
        assert_eq!(by(&none.into()).await, None, "{none}");
    }
    assert_eq!(by(&Name::new(&[b'a'; 200])).await, None);
    assert_eq!(netlink.link_of(Ifindex(0)).await.unwrap(), None);
    assert_eq!(
        netlink.link_of(Ifindex(i32::MAX as u32)).await.unwrap(),
        None
    );
    device.ifindex
}

/// Returns a program's descriptor and id.
fn loaded(ebpf: &mut Ebpf, name: &str) -> (OwnedFd, u32) {
    let program = load::tc(ebpf, name).unwrap();
    let id = program.info().unwrap().id();
    let fd = program.fd().unwrap().as_fd().try_clone_to_owned();
    (fd.unwrap(), id)
}

async fn a_qdisc_is_added_once(netlink: &Netlink, index: Ifindex) {
    assert!(!netlink.has_clsact(index).await.unwrap());
    let filters = netlink.filters(index, Direction::Rx).await.unwrap();
    assert!(filters.are_none());
    netlink.add_clsact(index).await.unwrap();
    let taken = netlink.add_clsact(index).await.unwrap_err();
    assert!(matches!(taken, NoClsact::Taken), "{taken:?}");
    assert!(netlink.has_clsact(index).await.unwrap());
}

async fn a_qdisc_goes_with_its_last_filter(
    netlink: &Netlink,
    index: Ifindex,
    [first, second]: [FilterSlot; 2],
) {
    netlink.remove_filter(second).await.unwrap();
    netlink.remove_clsact_if_empty(index).await.unwrap();
    assert!(netlink.has_clsact(index).await.unwrap());
    netlink.remove_filter(first).await.unwrap();
    netlink.remove_filter(first).await.unwrap();
    netlink.remove_clsact_if_empty(index).await.unwrap();
    assert!(!netlink.has_clsact(index).await.unwrap());
}

#[test]
fn a_filter_is_added_listed_replaced_and_removed_by_the_devices_index() {
    require!("filter", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let trunk = wire.trunk.as_str();
    // An index means the same device under any name.
    wire.host
        .run(&format!(
            "ip link property add dev {trunk} altname {trunk}-an-alternative-name"
        ))
        .unwrap();
    inside(&wire.host, async || {
        let netlink = Netlink::connect().unwrap();
        let index = found_by_every_name(&netlink, trunk).await;
        let mut ebpf = load::load(&Policy::default(), 0).unwrap();
        let mut program = |name| loaded(&mut ebpf, name);
        let ((rx, rx_id), (tx, tx_id)) = (program(load::RX), program(load::TX));
        let hook = Direction::Rx;
        a_qdisc_is_added_once(&netlink, index).await;
        let first = netlink
            .add_filter(index, hook, rx.as_fd(), "first")
            .await
            .unwrap();
        // A later filter whose priority the kernel chooses runs first.
        let second = netlink
            .add_filter(index, hook, tx.as_fd(), "second")
            .await
            .unwrap();
        assert!(first.priority != 0 && first.handle != 0 && second.priority < first.priority);
        let filters = netlink.filters(index, hook).await.unwrap();
        assert_eq!(programs(&filters), [tx_id, rx_id]);
        assert!(!filters.incomplete && !filters.are_none());
        let found = &filters.list[1];
        assert_eq!(
            (found.priority, found.handle, found.chain),
            (first.priority, first.handle, 0)
        );
        assert_eq!(found.kind, "bpf".into());
        assert_eq!(found.program.as_ref().unwrap().name, "first".into());
        assert!(
            netlink
                .filters(index, Direction::Tx)
                .await
                .unwrap()
                .are_none()
        );

        netlink
            .replace_filter(first, tx.as_fd(), "first")
            .await
            .unwrap();
        let filters = netlink.filters(index, hook).await.unwrap();
        assert_eq!(programs(&filters), [tx_id, tx_id]);

        a_qdisc_goes_with_its_last_filter(&netlink, index, [first, second]).await;
    });
}

#[test]
fn another_ingress_qdisc_is_told_from_other_failures() {
    require!("ingress", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.host
        .run(&format!("tc qdisc add dev {} ingress", wire.trunk))
        .unwrap();
    inside(&wire.host, async || {
        let netlink = Netlink::connect().unwrap();
        let device = netlink
            .link(&wire.trunk.as_str().into())
            .await
            .unwrap()
            .unwrap();
        let taken = netlink.add_clsact(device.ifindex).await.unwrap_err();
        assert!(matches!(taken, NoClsact::Taken), "{taken:?}");
        let kinds = netlink.qdiscs(device.ifindex).await.unwrap();
        assert!(kinds.iter().any(|qdisc| qdisc.kind == "ingress".into()));
        let nobody = netlink
            .add_clsact(Ifindex(i32::MAX as u32))
            .await
            .unwrap_err();
        assert!(matches!(nobody, NoClsact::Other(_)), "{nobody:?}");
    });
}

/// Paths are bytes too: the kernel's table of mounts escapes only white space, backslash and hash.
#[test]
fn a_mount_point_that_is_not_utf8_hides_no_namespace() {
    require!(
        "mount point",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire, &[]);
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path().join(OsStr::from_bytes(b"B\xfcro \\040"));
    fs::create_dir(&point).unwrap();
    let (none, no_data) = (None::<&str>, None::<&str>);
    mount(none, &point, Some("tmpfs"), MsFlags::empty(), no_data).unwrap();
    let seen = std::panic::catch_unwind(|| {
        let _inside = container(&wire, "mv0", "192.0.2.10");
        eventually("the endpoint", &attached, |endpoints| {
            endpoint(endpoints, "mv0").is_some()
        });
        let status = attached.status().unwrap();
        assert_eq!(status["sources"][0]["state"], "ok", "{status:#}");
    });
    umount2(&point, MntFlags::MNT_DETACH).unwrap();
    seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    attached.stop().unwrap();
}
