//! IPv6 neighbour discovery (RFC 4861), autoconfiguration and duplicate address detection (RFC 4862).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use anyhow::{Context, Result, ensure};
use vlanfast_tests::{in_the_lab, run::daemon::Daemon};

use crate::{
    alike,
    vlan10::{
        Station::{self, A, B, C, Elsewhere, Host, Router},
        Vlan10, at_once, eventually, moment,
    },
};

/// Returns the stations that answer a neighbour solicitation within a second.
fn ndisc6(vlan10: &Vlan10, from: Station, address: &str) -> Result<BTreeSet<Station>> {
    let ended = vlan10.end(from, &format!("ndisc6 -q -m -r 2 -w 1000 {address} $DEV"))?;
    let owners: BTreeSet<Station> = ended
        .stdout
        .split_whitespace()
        .map(|mac| vlan10.owner(mac))
        .collect::<Result<_>>()?;
    ensure!(
        ended.code == Some(if owners.is_empty() { 2 } else { 0 }),
        "ndisc6 ended with {:?}: {}",
        ended.code,
        ended.stderr
    );
    Ok(owners)
}

#[test]
fn a_neighbour_solicitation_is_answered_by_whoever_has_the_address() {
    in_the_lab!("ndisc6");
    let outcome = alike(|vlan10| {
        let asked = [
            (Router, A),
            (Router, B),
            (Router, C),
            (Router, Host),
            (Router, Elsewhere),
            (Host, Router),
            (A, Router),
            (A, B),
            (A, Elsewhere),
        ];
        let answers = at_once(asked, |(from, whose)| {
            ndisc6(vlan10, from, &whose.ipv6()).unwrap()
        });
        assert!(vlan10.is_steered().unwrap());
        answers
    });
    let expected = [
        vec![A],
        vec![B],
        vec![C],
        vec![Host],
        vec![],
        vec![Router],
        vec![Router],
        vec![B],
        vec![],
    ];
    assert_eq!(outcome, expected.map(BTreeSet::from_iter));
}

/// Adds another station's address to each station at once and leaves it there; returns which stations found it taken.
fn duplicates<const N: usize>(
    vlan10: &Vlan10,
    claims: [(Station, Station); N],
) -> Result<[(Station, Station, bool); N]> {
    for (claimer, whose) in claims {
        let address = whose.ipv6();
        vlan10.run(claimer, &format!("ip addr add {address}/64 dev $DEV"))?;
    }
    let mut verdicts = claims.map(|(claimer, whose)| (claimer, whose, false));
    for (claimer, whose, failed) in &mut verdicts {
        let find = || {
            let all = vlan10.inet6(*claimer)?;
            all.into_iter()
                .find(|one| one.address.to_string() == whose.ipv6())
                .context("the address is there")
        };
        ensure!(eventually(10, || Ok(!find()?.tentative))?, "no verdict");
        *failed = find()?.dadfailed;
    }
    Ok(verdicts)
}

fn withdraw(vlan10: &Vlan10, claims: &[(Station, Station, bool)]) -> Result<()> {
    for (claimer, whose, _) in claims {
        let address = whose.ipv6();
        vlan10.run(*claimer, &format!("ip addr del {address}/64 dev $DEV"))?;
    }
    Ok(())
}

