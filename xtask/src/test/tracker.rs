//! Parses and counts libtest's output line by line, wherever the tests ran.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::report::Count;

/// A test that cannot run here prints this and returns, which libtest counts as a pass.
const SKIP: &str = "vlanfast-skip: ";
const FIGURE: &str = "figure: ";
/// The number of lines of a failing test's output that are kept, so that a flood does not hide the rest.
const SHOWN: usize = 100;
/// A test that takes at least this long is printed with its duration, because CI's time is limited.
const LONG: Duration = Duration::from_secs(10);

/// Follows the output of one level, test program after test program.
#[derive(Default)]
pub struct Tracker {
    pub count: Count,
    /// Skipped tests as `test: reason`, in order.
    pub skips: Vec<String>,
    /// Failed tests as `program: test`, and programs that failed as a whole.
    pub failures: Vec<String>,
    pub figures: Vec<String>,
    /// The duration of each test as `program: test`.
    pub times: Vec<(Duration, String)>,
    program: Option<Program>,
}

/// A program from `begin` to `end`; under `cargo test` that is several executables in a row.
#[derive(Default)]
struct Program {
    name: String,
    /// Whether `running N tests` was seen, and `test result:` was not yet.
    open: bool,
    results: usize,
    failed: usize,
    /// The names of skipped tests since the last result line: one test may give several reasons.
    skipped: BTreeSet<String>,
    /// The running test and its output so far.
    test: Option<String>,
    output: Vec<String>,
    in_failures: bool,
    /// When the tests of the program began, or the last of them ended.
    since: Option<Instant>,
}

impl Tracker {
    pub fn begin(&mut self, name: &str) {
        // The previous program never ended, because its guest was killed.
        self.end(None);
        self.program = Some(Program {
            name: name.to_owned(),
            ..Program::default()
        });
    }

    /// Adds one line of output; returns what the user should see of it.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        let Some(program) = &mut self.program else {
            return Vec::new();
        };
        let mut rest = line.trim_end();
        let mut show = Vec::new();
        if let Some(result) = parse_result(rest) {
            program.finish(result, &mut self.count);
            return show;
        }
        if program.in_failures {
            return vec![format!("    {rest}")];
        }
        if rest.starts_with("running ") && (rest.ends_with(" tests") || rest.ends_with(" test")) {
            program.open = true;
            program.since = Some(Instant::now());
            return show;
        }
        // The captured output follows; with --nocapture it has been shown already.
        if program.test.is_none() && rest.starts_with("---- ") {
            program.in_failures = true;
            return vec![format!("    {rest}")];
        }
        // With --nocapture, a test's first output is on the line that names it.
        if let Some((name, after)) = parse_test(line) {
            program.test = Some(name.to_owned());
            program.output.clear();
            rest = after.trim_end();
        }
        if let Some(skip) = rest.strip_prefix(SKIP) {
            let name = skip.split_once(": ").map_or(skip, |(name, _)| name);
            program.skipped.insert(name.to_owned());
            self.skips.push(skip.to_owned());
        } else if rest.starts_with(FIGURE) {
            self.figures.push(rest.to_owned());
        }
        match parse_verdict(rest) {
            Some(verdict) => show.extend(self.verdict(verdict)),
            None => program.output.push(rest.to_owned()),
        }
        show
    }

    /// Records the end of a test; returns what the user should see of it.
    fn verdict(&mut self, verdict: &str) -> Vec<String> {
        let Some(program) = &mut self.program else {
            return Vec::new();
        };
        // A verdict without a test is part of a test's own output.
        let Some(name) = program.test.take() else {
            return Vec::new();
        };
        let short = name.rsplit("::").next().unwrap_or(&name);
        let mut skips = program.skipped.iter();
        let is_skipped = skips.any(|skip| skip == &name || skip == short);
        let verdict = match verdict {
            "ok" if is_skipped => "skipped",
            other => other,
        };
        let since = program.since.replace(Instant::now());
        let took = since.map_or(Duration::ZERO, |since| since.elapsed());
        let test = format!("{}: {name}", program.name);
        let mut show = vec![format!("  {test} ... {verdict}{}", took_long(took))];
        if verdict == "FAILED" {
            let from = program.output.len().saturating_sub(SHOWN);
            show.extend(
                program.output[from..]
                    .iter()
                    .map(|line| format!("    {line}")),
            );
            self.failures.push(test.clone());
        }
        self.times.push((took, test));
        show
    }

    /// Records the end of a program and its exit code, if it had one. A program that ended without a result, or
    /// failed without a failed test, counts as a failure itself; the text says so.
    pub fn end(&mut self, rc: Option<i32>) -> Option<String> {
        let program = self.program.take()?;
        let how = rc.map_or("was cut off".to_owned(), |rc| {
            format!("ended with code {rc}")
        });
        let at = program
            .test
            .as_ref()
            .map_or(String::new(), |test| format!(" in {test}"));
        if program.open || program.results == 0 {
            self.fail(format!("{}: {how}{at} without a result", program.name));
            self.count.skipped += program.skipped.len();
            let last: Vec<&str> = program
                .output
                .iter()
                .rev()
                .take(20)
                .rev()
                .map(String::as_str)
                .collect();
            return Some(format!(
                "  {}: {how}{at} without a result; its last lines:\n{}",
                program.name,
                last.join("\n")
            ));
        }
        if rc != Some(0) && program.failed == 0 {
            let failure = format!("{}: {how} though no test failed", program.name);
            self.fail(failure.clone());
            return Some(format!("  {failure}"));
        }
        None
    }

    /// Adds the results of another guest of the same level.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.skips.extend(other.skips);
        self.failures.extend(other.failures);
        self.figures.extend(other.figures);
        self.times.extend(other.times);
    }

    /// Counts a failure outside of any test.
    pub fn fail(&mut self, failure: String) {
        self.count.failed += 1;
        self.failures.push(failure);
    }
}

