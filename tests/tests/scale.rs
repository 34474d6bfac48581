//! Level `vm`: a host of the largest size, with 4,094 VLAN devices, 4,096 macvlans and 1,000 namespaces. The test
//! prints its measurements; it asserts that every entry appears and disappears again.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use vlanfast_tests::{
    net::{
        namespace::{ManyNamespaces, Netns, run},
        topology::Wire,
    },
    require,
    run::{
        pinned_tables::PinnedTables,
        pins::pins,
        program::{Attached, detach},
        require::in_the_lab,
    },
};

const VLANS: u16 = 4094;
const NAMESPACES: usize = 1000;
const MACVLANS: usize = 4096;
/// The port is not the default one, which another test may hold.
const METRICS: &str = "127.0.0.1:9439";

fn attach(wire: &Wire) -> Attached {
    let arguments = ["--docker", "off", "--on-exit", "keep", "--metrics", METRICS];
    Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
}

/// Returns the median time from adding an address in a namespace to its entry.
fn one_change(wire: &Wire, inside: &Netns, mac: [u8; 6]) -> Duration {
    let map = PinnedTables::open(&wire.trunk).unwrap();
    let mut took = vec![];
    for number in 0..11 {
        let address = format!("198.51.100.{}", number + 1);
        let start = Instant::now();
        inside
            .run(&format!("ip addr add {address}/32 dev probe"))
            .unwrap();
        let changed = Instant::now();
        while !map.has(0, mac, address.parse().unwrap()).unwrap() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{address} never came"
            );
            thread::sleep(Duration::from_micros(200));
        }
        took.push(changed.elapsed());
        inside
            .run(&format!("ip addr del {address}/32 dev probe"))
            .unwrap();
    }
    took.sort();
    took[took.len() / 2]
}

/// Returns a line of `/proc/PID/status`, in MB.
fn memory(attached: &Attached, what: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", attached.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024.0
}

/// Returns the memory that the kernel accounts for a map, in bytes.
fn map_memory(trunk: &str, name: &str) -> u64 {
    use std::os::fd::{AsFd, AsRawFd};
    let map = MapData::from_pin(pins(trunk).join(name)).unwrap();
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(info).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("memlock:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Scrapes once; returns the duration and the text.
fn scrape() -> (Duration, String) {
    let start = Instant::now();
    let mut stream = TcpStream::connect(METRICS).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (start.elapsed(), text)
}

fn cpu_time(attached: &Attached) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", attached.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    // The fields are utime and stime, in ticks of 10 ms (proc_pid_stat(5)).
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[test]
fn a_large_host_is_followed() {
    require!("scale", in_the_lab(), "needs the lab's virtual machine");
    let wire = Wire::here().unwrap();
    let (host, trunk) = (&wire.host, &wire.trunk);
    let probe = Netns::new().unwrap();
    let mac = [2, 0, 0, 9, 9, 9];
    host.run(&format!(
        "ip link add link {trunk} name probe netns {} address 02:00:00:09:09:09 type macvlan mode bridge",
        probe.name
    ))
    .unwrap();
    probe.run("ip link set probe up").unwrap();
    let attached = attach(&wire);
    let alone = one_change(&wire, &probe, mac);
    attached.stop().unwrap();

    let namespaces = make_a_large_host(&wire);
    let started = Instant::now();
    let attached = attach(&wire);
    println!(
        "figure: first sync of it: {:.2} s until attached, {:.2} s of CPU",
        started.elapsed().as_secs_f64(),
        cpu_time(&attached).as_secs_f64()
    );
    has_all_endpoints(&attached);
    println!(
        "figure: one change, from its command's end to the entry, median: {:.1} ms with 1 endpoint, \
         {:.1} ms with {}",
        alone.as_secs_f64() * 1e3,
        one_change(&wire, &probe, mac).as_secs_f64() * 1e3,
        MACVLANS + 1
    );
    say_how_much_memory_it_takes(&attached, trunk);
    is_scraped(&wire, &probe, mac);

    drop(namespaces);
    let start = Instant::now();
    while attached.endpoints().unwrap().len() > 1 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "endpoints stay though their namespaces are gone"
        );
        thread::sleep(Duration::from_millis(500));
    }
    attached.stop().unwrap();
    detach(host, trunk).unwrap();
}

