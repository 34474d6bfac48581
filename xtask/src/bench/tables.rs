//! The tables of the page: their descriptions, and how their figures are written.

use anyhow::{Result, bail};

use super::figures::{Cell, Figures, kernel_of};

/// One table. The file of the same name in `bench/src/tables/` measures it.
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// The description of the measurement and of the figures, in Markdown.
    pub about: &'static str,
    /// The column that is drawn as a picture.
    pub picture: Option<&'static str>,
    /// Whether a whole run measures vlanfast on the older kernel too, because the project promises a figure for it
    /// there.
    pub promised: bool,
    /// Whether the table runs on this machine's kernel and not in the lab.
    pub native: bool,
    /// Whether the table runs in a guest whose NICs are on taps and merge packets.
    pub taps: bool,
}

/// The unit of the numbers, and the comparison that follows each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Instructions, and the difference from the first row of the same kernel.
    Instructions,
    /// Instructions, and the ratio to that row.
    Times,
    /// Frames per second, and the ratio to that row.
    Rate,
    Percent,
    Plain,
    /// The unit that the column names, and the ratio to that row.
    Ratio,
}

impl Unit {
    /// Whether the same work gives the same number again.
    pub const fn is_instructions(self) -> bool {
        matches!(self, Self::Instructions | Self::Times)
    }

    /// Returns the label on the axis of a picture.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instructions | Self::Times => "instructions",
            Self::Rate => "frames/s",
            Self::Percent => "%",
            Self::Plain | Self::Ratio => "as the row or column says",
        }
    }
}

const TABLE: Table = Table {
    name: "",
    title: "",
    unit: Unit::Instructions,
    about: "",
    picture: None,
    promised: false,
    native: false,
    taps: false,
};

