//! Puts frames on the wire as a NIC with native XDP would deliver them: an XDP program run by
//! `BPF_PROG_TEST_RUN` in live-frames mode redirects them into a veth, whose peer receives XDP frames
//! and makes an skb of each only behind its own XDP hook.

use std::env;

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::Array,
    programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use vlanfast_tests::net::{
    namespace::Netns,
    topology::{WIRE, Wire},
};

use crate::{
    frame::{self, Fate},
    measure::{BURST, Effort},
    netns::{self, Inside},
};

const HEAD: usize = 64;

/// The entry of the map `INJECTION`, as `bench-ebpf` has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Injection {
    head: [u8; HEAD],
    ifindex: u32,
    reserved: u32,
}

// SAFETY: `repr(C)`, numbers alone, no padding.
unsafe impl Pod for Injection {}

pub struct Generator {
    ebpf: Ebpf,
    /// The namespace where the program is attached, to a device that never receives.
    _parked: Netns,
    frame: Vec<u8>,
}

impl Generator {
    pub fn new() -> Result<Self> {
        let mut ebpf = load()?;
        let parked = Netns::new()?;
        let program = program(&mut ebpf)?;
        program.load().context("failed to load the generator")?;
        // The kernel patches its dispatcher of XDP programs, and waits for a grace period, whenever a
        // program that is attached nowhere else is run.
        let _inside = Inside::enter(&parked)?;
        program
            .attach("lo", XdpMode::Skb)
            .context("failed to attach the generator")?;
        Ok(Self {
            ebpf,
            _parked: parked,
            frame: vec![],
        })
    }

    /// Takes a frame for the device `wire` of a namespace.
    pub fn aim(&mut self, router: &Netns, frame: Vec<u8>) -> Result<()> {
        let injection = Injection {
            head: frame[..HEAD].try_into().context("a frame has 64 bytes")?,
            ifindex: netns::ifindex(router, WIRE)?,
            reserved: 0,
        };
        let map = self
            .ebpf
            .map_mut("INJECTION")
            .context("the object has no map INJECTION")?;
        Array::try_from(map)?.set(0, injection, 0)?;
        self.frame = frame;
        Ok(())
    }

    /// Sends it. The caller is in the namespace of the device.
    pub fn inject(&mut self, count: u32) -> Result<()> {
        let frame = &self.frame;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BURST),
            ..TestRunOptions::new()
        };
        program(&mut self.ebpf)?
            .test_run(options)
            .context("failed to inject frames")?;
        Ok(())
    }

    /// What the generator itself costs for a frame, at `count` frames a time: they go into a wire whose other end is
    /// down, where they are freed.
    pub fn own_cost(&mut self, effort: Effort, count: u32) -> Result<f64> {
        let wire = Wire::veth()?;
        prepare(&wire)?;
        wire.host.run(&format!("ip link set {} down", wire.trunk))?;
        self.aim(
            &wire.router,
            frame::datagram(frame::NOBODY, frame::VID, Fate::Dropped),
        )?;
        let _inside = Inside::enter(&wire.router)?;
        effort.cost(count, || self.inject(count))
    }
}

/// Makes both ends poll, as the driver of a NIC does: a veth only takes XDP frames then.
pub fn prepare(wire: &Wire) -> Result<()> {
    for (netns, device) in [(&wire.host, wire.trunk.as_str()), (&wire.router, WIRE)] {
        netns.run(&format!("ethtool -K {device} gro on"))?;
    }
    Ok(())
}

/// The benchmark's BPF object, as `cargo xtask bench` built it.
pub fn load() -> Result<Ebpf> {
    let path =
        env::var("BENCH_OBJECT").context("BENCH_OBJECT names no file: run `cargo xtask bench`")?;
    EbpfLoader::new()
        .load_file(&path)
        .with_context(|| format!("failed to load {path}"))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut("inject")
        .context("the object has no program inject")?;
    Ok(program.try_into()?)
}
