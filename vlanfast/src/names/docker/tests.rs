mod option;

use std::{
    fs,
    io::ErrorKind,
    net::IpAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use vlanfast_common::{Mac, SourceState};

use crate::{
    names::docker::{
        DEFAULT_SOCKET, DockerSocket, State, daemon_at,
        error::{RETRY, refusal},
        fake::{Daemon, FakeDocker, socket},
        list_once, watch, watch_daemon,
    },
    state::snapshot::{Docker, DockerAttachment},
};

/// A time limit beyond what any step takes, including a retry.
pub const SOON: Duration = Duration::from_secs(5);

/// The networks as Docker 20.10 (API 1.41) lists them.
fn networks() -> Value {
    json!([
        {"Name": "bridge", "Id": "b0", "Created": "2024-01-01T00:00:00Z", "Scope": "local",
         "Driver": "bridge", "EnableIPv6": false,
         "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "172.17.0.0/16"}]},
         "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
         "ConfigOnly": false, "Containers": {}, "Options": {"com.docker.network.driver.mtu": "1500"},
         "Labels": {}},
        {"Name": "none", "Id": "b1", "Scope": "local", "Driver": "null", "IPAM":
         {"Driver": "default", "Options": null, "Config": []}, "Options": {}, "Labels": {}},
        {"Name": "macvlan10", "Id": "m10", "Scope": "local", "Driver": "macvlan", "Containers": {},
         "ConfigFrom": {"Network": ""}, "Options": {"parent": "eth0.10"}, "Labels": null},
        {"Name": "nowhere", "Id": "m0", "Scope": "local", "Driver": "macvlan",
         "ConfigFrom": {"Network": ""}, "Options": null, "Labels": {}},
        {"Name": "template", "Id": "c20", "Scope": "local", "Driver": "null", "ConfigOnly": true,
         "ConfigFrom": {"Network": ""}, "Options": {"parent": "eth0.20"}, "Labels": {}},
        {"Name": "swarm20", "Id": "m20", "Scope": "swarm", "Driver": "macvlan", "Containers": null,
         "ConfigFrom": {"Network": "template"}, "Options": null, "Labels": null},
    ])
}

pub fn container(name: &str, state: &str, networks: Value) -> Value {
    json!({
        "Id": "0123456789ab", "Names": [format!("/neighbour/{name}"), format!("/{name}")],
        "Image": "nginx", "ImageID": "sha256:00", "Command": "nginx", "Created": 1700000000,
        "Ports": [{"PrivatePort": 80, "Type": "tcp"}], "State": state, "Status": "Up 2 hours",
        "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
        "HostConfig": {"NetworkMode": "macvlan10"}, "NetworkSettings": {"Networks": networks},
        "Mounts": [{"Type": "bind", "Source": "/srv", "Destination": "/srv", "Mode": "",
                    "RW": true, "Propagation": "rprivate"}]
    })
}

fn endpoint(network: &str, mac: &str, v4: &str, v6: &str) -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "DriverOpts": null, "Gateway": "",
        "NetworkID": network, "EndpointID": "e0", "IPAddress": v4, "IPPrefixLen": 24,
        "IPv6Gateway": "", "GlobalIPv6Address": v6, "GlobalIPv6PrefixLen": 0, "MacAddress": mac
    })
}

fn containers() -> Value {
    let both = json!({
        "swarm20": endpoint("m20", "02:42:0a:00:14:02", "10.0.20.2", "fd00::2"),
        "macvlan10": endpoint("m10", "02:42:0A:00:0a:02", "10.0.10.2", ""),
    });
    json!([container("web", "running", both)])
}

pub fn fake_docker() -> FakeDocker {
    FakeDocker::new(networks(), containers())
}

fn parents(docker: &Docker) -> Vec<(&str, &str, Option<&str>)> {
    let networks = docker.networks.iter();
    networks
        .map(|(id, network)| (&id[..], &network.name[..], network.parent.as_deref()))
        .collect()
}

pub fn names(state: &State) -> Vec<&str> {
    let containers = state.docker.containers.iter();
    containers.map(|container| &container.name[..]).collect()
}

async fn once(fake: &FakeDocker) -> (Docker, SourceState) {
    let (_dir, socket) = socket();
    let _daemon = Daemon::start(&socket, fake);
    let (docker, status) =
        list_once(&DockerSocket::Socket(socket), Duration::from_millis(500)).await;
    (docker, SourceState::from_number(status.state).unwrap())
}

/// Waits until the state fulfils a condition.
pub async fn until(
    states: &mut tokio::sync::watch::Receiver<State>,
    wanted: impl FnMut(&State) -> bool,
) -> State {
    let state = timeout(SOON, states.wait_for(wanted)).await;
    state.expect("in time").expect("a task that lives").clone()
}

pub fn is(state: SourceState) -> impl Fn(&State) -> bool {
    move |seen| seen.status.state == state as u32
}

