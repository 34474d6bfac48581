//! A test that cannot run here fails, unless the runner was told to allow skipped tests.

use std::env;

/// Returns from the test if `condition` does not hold.
#[macro_export]
macro_rules! require {
    ($test:expr, $condition:expr, $reason:expr) => {
        if !$condition {
            $crate::run::require::skip($test, $reason);
            return;
        }
    };
}

/// Returns from the test if it does not run in the lab.
#[macro_export]
macro_rules! in_the_lab {
    ($test:expr) => {
        $crate::require!(
            $test,
            $crate::run::require::in_the_lab(),
            "needs the lab's virtual machine"
        );
    };
}

/// Reports that a test was skipped; panics where that is not allowed.
pub fn skip(test: &str, reason: &str) {
    println!("vlanfast-skip: {test}: {reason}");
    assert!(
        env::var_os("VLANFAST_ALLOW_SKIP").is_some(),
        "{test} can't run here: {reason}; --allow-skip lets it pass"
    );
}

/// Returns whether this is the lab's virtual machine, with its virtio NICs and the kernel's 802.1Q devices.
pub fn in_the_lab() -> bool {
    env::var_os("VLANFAST_LAB").is_some()
}

/// Returns whether the running kernel is at least this old.
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    let uname = nix::sys::utsname::uname().expect("uname(2) has no reason to fail");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let running = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    running >= (major, minor)
}
