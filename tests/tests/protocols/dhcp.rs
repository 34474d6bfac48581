//! DHCPv4 (RFC 2131): busybox's client in containers, dnsmasq at the router.

use std::fs;

use vlanfast_tests::{in_the_lab, run::daemon::Daemon};

use crate::{
    alike,
    vlan10::{
        Known,
        Station::{self, A, B, C, Router},
        Vlan10,
    },
};

/// The script that the client runs after each change of its lease.
const SCRIPT: &str = "#!/bin/sh\n\
    [ \"$1\" = bound ] && ip addr add \"$ip/24\" dev \"$interface\" && echo \"bound to $ip\"\n";

/// Gets a lease with the client's own frames. With `broadcast`, the client asks the server to broadcast the replies,
/// as clients must that cannot receive unicast before they have an address.
fn lease(vlan10: &Vlan10, station: Station, script: &str, broadcast: bool) -> Option<String> {
    let flag = if broadcast { "-B" } else { "" };
    let line = format!("busybox udhcpc -i $DEV -f -q -n -t 5 -T 3 -s {script} {flag}");
    let ended = vlan10.end(station, &line).unwrap();
    let address = ended
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("bound to "));
    address.filter(|_| ended.code == Some(0)).map(str::to_owned)
}

#[test]
fn a_dhcp_client_gets_its_lease() {
    in_the_lab!("DHCP");
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, SCRIPT).unwrap();
    let script = script.to_str().unwrap();
    let outcome = alike(|vlan10| {
        let mut line = "chmod +x $SCRIPT; exec dnsmasq --no-daemon --user=root \
             --conf-file=/dev/null --port=0 --leasefile-ro --no-ping --interface=wire.10 \
             --dhcp-authoritative --dhcp-range=192.0.2.100,192.0.2.110"
            .replace("$SCRIPT", script);
        for (station, address) in [(A, "192.0.2.101"), (B, "192.0.2.102")] {
            line += &format!(" --dhcp-host={},{address}", vlan10.mac(station).unwrap());
            vlan10.run(station, "ip -4 addr flush dev $DEV").unwrap();
        }
        let _server = Daemon::start(vlan10.netns(Router), &line, "", "DHCP, IP range").unwrap();
        let leases = [(A, false), (B, true)].map(|(station, broadcast)| {
            let before = vlan10.steered().unwrap();
            let address = lease(vlan10, station, script, broadcast);
            if broadcast && let Some(before) = before {
                // The client gets the address that it was offered.
                assert!(vlan10.steered().unwrap() >= Some(before + 2));
            }
            let reached = vlan10.pings(station, &Router.ipv4()).unwrap();
            (address, reached)
        });
        // The others reach a station whose address comes from the server.
        let found = ["192.0.2.101", "192.0.2.102"].map(|address| {
            let reached =
                vlan10.pings(C, address).unwrap() && vlan10.pings(Router, address).unwrap();
            (reached, vlan10.known(Router, address).unwrap())
        });
        // Both renew at once, as after a power failure.
        let again = std::thread::scope(|scope| {
            let ask = |(station, broadcast)| {
                vlan10.run(station, "ip -4 addr flush dev $DEV").unwrap();
                scope.spawn(move || lease(vlan10, station, script, broadcast))
            };
            [(A, true), (B, false)]
                .map(ask)
                .map(|one| one.join().unwrap())
        });
        (leases, found, again)
    });
    let (a, b) = ("192.0.2.101".to_owned(), "192.0.2.102".to_owned());
    let (leases, found, again) = outcome;
    assert_eq!(leases, [(Some(a.clone()), true), (Some(b.clone()), true)]);
    assert_eq!(
        found,
        [A, B].map(|station| (true, Some(Known::At(station))))
    );
    assert_eq!(again, [Some(a), Some(b)]);
}
