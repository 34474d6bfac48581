//! Decodes rtnetlink messages about qdiscs and filters (`struct tcmsg` and its attributes).

use crate::{
    netlink::{
        attrs::{Attributes, Malformed, Value, word},
        decode::{Undecodable, ifindex},
    },
    state::{name::Name, snapshot::Ifindex},
};

/// The length of `struct tcmsg`.
const HEADER: usize = 20;

/// `include/uapi/linux/rtnetlink.h`.
pub const TCA_KIND: u16 = 1;
pub const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
/// `include/uapi/linux/pkt_cls.h`.
pub const TCA_BPF_NAME: u16 = 7;
pub const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The kind, for example `clsact`, `ingress` or `mq`.
    pub kind: Name,
    pub handle: u32,
    pub parent: u32,
}

/// A filter at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The kind, for example `bpf`, `matchall` or `u32`.
    pub kind: Name,
    pub priority: u16,
    pub handle: u32,
    pub chain: u32,
    /// The program of a `bpf` filter.
    pub program: Option<Program>,
    /// Whether the filter may do more than classify a frame, for example drop it.
    pub acts: bool,
}

/// A BPF program, as shown by its filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub id: u32,
    /// The name that was given when the filter was added.
    pub name: Name,
}

/// Decodes a qdisc and its device.
pub fn qdisc(body: &[u8]) -> Result<(Ifindex, Qdisc), Undecodable> {
    let read = || {
        let (attributes, device) = start(body)?;
        let qdisc = Qdisc {
            kind: kind(attributes)?,
            handle: word(body, 8)?,
            parent: word(body, 12)?,
        };
        Ok((device, qdisc))
    };
    read().map_err(|why| undecodable(body, why))
}

/// Decodes a filter; `None` for the classifier itself, which precedes its filters in a dump.
pub fn filter(body: &[u8]) -> Result<Option<Filter>, Undecodable> {
    let read = || {
        let (attributes, _) = start(body)?;
        let kind = kind(attributes)?;
        let (priority, handle) = slot(body)?;
        let options = attributes.get(TCA_OPTIONS);
        if handle == 0 && options.is_none() {
            return Ok(None);
        }
        // The options of other kinds may have any format.
        let nested = options.map(Value::nested);
        let acts = acts(kind.as_bytes(), nested.and_then(Result::ok));
        let program = match kind.as_bytes() {
            b"bpf" => nested.transpose()?,
            _ => None,
        };
        Ok(Some(Filter {
            kind,
            priority,
            handle,
            chain: chain(attributes)?,
            program: program.map(self::program).transpose()?.flatten(),
            acts,
        }))
    };
    read().map_err(|why| undecodable(body, why))
}

/// Returns the priority and the handle, which identify a filter at a hook.
pub fn slot(body: &[u8]) -> Result<(u16, u32), Malformed> {
    Ok(((word(body, 16)? >> 16) as u16, word(body, 8)?))
}

/// Whether a filter may have an action, according to the attributes of its kind (`include/uapi/linux/pkt_cls.h`). These
/// are actions, the older policer, and for a BPF filter also the direct-action flag.
fn acts(kind: &[u8], options: Option<Attributes<'_>>) -> bool {
    let Some(options) = options else {
        return true;
    };
    let any: &[u16] = match kind {
        b"u32" => &[6, 7],
        b"flower" => &[3],
        b"matchall" => &[2],
        b"basic" => &[3, 4],
        b"fw" => &[2, 4],
        b"cgroup" => &[1, 2],
        b"bpf" => &[1, 2, TCA_BPF_FLAGS],
        _ => return true,
    };
    any.iter().any(|kind| options.get(*kind).is_some())
}

/// Decodes the program of a BPF filter. A classic BPF program has no id.
fn program(options: Attributes<'_>) -> Result<Option<Program>, Malformed> {
    let id = options.get(TCA_BPF_ID).map(Value::u32).transpose()?;
    let name = options.get(TCA_BPF_NAME).map(Value::text);
    Ok(id.map(|id| Program {
        id,
        name: Name::new(name.unwrap_or_default()),
    }))
}

fn start(body: &[u8]) -> Result<(Attributes<'_>, Ifindex), Malformed> {
    let attributes = Attributes::behind(body, HEADER)?;
    let device = ifindex(body).ok_or(Malformed("it has no device"))?;
    Ok((attributes, device))
}

fn kind(attributes: Attributes<'_>) -> Result<Name, Malformed> {
    let kind = attributes.need(TCA_KIND, "it has no kind")?.text();
    Ok(Name::new(kind))
}

fn chain(attributes: Attributes<'_>) -> Result<u32, Malformed> {
    let chain = attributes.get(TCA_CHAIN).map(Value::u32).transpose()?;
    Ok(chain.unwrap_or_default())
}

fn undecodable(body: &[u8], Malformed(why): Malformed) -> Undecodable {
    Undecodable {
        ifindex: ifindex(body),
        why,
    }
}
