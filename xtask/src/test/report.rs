//! What a run prints at its end.

use std::{cmp::Reverse, fmt, ops::AddAssign, time::Duration};

/// How many of the slowest tests are named.
const SLOWEST: usize = 10;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Count {
    pub fn total(self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The summary: a row per level, aligned.
pub fn table(rows: &[(String, Count, f64)]) -> String {
    let mut text = format!(
        "{:<10} {:>7} {:>7} {:>7} {:>8}\n",
        "level", "passed", "failed", "skipped", "seconds"
    );
    for (level, count, seconds) in rows {
        text += &format!(
            "{level:<10} {:>7} {:>7} {:>7} {seconds:>8.1}\n",
            count.passed, count.failed, count.skipped
        );
    }
    text
}

/// The slowest tests, with their level, a line each.
pub fn slowest(mut tests: Vec<(Duration, String)>) -> String {
    tests.sort_by_key(|(took, _)| Reverse(*took));
    tests.truncate(SLOWEST);
    let lines = tests
        .iter()
        .map(|(took, test)| format!("{:>6} s  {test}\n", took.as_secs()));
    format!("the slowest tests:\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(passed: usize, failed: usize, skipped: usize) -> Count {
        Count {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let text = table(&[
            ("host".into(), count(120, 0, 3), 1.25),
            ("vm 6.12".into(), count(1, 0, 0), 100.0),
        ]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn the_slowest_tests_are_named_in_order() {
        let tests = (0..20).map(|second| (Duration::from_secs(second), format!("test {second}")));
        let text = slowest(tests.collect());
        assert!(
            text.starts_with("the slowest tests:\n    19 s  test 19\n    18 s"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1 + SLOWEST);
    }
}
