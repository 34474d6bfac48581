//! `vlanfast flows`: what `--shortcut learned` has learnt of the router.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use serde::Serialize;
use vlanfast_common::{Flow, FlowKey, Shortcut};

use super::attached;
use crate::{
    cli::{FlowsArgs, FlowsCommand},
    hooks::check_kernel,
    maps::{flows::FlowMap, tables},
    output,
    pins::Pins,
    state::name::Name,
};

/// The shape of a row of `flows --json`.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    trunk: String,
    /// The VLANs of source and destination.
    from: u16,
    to: u16,
    protocol: &'static str,
    source: IpAddr,
    destination: IpAddr,
    /// Null for an echo.
    source_port: Option<u16>,
    destination_port: Option<u16>,
    /// An echo's; null for others.
    identifier: Option<u16>,
    state: &'static str,
    /// That took the shortcut.
    packets: u64,
    bytes: u64,
    /// Since its last packet.
    idle_seconds: u64,
    /// Since the router last answered; null for never.
    answered_seconds: Option<u64>,
}

pub async fn run(args: &FlowsArgs) -> anyhow::Result<()> {
    check_kernel()?;
    if let Some(FlowsCommand::Flush { trunk }) = &args.command {
        return flush(trunk.as_ref()).await;
    }
    let mut rows = vec![];
    let trunks = attached(args.trunk.as_ref()).await?;
    for pins in &trunks {
        rows.extend(read(pins)?);
    }
    if args.json {
        return output::json(&rows);
    }
    let notes: Vec<_> = trunks.iter().map(without).collect::<Result<_, _>>()?;
    for note in notes.iter().flatten() {
        output::text(note)?;
    }
    match notes.contains(&None) {
        true => output::text(&table(&rows)),
        // None that learns any.
        false => Ok(()),
    }
}

async fn flush(trunk: Option<&Name>) -> anyhow::Result<()> {
    for pins in attached(trunk).await? {
        let count = FlowMap::open(&pins)?.flush()?;
        output::text(&format!("{}: {count} flows forgotten\n", pins.trunk))?;
    }
    Ok(())
}

/// Why a trunk has none.
fn without(pins: &Pins) -> anyhow::Result<Option<String>> {
    let shortcut = Shortcut::from_number(tables::settings(pins)?.policy.shortcut);
    Ok((shortcut != Shortcut::Learned).then(|| {
        format!(
            "{}: learns no flows, it was attached with --shortcut {}\n",
            pins.trunk,
            shortcut.name()
        )
    }))
}

/// The busiest first.
fn read(pins: &Pins) -> anyhow::Result<Vec<Row>> {
    let flows = FlowMap::open(pins)?.read_all()?;
    let now = tables::now()?.as_nanos() as u64;
    let trunk = pins.trunk.to_string();
    let mut rows: Vec<_> = flows
        .iter()
        .filter_map(|(key, flow)| row(&trunk, key, flow, now))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    Ok(rows)
}

fn row(trunk: &str, key: &FlowKey, flow: &Flow, now: u64) -> Option<Row> {
    let state = flow.state(now)?;
    let [first, second] = key.ports;
    let (protocol, is_echo) = match key.protocol {
        6 => ("tcp", false),
        17 => ("udp", false),
        1 => ("icmp", true),
        _ => ("icmpv6", true),
    };
    let seconds = |then: u64| now.saturating_sub(then) / 1_000_000_000;
    let answered = flow.answered.load(Relaxed);
    Some(Row {
        trunk: trunk.to_owned(),
        from: key.vid,
        to: flow.receiver_vid(),
        protocol,
        source: key.source(),
        destination: key.destination(),
        source_port: (!is_echo).then_some(first),
        destination_port: (!is_echo).then_some(second),
        identifier: is_echo.then_some(second),
        state: state.name(),
        packets: flow.packets.load(Relaxed),
        bytes: flow.bytes.load(Relaxed),
        idle_seconds: seconds(flow.seen.load(Relaxed)),
        answered_seconds: (answered != 0).then(|| seconds(answered)),
    })
}

fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 10] = [
        "trunk",
        "vlans",
        "protocol",
        "source",
        "destination",
        "state",
        "packets",
        "bytes",
        "idle",
        "answered",
    ];
    let end = |address: IpAddr, port: Option<u16>| match (address, port) {
        (address, None) => address.to_string(),
        (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    };
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        let answered = match row.answered_seconds {
            Some(seconds) => format!("{seconds} s ago"),
            None => "never".into(),
        };
        lines.push(vec![
            row.trunk.clone(),
            format!("{}:{}", row.from, row.to),
            row.protocol.into(),
            end(row.source, row.source_port),
            end(row.destination, row.destination_port),
            row.state.into(),
            row.packets.to_string(),
            row.bytes.to_string(),
            format!("{} s", row.idle_seconds),
            answered,
        ]);
    }
    output::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(protocol: u8, ports: [u16; 2]) -> FlowKey {
        let mut key = FlowKey {
            ports,
            vid: 10,
            protocol,
            version: 4,
            ..FlowKey::default()
        };
        key.source[..4].copy_from_slice(&[10, 0, 10, 2]);
        key.destination[..4].copy_from_slice(&[10, 0, 20, 2]);
        key
    }

    /// IngressMode, answered, moved and seen, in seconds, and nothing else.
    fn flow([asked, answered, moved, seen]: [u64; 4]) -> Flow {
        let times = [asked, answered, moved, seen].map(|time| time * SECOND);
        let [asked, answered, moved, seen] = times;
        let receiver = 20 << 48;
        Flow::from([
            asked, answered, moved, seen, 7, 700, 0, 0, 0, 0, 0, receiver,
        ])
    }

    #[test]
    fn json_keeps_its_shape() {
        let now = 100 * SECOND;
        let tcp = row("eth0", &key(6, [5000, 80]), &flow([90, 91, 92, 99]), now);
        assert_eq!(
            serde_json::to_value(tcp.unwrap()).unwrap(),
            serde_json::json!({
                "trunk": "eth0", "from": 10, "to": 20, "protocol": "tcp",
                "source": "10.0.10.2", "destination": "10.0.20.2",
                "source_port": 5000, "destination_port": 80, "identifier": null,
                "state": "shortcut", "packets": 7, "bytes": 700,
                "idle_seconds": 1, "answered_seconds": 9,
            })
        );
        let echo = row("eth0", &key(1, [0x800, 77]), &flow([99, 0, 0, 99]), now).unwrap();
        assert_eq!((echo.protocol, echo.state), ("icmp", "candidate"));
        assert_eq!((echo.source_port, echo.identifier), (None, Some(77)));
        assert_eq!(echo.answered_seconds, None);
    }

    #[test]
    fn what_the_next_packet_would_begin_anew_is_not_shown() {
        let shown = |times| row("eth0", &key(17, [1, 2]), &flow(times), 100 * SECOND).is_some();
        assert!(shown([96, 0, 0, 96]) && !shown([95, 0, 0, 95]));
        assert!(shown([50, 51, 0, 41]) && !shown([50, 51, 0, 40]));
        assert!(shown([50, 50, 50, 41]) && !shown([50, 50, 50, 40]));
    }
}
