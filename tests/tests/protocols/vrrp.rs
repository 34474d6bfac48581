//! VRRP (RFC 5798) by keepalived: one virtual address that moves between stations.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use vlanfast_tests::{in_the_lab, run::daemon::Daemon};

use crate::{
    alike,
    vlan10::{
        Known,
        Station::{self, A, B, C, Host, Router},
        Vlan10, eventually, moment,
    },
};

const VIRTUAL: &str = "192.0.2.200";
const BACKUP: &str = "Entering BACKUP STATE";

/// The MAC of the virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mac {
    /// The virtual address has the master's own MAC.
    Own,
    /// The virtual address has the MAC of RFC 5798, section 7.3, on a macvlan that keepalived creates beside the
    /// container's.
    Virtual,
}

impl Mac {
    /// Returns the MAC from which a master sends.
    fn of(self, vlan10: &Vlan10, master: Station) -> Result<String> {
        match self {
            Self::Own => vlan10.mac(master),
            Self::Virtual => Ok("00:00:5e:00:01:07".to_owned()),
        }
    }
}

/// Starts keepalived and waits until it has logged `state`.
fn keepalived(
    vlan10: &Vlan10,
    station: Station,
    (mac, priority): (Mac, u8),
    state: &str,
) -> Result<Daemon> {
    let device = vlan10.device(station);
    let vmac = match mac {
        Mac::Own => "",
        Mac::Virtual => " use_vmac vrrp.7\n",
    };
    let config = format!(
        "vrrp_instance lab {{\n interface {device}\n{vmac} virtual_router_id 7\n priority {priority}\n \
         advert_int 1\n garp_master_delay 1\n virtual_ipaddress {{\n {VIRTUAL}/24\n }}\n}}\n"
    );
    let line = "exec keepalived --vrrp --dont-fork --log-console --no-syslog --log-detail \
                --use-file $DIR/config --pid $DIR/pid --vrrp_pid $DIR/vrrp";
    Daemon::start(vlan10.netns(station), line, &config, state)
}

/// Checks whether a device of a station is up and has the virtual address.
fn is_master(vlan10: &Vlan10, station: Station) -> Result<bool> {
    Ok(vlan10.run(station, "ip -4 addr show up")?.contains(VIRTUAL))
}

/// Waits until `station` is master; returns all masters at that time.
fn masters(vlan10: &Vlan10, pair: [Station; 2], station: Station) -> BTreeSet<Station> {
    eventually(20, || is_master(vlan10, station)).unwrap();
    moment();
    let is_master = |one: &Station| is_master(vlan10, *one).unwrap();
    pair.into_iter().filter(is_master).collect()
}

/// The announcements of a new master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Advertisement,
    GratuitousArp,
}

/// Captures group traffic: VRRP advertisements, and gratuitous ARP.
fn listen(vlan10: &Vlan10, observer: Station) -> Result<Daemon> {
    let line = format!(
        "exec tcpdump -l -n -e -Z root -Q in -i {} \
         'ip proto 112 or (arp and ether broadcast and arp[14:4] = arp[24:4])'",
        vlan10.device(observer)
    );
    Daemon::start(vlan10.netns(observer), &line, "", "listening on")
}

/// Returns the captured announcements that came from one MAC.
fn heard(ear: &Daemon, mac: &str) -> BTreeSet<Word> {
    let said = ear.said();
    // `12:00:00.000000 02:00:00:00:00:0b > 01:00:5e:00:00:12, ethertype IPv4 …`
    let theirs = |line: &&str| line.split_whitespace().nth(1) == Some(mac);
    let word = |line: &str| match line.contains("ethertype ARP") {
        true => Word::GratuitousArp,
        false => Word::Advertisement,
    };
    said.lines().filter(theirs).map(word).collect()
}

/// The state after one of the pair has become master.
#[derive(Debug, PartialEq, Eq)]
struct Phase {
    masters: BTreeSet<Station>,
    /// The announcements of the new master, by observer.
    heard: BTreeMap<Station, BTreeSet<Word>>,
    /// The observers' entries for the virtual address before they send a new request.
    known: BTreeMap<Station, Option<Known>>,
    /// Whether the observers' pings are answered, both before and after they delete the entry.
    reached: BTreeMap<Station, [bool; 2]>,
}