impl Program {
    fn finish(&mut self, result: Count, total: &mut Count) {
        let skipped = std::mem::take(&mut self.skipped).len();
        *total += Count {
            passed: result.passed.saturating_sub(skipped),
            failed: result.failed,
            // An ignored test has not run either.
            skipped: result.skipped + skipped,
        };
        self.failed += result.failed;
        self.results += 1;
        self.open = false;
        self.in_failures = false;
        self.test = None;
        self.output.clear();
    }
}

fn took_long(took: Duration) -> String {
    match took >= LONG {
        true => format!(", {} s", took.as_secs()),
        false => String::new(),
    }
}

/// Parses `test NAME ... REST`, where REST is the verdict, output, or empty.
fn parse_test(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim_end_matches(" - should panic"), rest))
}

fn parse_verdict(text: &str) -> Option<&str> {
    (matches!(text, "ok" | "FAILED" | "ignored") || text.starts_with("ignored, ")).then_some(text)
}

/// Parses `test result: ok. 3 passed; 0 failed; 1 ignored; …`; ignored tests are added to `skipped`.
fn parse_result(line: &str) -> Option<Count> {
    let (_, text) = line.split_once("test result: ")?;
    let (_, numbers) = text.split_once(". ")?;
    let mut count = Count::default();
    let mut seen = 0;
    for part in numbers.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let slot = match what {
            "passed" => &mut count.passed,
            "failed" => &mut count.failed,
            "ignored" => &mut count.skipped,
            _ => continue,
        };
        *slot = number.parse().ok()?;
        seen += 1;
    }
    (seen == 3).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(text: &str, rc: Option<i32>) -> (Tracker, Vec<String>, Option<String>) {
        let mut tracker = Tracker::default();
        tracker.begin("t");
        let shown = text.lines().flat_map(|line| tracker.line(line)).collect();
        let complaint = tracker.end(rc);
        (tracker, shown, complaint)
    }

    fn count(passed: usize, failed: usize, skipped: usize) -> Count {
        Count {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn results_are_read_and_near_misses_are_not() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(parse_result(line), Some(count(3, 1, 2)));
        assert_eq!(
            parse_result("test result: ok. x passed; 1 failed; 2 ignored"),
            None
        );
        assert_eq!(parse_result("test result: ok. 1 passed"), None);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let text = "running 2 tests\n\
                    test a ... vlanfast-skip: a: no 8021q\n\
                    vlanfast-skip: a: no macvlan\n\
                    ok\n\
                    test m::b ... figure: 7 ns\n\
                    ok\n\
                    test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n";
        let (tracker, shown, complaint) = track(text, Some(0));
        assert_eq!(tracker.count, count(1, 0, 1));
        assert_eq!(tracker.skips, ["a: no 8021q", "a: no macvlan"]);
        assert_eq!(tracker.figures, ["figure: 7 ns"]);
        assert_eq!(shown, ["  t: a ... skipped", "  t: m::b ... ok"]);
        assert_eq!(complaint, None);
    }

    #[test]
    fn a_failure_shows_its_output_only() {
        let text = "running 2 tests\ntest a ... quiet\nok\ntest b ... loud\npanicked at x\nFAILED\n\
                    test result: FAILED. 1 passed; 1 failed; 0 ignored\n";
        let (tracker, shown, complaint) = track(text, Some(101));
        assert_eq!(tracker.count, count(1, 1, 0));
        assert_eq!(tracker.failures, ["t: b"]);
        assert_eq!(
            shown,
            [
                "  t: a ... ok",
                "  t: b ... FAILED",
                "    loud",
                "    panicked at x"
            ]
        );
        assert_eq!(complaint, None);
    }

    #[test]
    fn captured_failures_are_shown_from_their_section() {
        let text = "running 1 test\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nboom\n\
                    test result: FAILED. 0 passed; 1 failed; 0 ignored\n";
        let (_, shown, _) = track(text, Some(101));
        assert!(shown.contains(&"    boom".to_owned()), "{shown:?}");
    }

    #[test]
    fn a_crash_is_a_failure_even_after_good_results() {
        let one = "running 1 test\ntest a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        assert_eq!(track(one, Some(0)).0.count, count(1, 0, 0));
        assert_eq!(track(one, Some(1)).0.count, count(1, 1, 0));
        assert_eq!(track(one, None).0.count, count(1, 1, 0));
        let (tracker, _, complaint) = track(&format!("{one}running 1 test\ntest z ... "), None);
        assert_eq!(tracker.count, count(1, 1, 0));
        assert_eq!(tracker.failures, ["t: was cut off in z without a result"]);
        assert!(complaint.is_some_and(|text| text.contains("was cut off in z")));
        assert_eq!(track("", Some(0)).0.count, count(0, 1, 0));
    }

    #[test]
    fn only_long_times_are_said() {
        assert_eq!(took_long(Duration::from_millis(9_999)), "");
        assert_eq!(took_long(Duration::from_millis(61_500)), ", 61 s");
    }
}