/// Creates the VLAN devices and, in many namespaces, the macvlans on them.
fn make_a_large_host(wire: &Wire) -> ManyNamespaces {
    let (host, trunk) = (&wire.host, &wire.trunk);
    let made = Instant::now();
    let vlans: String = (1..=VLANS)
        .map(|vid| format!("link add link {trunk} name v{vid} type vlan id {vid}\n"))
        .collect();
    batch(host, &vlans);
    let namespaces = ManyNamespaces::new(NAMESPACES).unwrap();
    let macvlans: String = (0..MACVLANS)
        .map(|number| {
            let vid = number % usize::from(VLANS) + 1;
            let netns = namespaces.name(number % NAMESPACES);
            format!("link add link v{vid} name m{number} netns {netns} type macvlan mode bridge\n")
        })
        .collect();
    batch(host, &macvlans);
    println!(
        "figure: making {VLANS} VLAN devices and {MACVLANS} macvlans in {NAMESPACES} namespaces took {:.0} s",
        made.elapsed().as_secs_f64()
    );
    namespaces
}

/// Checks that the tables have every macvlan, and the earlier one.
fn has_all_endpoints(attached: &Attached) {
    let status = attached.status().unwrap();
    let count: u64 = status["vlans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vlan| vlan["endpoints"].as_u64().unwrap())
        .sum();
    assert_eq!(count, MACVLANS as u64 + 1);
    assert_eq!(
        status["vlans"].as_array().unwrap().len(),
        usize::from(VLANS) + 1
    );
}

fn say_how_much_memory_it_takes(attached: &Attached, trunk: &str) {
    println!(
        "figure: memory of the process: {:.1} MB, {:.1} MB at most",
        memory(attached, "VmRSS"),
        memory(attached, "VmHWM")
    );
    let maps: Vec<_> = [
        "COUNTERS",
        "VLANS",
        "ENDPOINTS",
        "NEIGHBORS",
        "SETTINGS",
        "STATUS",
    ]
    .map(|name| format!("{name} {:.0} kB", map_memory(trunk, name) as f64 / 1024.0))
    .into();
    println!("figure: kernel memory of the maps: {}", maps.join(", "));
}

/// Measures the duration of scrapes, and that of a change during continuous scrapes.
fn is_scraped(wire: &Wire, probe: &Netns, mac: [u8; 6]) {
    let mut scrapes: Vec<_> = (0..11).map(|_| scrape()).collect();
    scrapes.sort_by_key(|(took, _)| *took);
    let (took, text) = &scrapes[scrapes.len() / 2];
    println!(
        "figure: a scrape of {} lines takes {:.0} ms, median of {}; {:.0} ms at most",
        text.lines().count(),
        took.as_secs_f64() * 1e3,
        scrapes.len(),
        scrapes[scrapes.len() - 1].0.as_secs_f64() * 1e3
    );
    let scraping = Arc::new(AtomicBool::new(true));
    let scraper = thread::spawn({
        let scraping = Arc::clone(&scraping);
        move || {
            while scraping.load(Ordering::Relaxed) {
                scrape();
            }
        }
    });
    println!(
        "figure: one change while a scrape follows the other: {:.1} ms",
        one_change(wire, probe, mac).as_secs_f64() * 1e3
    );
    scraping.store(false, Ordering::Relaxed);
    scraper.join().unwrap();
    assert_eq!(
        text.matches("\nvlanfast_endpoint_info{").count(),
        MACVLANS + 1
    );
}

/// Runs a batch of `ip` in a namespace.
fn batch(netns: &Netns, lines: &str) {
    let file = format!("/tmp/{}.batch", netns.name);
    fs::write(&file, lines).unwrap();
    // `ip` keeps open every namespace that it names.
    netns
        .run(&format!("ulimit -n 65536 && ip -batch {file}"))
        .unwrap();
    run(&format!("rm {file}")).unwrap();
}
