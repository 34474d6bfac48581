//! `vlanfast flows`: shows or forgets the flows that `--shortcut learned` has learnt.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use serde::Serialize;
use vlanfast_common::{Flow, FlowKey, Shortcut};

use crate::{
    cli::{FlowsArgs, FlowsCommand},
    cmd::trunks::attached,
    hooks::check_requirements,
    maps::{flows::FlowMap, tables},
    output,
    pins::Pins,
    state::name::Name,
};

/// The shape of a row of `flows --json`.
#[derive(Debug, PartialEq, Serialize)]
struct FlowRow {
    trunk: String,
    /// The VLAN of the source.
    from: u16,
    /// The VLAN of the destination.
    to: u16,
    protocol: &'static str,
    source: IpAddr,
    destination: IpAddr,
    /// Null for an ICMP echo.
    source_port: Option<u16>,
    /// Null for an ICMP echo.
    destination_port: Option<u16>,
    /// The identifier of an ICMP echo; null for other protocols.
    identifier: Option<u16>,
    state: &'static str,
    /// Packets that took the shortcut.
    packets: u64,
    /// Bytes that took the shortcut.
    bytes: u64,
    /// The time since the last packet.
    idle_seconds: u64,
    /// The time since the router last sent a probe on; null for never.
    answered_seconds: Option<u64>,
}

pub async fn run(args: &FlowsArgs) -> anyhow::Result<()> {
    check_requirements()?;
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
    let notes: Vec<_> = trunks.iter().map(learns_none).collect::<Result<_, _>>()?;
    for note in notes.iter().flatten() {
        output::text(note)?;
    }
    match notes.contains(&None) {
        true => output::text(&table(&rows)),
        // No trunk learns flows.
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

/// A note if a trunk learns no flows.
fn learns_none(pins: &Pins) -> anyhow::Result<Option<String>> {
    let shortcut = Shortcut::from_number(tables::settings(pins)?.policy.shortcut);
    Ok((shortcut != Shortcut::Learned).then(|| {
        format!(
            "{}: learns no flows, because it was attached with --shortcut {}\n",
            pins.trunk,
            shortcut.name()
        )
    }))
}

/// The flows of a trunk, those with most packets first.
fn read(pins: &Pins) -> anyhow::Result<Vec<FlowRow>> {
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

fn row(trunk: &str, key: &FlowKey, flow: &Flow, now: u64) -> Option<FlowRow> {
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
    Some(FlowRow {
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

fn table(rows: &[FlowRow]) -> String {
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

    /// A flow with the times asked, answered, moved and seen, in seconds.
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
    fn expired_flows_are_not_shown() {
        let shown = |times| row("eth0", &key(17, [1, 2]), &flow(times), 100 * SECOND).is_some();
        assert!(shown([96, 0, 0, 96]) && !shown([95, 0, 0, 95]));
        assert!(shown([50, 51, 0, 41]) && !shown([50, 51, 0, 40]));
        assert!(shown([50, 50, 50, 41]) && !shown([50, 50, 50, 40]));
    }
}
