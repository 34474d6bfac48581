//! Pings, and the counters of a namespace's IPv4 and TCP.

use anyhow::{Context, Result, ensure};

use crate::net::namespace::Netns;

/// Returns a counter of a namespace's IPv4 and TCP; counters with one name in several protocols are added up.
pub fn counter(netns: &Netns, name: &str) -> Result<u64> {
    let text = netns.run("cat /proc/net/snmp /proc/net/netstat")?;
    let lines: Vec<_> = text.lines().collect();
    let values: Vec<u64> = lines
        .chunks(2)
        .flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| Ok(value.parse()?))
        .collect::<Result<_>>()?;
    ensure!(!values.is_empty(), "there is no {name}");
    Ok(values.iter().sum())
}

/// Returns the output of a ping with a count and further options.
pub fn ping(from: &Netns, address: &str, count: u32, options: &str) -> Result<String> {
    from.run(&format!(
        "ping -n -c {count} -i 0.01 -W 2 {options} {address} || true"
    ))
}

/// Checks whether every request was answered exactly once.
pub fn is_whole(said: &str) -> bool {
    said.contains(" 0% packet loss") && !said.contains("DUP!")
}

/// Returns the median of the round trips that a ping prints, in milliseconds.
pub fn median_time(said: &str) -> Result<f64> {
    let times = said.split("time=").skip(1);
    let times = times.map(|rest| Ok(rest.split(' ').next().unwrap_or_default().parse()?));
    let mut times = times.collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied();
    median.with_context(|| format!("a ping that was answered: {said}"))
}