/// All tables, in the order of the page.
pub const ALL: &[Table] = &[
    Table {
        name: "wire-to-container",
        title: "Unicast, from the wire into a container",
        about: "Instructions for a 64-byte UDP datagram with a tag, in bursts of 64, as a NIC with native \
                XDP delivers them. *To the device*: the datagram's IP checksum is wrong, so it ends where \
                the container's stack first looks at it. *To a socket's reader*: read by `recv` in the \
                container, one system call each. The generator's own cost, in the first row, is \
                subtracted from the others.",
        picture: Some("to the device"),
        promised: true,
        ..TABLE
    },
    Table {
        name: "wire-to-neighbour",
        title: "Unicast, from the wire to a macvlan in the trunk's own namespace",
        about: "The same frames for a macvlan that stays where the trunk is, as a virtual machine's does. \
                *Redirecting*: with `--deliver redirect`, by TC straight to the device. The kernel queues what \
                is redirected and starts over with it, which costs more than its own path saves.",
        ..TABLE
    },
    Table {
        name: "container-to-wire",
        title: "Unicast, from a container to the wire",
        about: "Instructions for a UDP datagram of 64 bytes on the wire, from `send` in the container \
                to the far end of the wire, which has no device for the VLAN and drops it: the same \
                in every row. What the same `send` costs into a dummy device, in the \
                first row, is subtracted from the others. XDP has no part in it.",
        picture: Some("to the wire"),
        ..TABLE
    },
    Table {
        name: "tcp-bulk",
        title: "TCP in bulk",
        about: "Instructions per megabyte of payload, both ends of the connection and both their system \
                calls included. Into the container, the wire carries packets of 1,500 bytes and the trunk \
                merges them (GRO); out of it, the trunk takes whole buffers, as a NIC with TSO does. \
                No row for XDP: a veth turns what its peer's stack sends into XDP frames by copying, which \
                no NIC does.",
        unit: Unit::Times,
        ..TABLE
    },
    Table {
        name: "virtio-bulk",
        title: "TCP in bulk, into a virtual machine",
        about: "A virtio NIC that gets whole buffers from its host (`rx-gro-hw`), as most do: two of them on taps \
                that the host bridges. Per megabyte into the container, how many buffers the driver hands on, and the \
                instructions of the guest, which is both ends. *Auto* takes TC there, because the driver gives those \
                buffers up for XDP. The median of five connections, by turns. The host's bridge has a clock of its \
                own: what depends on its moment, such as how many buffers are acknowledged at once, differs from one \
                run to the next by some percent.",
        unit: Unit::Ratio,
        promised: true,
        taps: true,
        ..TABLE
    },
    Table {
        name: "broadcast-arp",
        title: "A broadcast ARP request, by the number of containers on its VLAN",
        about: "Instructions for one request from the wire for a host that does not exist, until every \
                container's stack has looked at it. *Over the limit*: with `--storm-limit 1`, so that all \
                but one request a second are dropped at the trunk; that they reach nobody is the point. \
                Where nothing is limited, a figure is only shown if every request reached the container: \
                what is lost on its way is cheap.",
        picture: Some("200 containers"),
        promised: true,
        ..TABLE
    },
    Table {
        name: "steered-arp",
        title: "A broadcast ARP request for a container that is there",
        about: "Instructions for one request from the wire, by the number of containers on its VLAN, \
                until all that it reaches have looked at it and the one that it is for has answered. \
                The answer's way to the far end of the wire is included.",
        picture: Some("200 containers"),
        ..TABLE
    },
    Table {
        name: "arp-answered",
        title: "ARP requests answered in a storm",
        about: "The share, in percent, of the ARP requests for containers that were answered, while \
                31 of 32 requests at the given rate are for hosts that do not exist. One CPU that runs \
                10⁹ instructions/s does everything, the sender included, which is why the last rate is \
                what it tries and not what it attains. vlanfast with its defaults: requests for containers \
                are steered to them, and of the others 2,000/s pass. A share is of one storm of a second: \
                it tells a VLAN that works from one that does not, and is not exact to the percent.",
        unit: Unit::Percent,
        picture: Some("20000 requests/s"),
        promised: true,
        ..TABLE
    },
    Table {
        name: "ns-answered",
        title: "Neighbour solicitations answered in a storm",
        about: "The same for IPv6. A solicitation is multicast to a group that its target's last 24 bits \
                choose, and macvlan copies it to the containers that have the group and to a few others, \
                because its filter is a hash. The absent hosts are in another prefix and end as the \
                containers do. *A group each*: every container ends differently, so that a request is \
                copied to a few of them, which the kernel alone can do. *One group*: all of them end \
                alike, as where they are numbered before the last 24 bits, and each request is copied to \
                all of them.",
        unit: Unit::Percent,
        promised: true,
        ..TABLE
    },
    Table {
        name: "arp-answered-native",
        title: "ARP requests answered in a storm, on this machine",
        about: "The same on the kernel and the CPUs of the machine that wrote this page, untagged. The \
                best of three storms of half a second, because other work runs there.",
        unit: Unit::Percent,
        native: true,
        ..TABLE
    },
    Table {
        name: "unwanted",
        title: "Frames for nobody here",
        about: "Instructions for a 64-byte frame of a VLAN that has no device, and for one of a VLAN that \
                has, but with a destination MAC that is nobody's. *Shedding*: with `--shed mac`, which drops \
                both. Otherwise vlanfast passes both, and the kernel drops them. What only drops shows how much \
                of each figure is the veth's: it hands the frame on before any program sees it, which is \
                the driver's part on a NIC.",
        picture: Some("a VLAN that nobody has"),
        promised: true,
        ..TABLE
    },
    Table {
        name: "unwanted-native",
        title: "Frames for nobody here, on this machine",
        about: "The same on the kernel and the CPU of the machine that wrote this page, in frames/s. \
                The fastest of the rounds, because other work runs there. Compare rows, not machines; \
                the generator's own time is subtracted. The MAC is asked for untagged, and there nothing is \
                shed.",
        unit: Unit::Rate,
        native: true,
        ..TABLE
    },
    Table {
        name: "between",
        title: "Between two ends on one host",
        about: "Instructions for a UDP datagram from `send` to `recv`, and for one there and one back. \
                The router forwards between VLANs in a namespace of its own; there is no wire's delay, \
                so a real router costs more. *By the shortcut*: `--shortcut allow`, from the VLANs' own devices; \
                *learnt*: `--shortcut learned`, from the trunk. *A bare program* takes every packet for one \
                that the router would send on, and does nothing but look up where to, rewrite and redirect; \
                on VLAN devices that is before 8021q and the trunk's queue. \
                *Host access*: `--host-access all`, without which host and container do not reach each other. \
                *To the router itself* is what leaves by the wire all the same.",
        unit: Unit::Times,
        promised: true,
        ..TABLE
    },
    Table {
        name: "between-bulk",
        title: "TCP in bulk between two ends on one host",
        about: "Instructions for a megabyte, sent and read. *Container to container* and *by the router*: the \
                kernel alone; the others by host access or by the shortcut.",
        unit: Unit::Times,
        ..TABLE
    },
    Table {
        name: "ping",
        title: "Ping past a router that takes its time",
        about: "A router that keeps each packet for 0.5 ms (netem), which is no instruction's time; of 101 pings the \
                median, as `ping` sees it. The guest's clock counts instructions, 1 ns each.",
        unit: Unit::Plain,
        ..TABLE
    },
    Table {
        name: "programs",
        title: "The programs",
        about: "As the kernel has loaded them.",
        unit: Unit::Plain,
        ..TABLE
    },
    Table {
        name: "daemon",
        title: "The daemon",
        about: "Of the release build, with a trunk that has no VLANs yet.",
        unit: Unit::Plain,
        ..TABLE
    },
];