#[test]
fn an_address_that_is_taken_fails_duplicate_address_detection() {
    in_the_lab!("duplicate address detection");
    let outcome = alike(|vlan10| {
        let first = duplicates(vlan10, [(Router, A), (A, B), (B, Router), (C, Elsewhere)]).unwrap();
        // A claim that failed takes nothing from the owner of the address.
        moment();
        vlan10.run(Router, "ip -6 neigh flush dev $DEV").unwrap();
        vlan10.run(C, "ip -6 neigh flush dev $DEV").unwrap();
        let meanwhile = [(Router, B), (C, B), (C, Router), (C, A)]
            .map(|(from, to)| vlan10.pings(from, &to.ipv6()).unwrap());
        withdraw(vlan10, &first).unwrap();
        let second = duplicates(vlan10, [(Router, Host), (Host, Router)]).unwrap();
        withdraw(vlan10, &second).unwrap();
        let third = duplicates(vlan10, [(A, Host), (Router, Elsewhere)]).unwrap();
        (first, meanwhile, second, third)
    });
    let (first, meanwhile, second, third) = outcome;
    let taken = |(claimer, whose)| (claimer, whose, true);
    let free = |(claimer, whose)| (claimer, whose, false);
    let expected = [taken((Router, A)), taken((A, B)), taken((B, Router))];
    assert_eq!(first[..3], expected);
    assert_eq!(first[3], free((C, Elsewhere)));
    assert_eq!(meanwhile, [true; 4]);
    assert_eq!(second, [taken((Router, Host)), taken((Host, Router))]);
    // macvlan keeps a host and its containers apart, so the host's address seems free.
    assert_eq!(third, [(A, Host), (Router, Elsewhere)].map(free));
}

/// The configuration that a station derives from the router's advertisements.
#[derive(Debug, PartialEq, Eq)]
struct Autoconfigured {
    address: bool,
    router: Option<Station>,
}

/// Returns the address of a prefix with the interface identifier of a MAC (RFC 4291, appendix A).
fn eui64(prefix: &str, mac: &str) -> Result<Ipv6Addr> {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    let [a, b, c, d, e, f] = bytes[..] else {
        anyhow::bail!("{mac} is no MAC");
    };
    let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    let text = words.map(|word| format!("{word:x}")).join(":");
    Ok(format!("{prefix}{text}").parse()?)
}

fn autoconfigured(vlan10: &Vlan10, station: Station) -> Result<Autoconfigured> {
    let own = eui64("2001:db8:a:0:", &vlan10.mac(station)?)?;
    let addresses = vlan10.inet6(station)?;
    let gateway = eui64("fe80:0:0:0:", &vlan10.mac(Router)?)?;
    let routes = vlan10.run(station, "ip -6 route show default dev $DEV proto ra")?;
    Ok(Autoconfigured {
        address: addresses
            .iter()
            .any(|one| one.address == own && !one.tentative),
        router: routes
            .contains(&format!("via {gateway} "))
            .then_some(Router),
    })
}

#[test]
fn containers_autoconfigure_from_router_advertisements() {
    in_the_lab!("router advertisements");
    let outcome = alike(|vlan10| {
        // A router that advertises a lifetime of zero is no longer a default router.
        let forwarding = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        let address = "ip addr add 2001:db8:a::1/64 dev $DEV nodad";
        vlan10
            .run(Router, &format!("{forwarding} && {address}"))
            .unwrap();
        let line = "exec dnsmasq --no-daemon --user=root --conf-file=/dev/null --port=0 \
                    --interface=wire.10 --enable-ra --dhcp-range=2001:db8:a::,ra-only";
        let _router =
            Daemon::start(vlan10.netns(Router), line, "", "router advertisement on").unwrap();
        // The advertisement answers the station's own solicitation.
        let prefix = vlan10.end(A, "rdisc6 -q -1 -r 3 -w 3000 $DEV").unwrap();
        let stations = [Host, A, B, C];
        let done = |station| {
            let found = autoconfigured(vlan10, station)?;
            Ok(found.address && found.router.is_some())
        };
        for station in stations {
            // A timeout shows in the comparison that follows.
            eventually(15, || done(station)).unwrap();
        }
        let made = stations.map(|station| (station, autoconfigured(vlan10, station).unwrap()));
        let ping = |station| {
            let address = eui64("2001:db8:a:0:", &vlan10.mac(station).unwrap()).unwrap();
            vlan10.pings(Router, &address.to_string()).unwrap()
        };
        (
            prefix.stdout.trim().to_owned(),
            BTreeMap::from(made),
            stations.map(ping),
        )
    });
    let (prefix, made, pings) = outcome;
    assert_eq!(prefix, "2001:db8:a::/64");
    for (station, autoconfigured) in made {
        let expected = Autoconfigured {
            address: true,
            router: Some(Router),
        };
        assert_eq!(autoconfigured, expected, "{station:?}");
    }
    assert_eq!(pings, [true; 4]);
}
