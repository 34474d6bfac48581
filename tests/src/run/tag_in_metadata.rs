//! Runs an egress program over a frame whose tag is in metadata. `BPF_PROG_TEST_RUN` cannot pass such a tag, so a
//! small program sets it and tail-calls the program under test.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use vlanfast_common::Tag;

use crate::run::foreign_program::{call, load, open};

/// `enum bpf_cmd`, `enum bpf_map_type` and `struct __sk_buff` of the kernel's `include/uapi/linux/bpf.h`.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const PROG_ARRAY: u32 = 3;
const SK_BUFF: usize = 192;
const MARK: usize = 8;

/// The result of the program if the tail call fails.
const NOT_CALLED: u32 = 99;

/// A program that puts a tag into a frame's metadata and tail-calls the program under test.
#[derive(Debug)]
pub struct TaggedRun {
    program: OwnedFd,
    /// Keeps the map alive that holds the program under test.
    _called: OwnedFd,
}

/// The arguments of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

impl TaggedRun {
    /// Builds the program around a TC program.
    pub fn new(program: impl AsFd) -> Result<Self> {
        let called = open(BPF_MAP_CREATE, &mut [PROG_ARRAY, 4, 4, 1]).context("no map")?;
        let (key, value) = (0u32, program.as_fd().as_raw_fd());
        let place = [&raw const key as u64, &raw const value as u64];
        let map = called.as_raw_fd() as u64;
        call(BPF_MAP_UPDATE_ELEM, &mut [map, place[0], place[1], 0])?;
        // The mark carries the TCI and one more bit.
        let code = [
            0x0000_0000_0000_16bf,              // r6 = r1
            0x0000_0000_0008_6361,              // r3 = *(u32 *)(r6 + 8)
            0x0000_0000_0000_02b7,              // r2 = 0
            0x0000_0000_0008_2663,              // *(u32 *)(r6 + 8) = r2
            0x0000_0081_0000_02b7,              // r2 = htons(0x8100)
            0x0000_0012_0000_0085,              // r0 = bpf_skb_vlan_push(r1, r2, r3)
            0x0000_0000_0000_61bf,              // r1 = r6
            map << 32 | 0x1218,                 // r2 = the map
            0,                                  // (its second half)
            0x0000_0000_0000_03b7,              // r3 = 0
            0x0000_000c_0000_0085,              // bpf_tail_call(r1, r2, r3)
            u64::from(NOT_CALLED) << 32 | 0xb7, // r0 = not called
            0x95,                               // exit
        ];
        let program = load(&code, "tagged").context("failed to load the program")?;
        Ok(Self {
            program,
            _called: called,
        })
    }

    /// Runs the program over a frame; returns its result and the resulting bytes.
    pub fn run(&self, bytes: &[u8], tag: Tag) -> Result<(u32, Vec<u8>)> {
        ensure!(tag.tpid == Tag::C_TAG, "{tag:?} is no tag of ours");
        let mut left = vec![0; bytes.len() + 256];
        let mut context = [0u8; SK_BUFF];
        context[MARK..MARK + 4].copy_from_slice(&(u32::from(tag.tci) | 1 << 16).to_ne_bytes());
        let mut run = TestRun {
            program: self.program.as_raw_fd() as u32,
            size_in: bytes.len() as u32,
            size_out: left.len() as u32,
            data_in: bytes.as_ptr() as u64,
            data_out: left.as_mut_ptr() as u64,
            context_size_in: SK_BUFF as u32,
            context_in: context.as_ptr() as u64,
            ..TestRun::default()
        };
        call(BPF_PROG_TEST_RUN, &mut run).map_err(|error: io::Error| {
            anyhow::anyhow!("failed to run a program on {} bytes: {error}", bytes.len())
        })?;
        ensure!(run.result != NOT_CALLED, "the program was not called");
        left.truncate(run.size_out as usize);
        Ok((run.result, left))
    }
}
