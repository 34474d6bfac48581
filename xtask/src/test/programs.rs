//! The test programs of level `vm`, and the guest that each needs.

use crate::vm::Kernel;

/// Seconds for one test program; under TCG the tutorial takes a few minutes.
pub const TIMEOUT: u64 = 2400;

/// The clock of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock, for programs that compute, and for those that race on two CPUs.
    Real,
    /// A clock that counts instructions, and jumps to the next timer when the guest is idle: computing takes somewhat
    /// longer, waiting takes no time, and no bound depends on the load of the host. There is one CPU.
    Counted,
}

/// A test program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub clock: Clock,
    /// The number of the guest that it shares in a whole run; guests with low numbers take longest and begin first.
    pub guest: u8,
    /// The only kernel on which it runs in a whole run, if one suffices.
    pub kernel: Option<Kernel>,
}

/// Every program, in the order in which those of one guest run. `storm` has two CPUs send at once; `hostile` has
/// processes hang in their sleep and others race them; `kernel` and `scale` never wait. clsact is with 6.1, and tcx with
/// the machine's own kernel, which is enough for `netns`; how large a host may be does not depend on the kernel.
pub const PROGRAMS: &[Program] = &[
    real("hostile", 0),
    real("kernel", 1),
    real("storm", 1),
    Program {
        kernel: Some(Kernel::V6_12),
        ..real("scale", 1)
    },
    Program {
        kernel: Some(Kernel::V6_1),
        ..counted("netns", 0)
    },
    counted("protocols", 1),
    counted("trunk", 1),
    counted("life", 1),
    counted("learned", 2),
    counted("shortcut", 2),
    counted("sync", 2),
    counted("tutorial", 2),
    counted("metrics", 2),
];

/// The program for NICs with several queues, which need a CPU each.
pub const QUEUES: Program = real("queues", 0);

const fn real(name: &'static str, guest: u8) -> Program {
    Program {
        name,
        clock: Clock::Real,
        guest,
        kernel: None,
    }
}

const fn counted(name: &'static str, guest: u8) -> Program {
    Program {
        clock: Clock::Counted,
        ..real(name, guest)
    }
}

/// The names that `--program` accepts.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().map(|program| program.name)
}
