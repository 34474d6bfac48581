//! Command lines that are generated from a seed.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use fastrand::Rng;

/// Returns the name of another device, which no other test uses.
pub fn odd(trunk: &str, end: &[u8]) -> OsString {
    OsString::from_vec([trunk.as_bytes(), end].concat())
}

const VERBS: [&str; 10] = [
    "attach",
    "detach",
    "status",
    "endpoints",
    "counters",
    "flows",
    "help",
    "--version",
    "none",
    "",
];
const FLAGS: [&str; 24] = [
    "--ingress",
    "--manage-offloads",
    "--steer",
    "--storm-limit",
    "--shed",
    "--host-access",
    "--shortcut",
    "--shortcut-allow",
    "--shortcut-refresh",
    "--deliver",
    "--dry-run",
    "--on-exit",
    "--max-endpoints",
    "--docker",
    "--metrics",
    "-v",
    "-vv",
    "--json",
    "--vlan",
    "flush",
    "--",
    "-h",
    "--nope",
    "-j",
];

/// Words for any position. None of the numbers and names makes an attach to the trunk succeed, because the trunk is
/// only ever named together with an option that it refuses.
pub struct Words {
    pub rng: Rng,
    pub trunk: String,
    pub sentinels: PathBuf,
}

impl Words {
    fn name(&mut self) -> OsString {
        let long = "x".repeat(self.rng.usize(1..10_000));
        let sentinel = self.sentinels.as_os_str();
        let inside = self.sentinels.join("tree");
        let up = OsString::from(format!("../../..{}", self.sentinels.display()));
        let vlan = format!("{}.10", self.trunk);
        match self.rng.u8(..24) {
            0 => "".into(),
            1 => ".".into(),
            2 => "..".into(),
            3 => "/".into(),
            4 => sentinel.into(),
            5 => inside.into(),
            6 => up,
            7 => long.into(),
            8 => self.bytes(),
            9 => "lo".into(),
            10 => vlan.into(),
            11 => "nope".into(),
            12 => "\x1b[2J\x1b[31m".into(),
            13 => "a\nb".into(),
            14 => "\u{202e}\u{1f600}".into(),
            15 => "-".into(),
            16 => "--".into(),
            17 => "%s%n".into(),
            18 => "$(touch pwned)".into(),
            19 => "eth0:1".into(),
            20 => "a b".into(),
            21 => odd(&self.trunk, b"\xff"),
            22 => odd(&self.trunk, b"\x1b[m"),
            _ => "next_x".into(),
        }
    }

    fn bytes(&mut self) -> OsString {
        let length = self.rng.usize(1..300);
        let rng = &mut self.rng;
        OsString::from_vec(
            std::iter::repeat_with(|| rng.u8(1..))
                .take(length)
                .collect(),
        )
    }

    fn value(&mut self) -> OsString {
        let values = [
            "0",
            "-1",
            "1",
            "4095",
            "4096",
            "65535",
            "65536",
            "4294967295",
            "4294967296",
            "1e9",
            "0x10",
            "99999999999999999999999",
            "all",
            "off",
            "on",
            "auto",
            "tc",
            "xdp",
            "mac",
            "allow",
            "learned",
            "10:20",
            "10:10",
            "20:10,10:20",
            "0:4095",
            ":",
            ",",
            "10,20,",
            "keep",
            "redirect",
            "127.0.0.1:0",
            "[::1]:99999",
            "256.0.0.1:1",
            "127.0.0.1:",
            " ",
            "\u{661}\u{662}",
            "NaN",
            "true",
        ];
        match self.rng.u8(..4) {
            0 => self.name(),
            _ => self.rng.choice(values).unwrap_or_default().into(),
        }
    }

    /// Options for an attach to the trunk itself, which always refuses them.
    fn refused_attach(&mut self) -> Vec<OsString> {
        let refused = [
            "--ingress=none",
            "--metrics=192.0.2.1:1",
            "--storm-limit=-1",
            "--max-endpoints=0",
        ];
        let mut line = vec!["attach".into(), self.trunk.clone().into()];
        line.push(self.rng.choice(refused).unwrap_or_default().into());
        line
    }

    /// Generates a command line from a verb, a name, flags with and without values, and other words.
    pub fn line(&mut self) -> Vec<OsString> {
        let mut line = match self.rng.u8(..12) {
            0 => self.refused_attach(),
            1 => vec!["detach".into(), self.trunk.clone().into()],
            2 => vec!["status".into(), self.trunk.clone().into()],
            _ => vec![
                self.rng.choice(VERBS).unwrap_or_default().into(),
                self.name(),
            ],
        };
        // Half of the command lines are valid except for the name.
        let odd = if self.rng.bool() {
            self.rng.usize(..4)
        } else {
            0
        };
        for _ in 0..odd {
            line.push(self.rng.choice(FLAGS).unwrap_or_default().into());
            if self.rng.bool() {
                line.push(self.value());
            }
        }
        if odd > 0 && self.rng.bool() {
            line.push(self.name());
        }
        line
    }
}
