//! Finds programs of vlanfast on the trunk that are not pinned here: another process has attached them, with pins in
//! another BPF file system.

use anyhow::Context;
use aya::programs::loaded_programs;
use vlanfast_common::Direction;

use crate::{
    hooks::{
        bpf_syscall,
        device::Trunk,
        inspect::{link, program_id},
        kind::{HOOKS, hook_name},
    },
    maps::load,
    netlink::Netlink,
    pins,
    pins::Pins,
    state::snapshot::Ifindex,
};

/// The name and the hook of each such program. Reading names needs CAP_SYS_ADMIN; without it the list is empty.
pub async fn pinned_elsewhere(
    netlink: &Netlink,
    trunk: &Trunk,
    pins: Option<&Pins>,
) -> anyhow::Result<Vec<String>> {
    let ours = pins.map(program_ids).transpose()?.unwrap_or_default();
    let mut others = vec![];
    for hook in HOOKS {
        let there = on(netlink, trunk, hook).await?.into_iter();
        others.extend(there.filter(|id| !ours.contains(id)).map(|id| (hook, id)));
    }
    if others.is_empty() {
        return Ok(vec![]);
    }
    let mut found = vec![];
    for program in loaded_programs().flatten() {
        let is_there = others.iter().find(|(_, id)| *id == program.id());
        if let Some((hook, id)) = is_there
            && let Some(called) = program.name_as_str()
            && [load::RX, load::TX, load::XDP].contains(&called)
        {
            found.push(format!("'{called}', id {id}, at {}", hook_name(*hook)));
        }
    }
    Ok(found)
}

/// The ids of our pinned programs, including those of a replacement that a crash interrupted.
pub fn program_ids(pins: &Pins) -> anyhow::Result<Vec<u32>> {
    let mut ids = vec![];
    for hook in HOOKS {
        let path = pins.program(hook);
        ids.extend(link(pins, hook)?.map(|link| link.program_id()));
        ids.extend(program_id(pins, &path)?);
        ids.extend(program_id(pins, &pins::next(&path))?);
    }
    Ok(ids)
}

/// The ids of all programs at a hook, ours and others'.
async fn on(netlink: &Netlink, trunk: &Trunk, hook: Direction) -> anyhow::Result<Vec<u32>> {
    let filters = netlink.filters(Ifindex(trunk.ifindex), hook).await?.list;
    let programs = filters.iter().filter_map(|filter| filter.program.as_ref());
    let mut ids: Vec<_> = programs.map(|program| program.id).collect();
    if bpf_syscall::has_tcx() {
        let tcx = bpf_syscall::tcx_programs(trunk.ifindex, hook);
        ids.extend(
            tcx.with_context(|| format!("failed to list the tcx programs of {}", trunk.name))?,
        );
    }
    if hook == Direction::Rx {
        ids.extend(trunk.xdp.as_ref().map(|xdp| xdp.program_id));
    }
    Ok(ids)
}
