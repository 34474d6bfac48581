//! One file for each table. To add a column to one, print another figure there.

mod answered;
mod between;
mod bulk;
mod group;
mod size;
mod unicast;
mod unwanted;
mod virtio;

use anyhow::Result;

use crate::bench::Bench;

/// A table's name, on the command line too, and what measures it.
type Table = (&'static str, fn(&mut Bench) -> Result<()>);

pub const ALL: &[Table] = &[
    ("wire-to-container", unicast::to_container),
    ("wire-to-neighbour", unicast::to_neighbour),
    ("container-to-wire", unicast::to_wire),
    ("tcp-bulk", bulk::bulk),
    ("virtio-bulk", virtio::bulk),
    ("broadcast-arp", group::cost),
    ("steered-arp", group::steered),
    ("arp-answered", answered::arp),
    ("ns-answered", answered::solicitations),
    ("arp-answered-native", answered::natively),
    ("unwanted", unwanted::unwanted),
    ("unwanted-native", unwanted::natively),
    ("between", between::between),
    ("between-bulk", between::bulk),
    ("ping", between::ping),
    ("programs", size::programs),
    ("daemon", size::daemon),
];
