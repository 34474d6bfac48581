//! Docker's daemon in the lab, and the network of the tutorial that the project started from.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::topology::{Netns, WIRE, nic, run};

/// The set-up of the tutorial, as it is printed there. Its `-ti` is left out where there is no terminal.
const SET_UP: &[&str] = &[
    "docker network create -d macvlan --subnet=10.0.10.0/24 --gateway=10.0.10.1 \
     --subnet=2001:db8:babe:10::/64 --gateway=2001:db8:babe:10::1 -o parent=eth0.10 --ipv6 macvlan10",
    "docker network create -d macvlan --subnet=10.0.20.0/24 --gateway=10.0.20.1 \
     --subnet=2001:db8:babe:20::/64 --gateway=2001:db8:babe:20::1 -o parent=eth0.20 --ipv6 macvlan20",
    "docker run --name='container0' --hostname='container0' --net=macvlan10 --ip=10.0.10.2 \
     --ip6=2001:db8:babe:10::2 --detach=true phusion/baseimage:latest",
    "docker run --name='container2' --hostname='container2' --net=macvlan20 --ip=10.0.20.4 \
     --ip6=2001:db8:babe:20::4 --detach=true phusion/baseimage:latest",
    "docker run --name='container1' --hostname='container1' --net=macvlan10 --ip=10.0.10.3 \
     --ip6=2001:db8:babe:10::3 --detach=true phusion/baseimage:latest",
    "docker network connect --ip=10.0.20.3 --ip6=2001:db8:babe:20::3 macvlan20 container1",
];

/// Docker's daemon, for as long as this lives; what it runs ends with it.
pub struct Docker(Child);

impl Docker {
    /// Starts it in the namespace where the test began, with the image of the tutorial.
    pub fn start() -> Result<Self> {
        let docker = Self(dockerd()?);
        docker.wait_until_it_answers()?;
        run("docker import -c 'CMD [\"/sbin/my_init\"]' /lab/image.tar phusion/baseimage:latest")?;
        Ok(docker)
    }

    /// Ends it without a word; its containers stay.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Starts it again after [`Docker::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.0 = dockerd()?;
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let start = Instant::now();
        while run("docker version").is_err() {
            let log = || std::fs::read_to_string("/tmp/dockerd.log").unwrap_or_default();
            ensure!(
                start.elapsed() < Duration::from_secs(180),
                "dockerd does not start: {}",
                log()
            );
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}

fn dockerd() -> Result<Child> {
    // Containers outlive a daemon that is killed, as they do on hosts that care.
    let line = "exec dockerd --iptables=false --ip6tables=false --bridge=none -s overlay2 \
                --live-restore >/tmp/dockerd.log 2>&1";
    Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .spawn()
        .context("failed to start dockerd")
}

impl Drop for Docker {
    fn drop(&mut self) {
        // All there is was made by a test: the lab has no other user of Docker.
        let _ = run("docker rm -f $(docker ps -aq)");
        let _ = run("docker network prune -f");
        // In order: it ends containerd too.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The tutorial's host, with its networks and containers on `eth0`, and its router.
pub struct Tutorial {
    // The containers go before the router, whose wire they are on.
    pub docker: Docker,
    /// The namespace where the test began.
    pub host: Netns,
    pub router: Netns,
}

impl Tutorial {
    pub fn start() -> Result<Self> {
        let trunk = nic("52:54:00:00:00:0a")?;
        // Docker works in the namespace where it was started; a name lets the tests enter it.
        let host = Netns::here()?;
        run(&format!(
            "ip link set {trunk} down && ip link set {trunk} name eth0"
        ))?;
        // No addresses of the host's own: its neighbour discovery is not part of the tutorial.
        run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")?;
        run("ip link set eth0 promisc on up")?;
        let router = router()?;
        let docker = Docker::start()?;
        for command in SET_UP {
            run(command)?;
        }
        Ok(Self {
            docker,
            host,
            router,
        })
    }
}

/// The other NIC, with an address in each VLAN.
fn router() -> Result<Netns> {
    let router = Netns::new()?;
    let device = nic("52:54:00:00:00:0b")?;
    run(&format!(
        "ip link set {device} down && ip link set {device} netns {}",
        router.name
    ))?;
    let lines = [
        "for conf in all default; do echo 0 >/proc/sys/net/ipv6/conf/$conf/disable_ipv6; done"
            .into(),
        format!("ip link set {device} name {WIRE}"),
        format!("ip link set {WIRE} promisc on up"),
        "echo 1 >/proc/sys/net/ipv4/ip_forward".into(),
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding".into(),
    ];
    for line in &lines {
        router.run(line)?;
    }
    for vid in [10, 20] {
        router.run(&format!(
            "ip link add link {WIRE} name {WIRE}.{vid} type vlan id {vid} && \
             ip addr add 10.0.{vid}.1/24 dev {WIRE}.{vid} && \
             ip addr add 2001:db8:babe:{vid}::1/64 dev {WIRE}.{vid} nodad && \
             ip link set {WIRE}.{vid} up"
        ))?;
    }
    Ok(router)
}