/// Returns all tables, or the requested ones.
pub fn chosen(only: &[String]) -> Result<Vec<&'static Table>> {
    let known = |name: &String| ALL.iter().any(|table| table.name == name);
    if let Some(name) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ALL.iter().map(|table| table.name).collect();
        bail!("there is no table {name}: take one of {}", names.join(", "))
    }
    let wanted = |table: &&Table| only.is_empty() || only.iter().any(|name| name == table.name);
    Ok(ALL.iter().filter(wanted).collect())
}

impl Table {
    pub fn rows<'a>(&self, figures: &'a Figures) -> Vec<&'a str> {
        figures.names(self.name, |figure| &figure.row)
    }

    pub fn columns<'a>(&self, figures: &'a Figures) -> Vec<&'a str> {
        figures.names(self.name, |figure| &figure.column)
    }

    /// Returns the row with which a row is compared: the first of its kernel. Rows in brackets are what was
    /// subtracted.
    fn base(&self, figures: &Figures, row: &str, column: &str) -> Option<f64> {
        let mut rows = self.rows(figures).into_iter();
        let first =
            rows.find(|first| !first.starts_with('(') && kernel_of(first) == kernel_of(row))?;
        figures.value(self.name, first, column)
    }

    pub fn markdown(&self, figures: &Figures) -> String {
        let columns = self.columns(figures);
        let mut text = format!(
            "| | {} |\n|---|{}\n",
            columns.join(" | "),
            "---:|".repeat(columns.len())
        );
        for row in self.rows(figures) {
            let cells: Vec<String> = columns
                .iter()
                .map(|column| match figures.cell(self.name, row, column) {
                    Some(Cell::Value(value)) if row.starts_with('(') => grouped(*value),
                    Some(Cell::Value(value)) => self.value(*value, self.base(figures, row, column)),
                    Some(Cell::None(why)) => why.clone(),
                    None => "–".to_owned(),
                })
                .collect();
            text += &format!("| {row} | {} |\n", cells.join(" | "));
        }
        text
    }

    fn value(&self, value: f64, base: Option<f64>) -> String {
        let plain = match self.unit {
            Unit::Percent => format!("{value:.1}"),
            _ => grouped(value),
        };
        let Some(base) = base.filter(|base| *base != value) else {
            return plain;
        };
        match self.unit {
            Unit::Instructions => {
                let more = value.round() - base.round();
                let sign = if more < 0.0 { "−" } else { "+" };
                format!("{plain} ({sign}{})", grouped(more.abs()))
            }
            Unit::Times | Unit::Rate | Unit::Ratio => format!("{plain} (×{:.3})", value / base),
            Unit::Percent | Unit::Plain => plain,
        }
    }
}

/// Writes a whole number with separated thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < -0.5 {
        format!("−{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::figures::Figure, vm::Kernel};

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(7.4), "7");
        assert_eq!(grouped(1234.0), "1,234");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(grouped(-12345.0), "−12,345");
    }

    #[test]
    fn a_row_is_compared_with_the_first_of_its_kernel() {
        let mut figures = Figures::default();
        for (kernel, row, value) in [
            (Kernel::V6_12, "(itself)", 1.0),
            (Kernel::V6_12, "a", 10.0),
            (Kernel::V6_12, "b", 12.0),
            (Kernel::V6_1, "(itself)", 2.0),
            (Kernel::V6_1, "a", 20.0),
            (Kernel::V6_1, "b", 25.0),
        ] {
            let (table, row, column) = ("".into(), row.into(), "x".into());
            let cell = Cell::Value(value);
            figures.add(
                kernel,
                Figure {
                    table,
                    row,
                    column,
                    cell,
                },
            );
        }
        let text = TABLE.markdown(&figures);
        for row in [
            "| a | 10 |",
            "| b | 12 (+2) |",
            "| (itself), Linux 6.1 | 2 |",
            "| a, Linux 6.1 | 20 |",
            "| b, Linux 6.1 | 25 (+5) |",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }

    #[test]
    fn every_table_has_a_name_of_its_own() {
        for (place, table) in ALL.iter().enumerate() {
            assert!(ALL[..place].iter().all(|other| other.name != table.name));
        }
    }
}
