//! Multicast DNS (RFC 6762): the router and the containers each run an avahi.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result};
use vlanfast_tests::{in_the_lab, run::daemon::Daemon};

use crate::{
    alike,
    vlan10::{
        Station::{self, A, B, Router},
        Vlan10,
    },
};

fn name(station: Station) -> String {
    format!("{station:?}").to_lowercase()
}

/// Starts avahi-daemon with its defaults, but without D-Bus, which the lab does not have.
fn avahi(vlan10: &Vlan10, station: Station) -> Result<Daemon> {
    let (name, device) = (name(station), vlan10.device(station));
    let config = format!(
        "[server]\nhost-name={name}\nallow-interfaces={device}\nenable-dbus=no\n\
         [wide-area]\nenable-wide-area=no\n"
    );
    // avahi's directory has a fixed path, so each daemon gets a mount of its own there.
    let line = "mkdir -p /run/avahi-daemon; exec unshare --mount sh -c \
                'mount -t tmpfs tmpfs /run/avahi-daemon && exec avahi-daemon --file=$DIR/config \
                 --no-drop-root --no-chroot --no-rlimits'";
    Daemon::start(
        vlan10.netns(station),
        line,
        &config,
        "Server startup complete",
    )
}

/// Returns an avahi's answer to a name, from the socket that it has for the C library's resolver.
fn resolve(avahi: &Daemon, name: &str, family: &str) -> Result<Option<String>> {
    let path = format!("/proc/{}/root/run/avahi-daemon/socket", avahi.pid());
    let mut socket =
        UnixStream::connect(&path).with_context(|| format!("failed to open {path}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    writeln!(socket, "RESOLVE-HOSTNAME-{family} {name}.local")?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    // `+ 2 0 router.local 192.0.2.1`, or `-15 Timeout reached`
    let mut words = answer.split_whitespace();
    let found = words.next() == Some("+");
    Ok(words.last().filter(|_| found).map(str::to_owned))
}

#[test]
fn avahi_finds_its_neighbours_by_name() {
    in_the_lab!("mDNS");
    let outcome = alike(|vlan10| {
        let stations = [Router, A, B];
        let daemons = stations.map(|station| avahi(vlan10, station).unwrap());
        let mut found = BTreeMap::new();
        for (asker, daemon) in stations.iter().zip(&daemons) {
            for other in stations.iter().filter(|other| *other != asker) {
                for family in ["IPV4", "IPV6"] {
                    let answer = resolve(daemon, &name(*other), family).unwrap();
                    found.insert((*asker, *other, family), answer);
                }
            }
        }
        let nobody = resolve(&daemons[0], "nobody", "IPV4").unwrap();
        (found, nobody)
    });
    let (found, nobody) = outcome;
    assert_eq!(found.len(), 12);
    for ((asker, other, family), answer) in found {
        let address = match family {
            "IPV4" => other.ipv4(),
            _ => other.ipv6(),
        };
        assert_eq!(answer, Some(address), "{asker:?} asks for {other:?}");
    }
    assert_eq!(nobody, None);
}