#[tokio::test]
async fn a_list_has_the_macvlan_networks_and_their_containers() {
    let fake = fake_docker();
    let (docker, state) = once(&fake).await;
    assert_eq!(state, SourceState::Ok);
    let expected = [
        ("m0", "nowhere", None),
        ("m10", "macvlan10", Some("eth0.10")),
        ("m20", "swarm20", Some("eth0.20")),
    ];
    assert_eq!(parents(&docker), expected);
    let [web] = &docker.containers[..] else {
        panic!("{docker:?}")
    };
    let names = (
        &web.name[..],
        web.project.as_deref(),
        web.service.as_deref(),
    );
    assert_eq!(names, ("web", Some("shop"), Some("web")));
    let attachment = |network: &str, mac, addresses: &[&str]| DockerAttachment {
        network: network.to_owned(),
        mac: Some(Mac(mac)),
        addresses: addresses
            .iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<IpAddr>>(),
    };
    let expected = [
        attachment("m10", [2, 0x42, 10, 0, 10, 2], &["10.0.10.2"]),
        attachment("m20", [2, 0x42, 10, 0, 20, 2], &["10.0.20.2", "fd00::2"]),
    ];
    assert_eq!(web.attachments, expected);
    fake.change(|script| {
        let asked = script.asked.last().unwrap();
        for filter in ["m0", "m10", "m20", "running", "paused"] {
            assert!(asked.contains(&format!("%22{filter}%22")), "{asked}");
        }
    });
}

/// The answer has fields that Docker has added since, and one that it may add.
#[tokio::test]
async fn newer_answers_are_understood() {
    let network = json!({
        "Name": "macvlan10", "Id": "m10", "Driver": "macvlan", "EnableIPv4": true, "Peers": [],
        "Options": {"parent": "eth0.10"}, "Status": {"IPAM": {"Subnets": {}}}, "Unheard": [1]
    });
    let mut endpoint = endpoint("m10", "9e:12:34:56:78:9a", "10.0.10.3", "");
    endpoint["GwPriority"] = json!(0);
    endpoint["DNSNames"] = json!(["web"]);
    let mut container = container("web", "paused", json!({"macvlan10": endpoint}));
    container["ImageManifestDescriptor"] = json!({"mediaType": "", "digest": "", "size": 1});
    container["HostConfig"]["Annotations"] = json!({"a": "b"});
    container["Health"] = json!({"Status": "healthy", "FailingStreak": 0});
    container["Mounts"][0]["Type"] = json!("hologram");
    container["Unheard"] = json!({"of": null});
    let (docker, state) = once(&FakeDocker::new(json!([network]), json!([container]))).await;
    assert_eq!((state, docker.containers.len()), (SourceState::Ok, 1));
}

#[tokio::test]
async fn fields_that_are_not_needed_may_be_anything() {
    let fake = fake_docker();
    fake.change(|script| {
        script.containers[0]["Ports"][0]["Type"] = json!("quic");
        script.containers[0]["State"] = json!({"of": "mind"});
    });
    let (docker, state) = once(&fake).await;
    assert_eq!((state, docker.containers.len()), (SourceState::Ok, 1));
}

#[tokio::test]
async fn without_a_macvlan_network_containers_are_not_requested() {
    let fake = FakeDocker::new(json!([networks()[0]]), json!("not asked for"));
    assert_eq!(once(&fake).await, (Docker::default(), SourceState::Ok));
}

#[tokio::test]
async fn an_invalid_answer_has_no_names() {
    for garbage in [
        "",
        "[",
        "{}",
        "null",
        "[null]",
        "[[]]",
        r#"[{"Id": 7}]"#,
        "<html>",
    ] {
        let fake = fake_docker();
        fake.change(|script| script.garbage = Some(garbage));
        let (docker, state) = once(&fake).await;
        assert_eq!(docker, Docker::default(), "{garbage}");
        assert_eq!(state, SourceState::Unreachable, "{garbage}");
    }
}

