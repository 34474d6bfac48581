//! Counts a frame by its verdict.

use crate::{
    abi::{Cast, Counters, Direction, Wire},
    verdict::Verdict,
};

impl Counters {
    /// Adds one frame. `verdict` is what was decided, and `done` what the hook carried out: [`Verdict::Pass`] in a dry
    /// run.
    #[inline(always)]
    pub const fn add(
        &mut self,
        direction: Direction,
        cast: Cast,
        wire: Wire,
        verdict: Verdict,
        done: Verdict,
    ) {
        if !matches!(
            done,
            Verdict::Reflect { .. } | Verdict::Shortcut { .. } | Verdict::Hairpin
        ) {
            self.side(direction).add(cast, wire);
        }
        match verdict {
            Verdict::Pass | Verdict::Hairpin | Verdict::CloneToLocal { .. } => {}
            Verdict::Reflect { .. } => self.reflected += wire.packets,
            Verdict::Shortcut { .. } | Verdict::ShortcutAndProbe { .. } => {
                self.shortcut += wire.packets;
            }
            Verdict::Deliver { .. } => self.delivered += wire.packets,
            Verdict::Conflict => self.disputed += wire.packets,
            Verdict::Steer { .. } => self.steered += wire.packets,
            Verdict::Drop(reason) => self.dropped[reason as usize] += wire.packets,
        }
    }
}