/// Has `master` become master by `change`, while `observers` capture.
fn phase(
    vlan10: &Vlan10,
    (pair, mac): ([Station; 2], Mac),
    master: Station,
    observers: &[Station],
    change: impl FnOnce(),
) -> Phase {
    let ears: Vec<_> = observers
        .iter()
        .map(|observer| (*observer, listen(vlan10, *observer).unwrap()))
        .collect();
    change();
    let masters = masters(vlan10, pair, master);
    let mac = mac.of(vlan10, master).unwrap();
    let heard = ears
        .iter()
        .map(|(observer, ear)| (*observer, heard(ear, &mac)))
        .collect();
    drop(ears);
    let mut phase = Phase {
        masters,
        heard,
        known: BTreeMap::new(),
        reached: BTreeMap::new(),
    };
    for observer in observers {
        let known = vlan10.known(*observer, VIRTUAL).unwrap();
        phase.known.insert(*observer, known);
        let before = vlan10.pings(*observer, VIRTUAL).unwrap();
        vlan10.run(*observer, "ip neigh flush dev $DEV").unwrap();
        let after = vlan10.pings(*observer, VIRTUAL).unwrap();
        phase.reached.insert(*observer, [before, after]);
    }
    phase
}

/// Runs a pair whose first station is preferred: it is master, fails, and returns.
fn take_over(
    vlan10: &Vlan10,
    pair: [Station; 2],
    observers: &[Station],
    die: &str,
    live: &str,
) -> [Phase; 3] {
    let [first, second] = pair;
    let mut daemons = Vec::new();
    let start =
        |station, priority| keepalived(vlan10, station, (Mac::Own, priority), BACKUP).unwrap();
    let begin = phase(vlan10, (pair, Mac::Own), first, observers, || {
        daemons.push(start(first, 150));
        eventually(20, || is_master(vlan10, first)).unwrap();
        daemons.insert(0, start(second, 100));
    });
    let death = phase(vlan10, (pair, Mac::Own), second, observers, || {
        // The master fails without a last advertisement, as when its machine fails.
        daemons.pop();
        vlan10.run(first, die).unwrap();
    });
    let back = phase(vlan10, (pair, Mac::Own), first, observers, || {
        vlan10.run(first, live).unwrap();
        daemons.push(start(first, 150));
    });
    [begin, death, back]
}

/// Asserts what VRRP promises to the observers: there is one master, whose announcements and answers they receive.
fn assert_master(phase: &Phase, master: Station, observers: &[Station]) {
    assert_eq!(phase.masters, [master].into());
    for observer in observers {
        let heard = &phase.heard[observer];
        let both = BTreeSet::from([Word::Advertisement, Word::GratuitousArp]);
        assert_eq!(*heard, both, "{observer:?} of {master:?}");
        assert_eq!(phase.reached[observer], [true; 2], "{observer:?}");
    }
}

/// Asserts that the observers followed the new master because of its announcements alone.
fn assert_followed(phase: &Phase, master: Station, observers: &[Station]) {
    for observer in observers {
        let known = phase.known[observer];
        assert_eq!(known, Some(Known::At(master)), "{observer:?}");
    }
}

#[test]
fn a_container_takes_over_from_the_router_and_back() {
    in_the_lab!("VRRP with the router");
    let [begin, death, back] = alike(|vlan10| {
        let die = format!("ip addr del {VIRTUAL}/24 dev $DEV");
        take_over(vlan10, [Router, A], &[Host, B, C], &die, "true")
    });
    assert_master(&begin, Router, &[Host, B, C]);
    // The host is no observer here: macvlan keeps it and its containers apart.
    assert_master(&death, A, &[B, C]);
    assert_followed(&death, A, &[B, C]);
    assert_master(&back, Router, &[Host, B, C]);
    assert_followed(&back, Router, &[Host, B, C]);
}

#[test]
fn a_container_takes_over_from_another_and_back() {
    in_the_lab!("VRRP between containers");
    let observers = [Router, C];
    let [begin, death, back] = alike(|vlan10| {
        // The former master leaves the address on a device that is down.
        let live = format!("ip addr del {VIRTUAL}/24 dev $DEV; ip link set $DEV up");
        take_over(vlan10, [A, B], &observers, "ip link set $DEV down", &live)
    });
    assert_master(&begin, A, &observers);
    for (phase, master) in [(death, B), (back, A)] {
        assert_master(&phase, master, &observers);
        assert_followed(&phase, master, &observers);
    }
}

#[test]
fn a_virtual_mac_that_is_down_in_another_container_is_reached() {
    in_the_lab!("VRRP between containers, by a virtual MAC");
    // In private mode the device is isolated from the host's other containers.
    let observers = [Router];
    let phase = alike(|vlan10| {
        let mut daemons = vec![keepalived(vlan10, A, (Mac::Virtual, 150), BACKUP).unwrap()];
        phase(vlan10, ([A, B], Mac::Virtual), A, &observers, || {
            eventually(20, || is_master(vlan10, A)).unwrap();
            // macvlan allows one device that is up per MAC and VLAN (`macvlan_addr_busy`).
            let fault = "entering FAULT state (interface vrrp.7 down)";
            daemons.push(keepalived(vlan10, B, (Mac::Virtual, 100), fault).unwrap());
            let shown = vlan10.run(B, "ip link show vrrp.7").unwrap();
            assert!(shown.contains("state DOWN"), "{shown}");
        })
    });
    assert_master(&phase, A, &observers);
}