#[tokio::test]
async fn a_daemon_that_hangs_is_not_waited_for() {
    let fake = fake_docker();
    fake.change(|script| script.hangs = true);
    let start = Instant::now();
    assert_eq!(once(&fake).await.1, SourceState::Unreachable);
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn an_event_brings_a_new_list() {
    let (_dir, socket) = socket();
    let fake = fake_docker();
    let daemon = Daemon::start(&socket, &fake);
    let (_task, mut states) = watch(DockerSocket::Socket(socket));
    let first = until(&mut states, is(SourceState::Ok)).await;
    assert_eq!(names(&first), ["web"]);
    assert!(first.status.last_success > 1_700_000_000);

    let renamed = json!([container("api", "running", json!({}))]);
    fake.change(|script| script.containers = renamed);
    daemon.send_event("container", "rename");
    until(&mut states, |state| names(state) == ["api"]).await;
}

#[tokio::test]
async fn events_are_asked_for_before_the_first_list() {
    let (_dir, socket) = socket();
    let fake = fake_docker();
    let _daemon = Daemon::start(&socket, &fake);
    let (_task, mut states) = watch(DockerSocket::Socket(socket));
    until(&mut states, is(SourceState::Ok)).await;
    fake.change(|script| {
        let paths: Vec<_> = script
            .asked
            .iter()
            .map(|path| path.split('?').next())
            .collect();
        let expected = ["/version", "/events", "/networks", "/containers/json"];
        assert_eq!(paths, expected.map(Some));
        assert!(script.asked[1].contains("since=1"), "{}", script.asked[1]);
    });
}

#[tokio::test]
async fn a_killed_daemon_keeps_its_names_and_is_found_again() {
    let (_dir, socket) = socket();
    let fake = fake_docker();
    let daemon = Daemon::start(&socket, &fake);
    let (_task, mut states) = watch(DockerSocket::Socket(socket.clone()));
    let first = until(&mut states, is(SourceState::Ok)).await;

    drop(daemon);
    let away = until(&mut states, is(SourceState::Unreachable)).await;
    assert_eq!(away.docker, first.docker);
    assert_eq!(away.status.last_success, first.status.last_success);

    fake.change(|script| script.containers = json!([]));
    let _daemon = Daemon::start(&socket, &fake);
    let back = until(&mut states, is(SourceState::Ok)).await;
    assert!(back.docker.containers.is_empty());
}

#[tokio::test]
async fn docker_may_start_later() {
    let (_dir, socket) = socket();
    let (_task, mut states) = watch(DockerSocket::Socket(socket.clone()));
    assert!(is(SourceState::Starting)(&states.borrow()));
    until(&mut states, is(SourceState::Absent)).await;
    let _daemon = Daemon::start(&socket, &fake_docker());
    until(&mut states, is(SourceState::Ok)).await;
}

/// Connecting would start the daemon again if systemd listens on its socket.
#[tokio::test]
async fn a_daemon_that_does_not_run_is_not_asked() {
    let (dir, socket) = socket();
    let fake = fake_docker();
    let daemon = Daemon::start(&socket, &fake);
    let pid_file = dir.path().join("docker.pid");
    let daemon_with_file = Some(crate::names::docker::Daemon {
        socket: socket.clone(),
        pid_files: Some([dir.path().join("none"), pid_file.clone()]),
    });
    let (_task, mut states) = watch_daemon(daemon_with_file, crate::names::docker::LIMIT);
    let a_while = || sleep(RETRY + RETRY / 2);
    let asked = || fake.change(|script| script.asked.len());
    until(&mut states, is(SourceState::Absent)).await;
    a_while().await;
    assert_eq!(asked(), 0);

    fs::write(&pid_file, "1").unwrap();
    until(&mut states, is(SourceState::Ok)).await;

    // While the daemon ends, its file still exists, but its socket belongs to systemd.
    drop(daemon);
    until(&mut states, is(SourceState::Unreachable)).await;
    let _daemon = Daemon::start(&socket, &fake);
    let before = asked();
    a_while().await;
    assert_eq!(asked(), before);
    fs::remove_file(&pid_file).unwrap();
    until(&mut states, is(SourceState::Absent)).await;
    assert_eq!(asked(), before);
    fs::write(&pid_file, "2").unwrap();
    until(&mut states, is(SourceState::Ok)).await;
}

#[test]
fn only_dockerds_own_socket_has_a_file_with_a_process_id() {
    assert!(daemon_at(DEFAULT_SOCKET.into()).pid_files.is_some());
    assert!(daemon_at("/run/docker.sock".into()).pid_files.is_some());
    assert!(
        daemon_at("/run/podman/podman.sock".into())
            .pid_files
            .is_none()
    );
    let explicit = DockerSocket::Socket(DEFAULT_SOCKET.into())
        .daemon()
        .unwrap();
    assert!(explicit.pid_files.is_none());
}

#[tokio::test]
async fn off_never_connects() {
    let (_task, mut states) = watch(DockerSocket::Off);
    assert!(is(SourceState::Off)(&states.borrow()));
    let silence = timeout(Duration::from_millis(50), states.changed()).await;
    assert!(silence.is_err(), "neither a change nor the end");
    let (docker, status) = list_once(&DockerSocket::Off, SOON).await;
    assert_eq!(
        (docker, status.state),
        (Docker::default(), SourceState::Off as u32)
    );
}

#[tokio::test]
async fn the_task_ends_with_its_handle() {
    let (_dir, socket) = socket();
    let (task, mut states) = watch(DockerSocket::Socket(socket));
    drop(task);
    let end = timeout(SOON, async { while states.changed().await.is_ok() {} }).await;
    assert!(end.is_ok());
}

#[test]
fn the_error_of_connecting_determines_the_state() {
    // Root may connect to any socket, so the kernel cannot be made to return all of these errors here.
    let expected = [
        (ErrorKind::NotFound, SourceState::Absent),
        (ErrorKind::NotADirectory, SourceState::Absent),
        (ErrorKind::PermissionDenied, SourceState::NotPermitted),
        (ErrorKind::ConnectionRefused, SourceState::Unreachable),
        (ErrorKind::WouldBlock, SourceState::Unreachable),
    ];
    for (kind, state) in expected {
        assert_eq!(refusal(kind), state, "{kind}");
    }
}
