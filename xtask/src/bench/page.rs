//! Writes `docs/benchmarks.md`, its pictures, and the figures as JSON.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    chart::{self, Bar},
    figures::{Figures, kernel_of},
    tables::{ALL, Table, grouped},
};
use crate::sh;

/// Writes the page with its pictures and the JSON.
pub fn write(figures: &Figures) -> Result<()> {
    let docs = sh::workspace().join("docs");
    let mut page = head(figures);
    for table in ALL {
        page += &format!("\n## {}\n\n{}\n\n", table.title, wrapped(table.about));
        if let Some(column) = table.picture {
            let name = format!("{}.svg", table.name);
            put(
                &docs.join("benchmarks").join(&name),
                &picture(table, column, figures),
            )?;
            page += &format!("![{}](benchmarks/{name})\n\n", table.title);
        }
        page += &table.markdown(figures);
        page += &format!("\n`--only {}`\n", table.name);
    }
    put(&docs.join("benchmarks.md"), &page)?;
    let mut json = figures.json();
    json["units"] = ALL
        .iter()
        .map(|table| (table.name.to_owned(), json!(table.unit.name())))
        .collect();
    let json = serde_json::to_string_pretty(&json)?;
    put(&docs.join("benchmarks.json"), &(json + "\n"))
}

fn put(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("failed to make {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn head(figures: &Figures) -> String {
    format!(
        "{INTRODUCTION}\nMeasured with vlanfast {} on Linux {}; natively on Linux {}.\n",
        env!("CARGO_PKG_VERSION"),
        figures.kernels.join(" and "),
        figures.native
    )
}

const INTRODUCTION: &str = "\
# What a packet costs

Written by `cargo xtask bench`; do not edit. The same figures for programs:
[benchmarks.json](benchmarks.json).

The unit is *instructions*: Debian's kernel runs in QEMU with `-icount`, whose clock counts one
nanosecond for each instruction of the guest, in the kernel and outside. So two runs, on any machine,
agree within 1 % on every figure in instructions, most within 0.1 %; `cargo xtask bench --compare FILE`
names those that differ by more from an earlier run's JSON. They say how much work there
is, and not how long it takes: cache misses, branch prediction and the speed of single instructions are
not in them, nor is what a NIC does. A figure is the mean over rounds of 1,024 packets, without the
cheapest and the dearest tenth of the rounds. Of a bridge, it is the mean of 16: each hashes with a secret
of its own.

Not instructions, and not that exact, are shares in percent (a storm is chaos, and a share is of one), what
is measured on this machine's own kernel, and the daemon's memory and start.

    router: wire ══ trunk :host: trunk.10 ── macvlan ── eth0 :container

The wire is a veth pair between network namespaces whose ends poll as the driver of a NIC does.
Addresses are static. *vlanfast* is the release build, with `--docker off --metrics off`; whatever
attaches to the trunk stands on the kernel's own path, which is the first row. *Empty programs* are the
least that vlanfast's could cost in their places, and *empty TC programs elsewhere*, on `lo`, are what the
kernel charges every packet for there being any TC program. The alternatives lead
from the same trunk to a container without macvlan: *ipvlan L2* on the VLAN device; a *bridge* with
VLAN filtering; the kernel datapath of *Open vSwitch* with the two flows of the container (and no daemon);
and a TC program that pops the tag and goes straight into the container by `bpf_redirect_peer`, which
takes a veth.

Rows with *Linux 6.1* are the kernel alone there and, in the tables that matter most, vlanfast; they are
compared with the kernel alone of 6.1. It does not give the pages of the injected frames back to their
pool, so the rows that receive them pay for new ones.
";

fn picture(table: &Table, column: &str, figures: &Figures) -> String {
    let bars: Vec<Bar> = table
        .rows(figures)
        .into_iter()
        .filter(|row| !row.starts_with('(') && kernel_of(row).is_none())
        .filter_map(|label| {
            let value = figures.value(table.name, label, column)?;
            let shown = grouped(value);
            Some(Bar {
                label,
                value,
                shown,
            })
        })
        .collect();
    let title = format!("{}, {column}: {}", table.title, table.unit.name());
    chart::bars(&title, &bars)
}

/// Wraps text to lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| line.chars().count() + word.chars().count() >= 100);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
