//! Generated command lines must not cause a panic or a hang, and must not touch other files.

mod words;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::Read,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vlanfast_tests::{
    net::topology::Wire,
    require,
    run::program::{Attached, binary},
};
use words::{Words, odd};

/// A command that takes longer hangs; emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of commands that run at a time.
const SIDE_BY_SIDE: usize = 8;

/// Returns the number of command lines: a thousand, and fewer under emulation, where each takes a second.
fn command_lines() -> usize {
    match env::var_os("VLANFAST_LAB") {
        Some(_) => 60,
        None => 1000,
    }
}

/// Runs a test in which root can change only bpffs and one new directory, which the test receives, because generated
/// names may contain `/`.
fn in_a_cage(test: impl FnOnce(&Path) + Send) {
    // The name has no dot, so that it is valid as a device's name.
    let dir = tempfile::Builder::new()
        .prefix("vlanfast")
        .tempdir()
        .unwrap();
    let path = dir.path();
    let caged = move || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, "/", none, read_only, none).unwrap();
        test(path);
    };
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(caged).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Returns every entry below a directory with its size and modification time.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.insert(path, (data.size(), data.mtime(), data.mtime_nsec()));
    }
    found
}

/// Returns the pins of this test's devices, whose names all begin with the trunk's.
fn pinned(trunk: &str) -> Vec<OsString> {
    let entries = fs::read_dir("/sys/fs/bpf/vlanfast").into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().contains(trunk))
        .collect()
}

/// Creates files that must not be touched, and a working directory with more of them.
fn place_sentinels(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir.join("tree/deep")).unwrap();
    fs::create_dir(dir.join("cwd")).unwrap();
    for name in [
        "SETTINGS",
        "COUNTERS",
        "tree/STATUS",
        "tree/vlanfast_rx",
        "tree/deep/file",
        "cwd/STATUS",
    ] {
        fs::write(dir.join(name), "kept").unwrap();
    }
    dir.join("cwd")
}

/// Creates a trunk in a namespace that also has devices with odd names.
fn trunk_with_odd_devices() -> Wire {
    let wire = Wire::veth().unwrap();
    for end in [b"\xff".as_slice(), b"\x1b[m"] {
        let mut add = wire.host.command("ip");
        add.args(["link", "add"])
            .arg(odd(&wire.trunk, end))
            .args(["type", "veth"]);
        assert!(add.status().unwrap().success());
    }
    wire
}

/// A running command and its output.
struct Running {
    line: Vec<OsString>,
    child: Child,
    said: [thread::JoinHandle<String>; 2],
    since: Instant,
}

impl Running {
    fn start(wire: &Wire, cwd: &Path, line: Vec<OsString>) -> Self {
        let mut command = wire.host.command(&binary());
        command.args(&line).current_dir(cwd).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = [
            read(child.stdout.take().unwrap()),
            read(child.stderr.take().unwrap()),
        ];
        Self {
            line,
            child,
            said,
            since: Instant::now(),
        }
    }

    /// Waits for the command to end, and checks its result. An `attach` that still runs has succeeded, and is
    /// stopped.
    fn end(mut self) {
        let mut asked = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            // An `attach` to one of the odd devices may succeed.
            let attaches = self.line.first().is_some_and(|verb| verb == "attach");
            if attaches && !asked && self.since.elapsed() > PATIENCE / 12 {
                asked = true;
                kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
            }
            assert!(self.since.elapsed() < PATIENCE, "it hangs: {:?}", self.line);
            thread::sleep(Duration::from_millis(5));
        };
        let [_, stderr] = self.said.map(|said| said.join().unwrap());
        judge(&self.line, status, &stderr);
    }
}

fn read(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = vec![];
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Checks what must hold for the end of every command.
fn judge(line: &[OsString], status: ExitStatus, stderr: &str) {
    let shown: Vec<_> = line
        .iter()
        .map(|word| word.to_string_lossy().chars().take(80).collect::<String>())
        .collect();
    let code = status.code();
    assert_eq!(status.signal(), None, "{shown:?}: {stderr}");
    assert!(
        code.is_some_and(|code| (0..=7).contains(&code)),
        "{shown:?}: {code:?} {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{shown:?}: {stderr}");
    if code != Some(2) {
        let errors = stderr
            .lines()
            .filter(|line| !line.starts_with("note: ") && !line.starts_with('['));
        assert!(errors.count() <= 1, "{shown:?}: {stderr}");
        assert!(!stderr.contains('\x1b'), "{shown:?}: {stderr:?}");
    }
}

#[test]
fn a_thousand_command_lines_end_and_touch_nothing() {
    require!(
        "command lines",
        nix::unistd::geteuid().is_root(),
        "needs root"
    );
    let wire = trunk_with_odd_devices();
    in_a_cage(|dir| {
        let cwd = place_sentinels(dir);
        let before = tree(dir);
        let (rng, trunk) = (Rng::with_seed(14), wire.trunk.clone());
        let mut words = Words {
            rng,
            trunk,
            sentinels: dir.to_owned(),
        };
        let count = command_lines();
        println!("{count} command lines");
        let lines: Vec<_> = std::iter::repeat_with(|| words.line())
            .take(count)
            .collect();
        for some in lines.chunks(SIDE_BY_SIDE) {
            let start = |line: &Vec<_>| Running::start(&wire, &cwd, line.clone());
            let running: Vec<_> = some.iter().map(start).collect();
            running.into_iter().for_each(Running::end);
        }
        assert_eq!(tree(dir), before);
    });
    assert_eq!(pinned(&wire.trunk), [] as [OsString; 0]);
}

/// The argument list is empty, or as long as the kernel allows.
#[test]
fn no_arguments_and_long_ones_end() {
    require!("long lines", nix::unistd::geteuid().is_root(), "needs root");
    let wire = trunk_with_odd_devices();
    let long = OsString::from("x".repeat(100_000));
    let mut lines: Vec<Vec<OsString>> = vec![vec![], vec!["".into()], vec![long.clone()]];
    for verb in [
        "attach",
        "detach",
        "status",
        "endpoints",
        "counters",
        "flows",
    ]
    .map(OsString::from)
    {
        let socket = OsString::from(format!("/{}", "s".repeat(5000)));
        lines.push(vec![verb.clone()]);
        lines.push(vec![verb.clone(), long.clone()]);
        lines.push(vec![verb.clone(), "lo".into(), "--docker".into(), socket]);
        lines.push([vec![verb], vec!["x".into(); 5000]].concat());
    }
    in_a_cage(|dir| {
        for line in lines {
            Running::start(&wire, dir, line).end();
        }
    });
}

/// The output goes to a reader that has ended, as in `vlanfast status | head -1`, or to a terminal that is gone.
#[test]
fn output_need_not_be_read() {
    require!("closed", nix::unistd::geteuid().is_root(), "needs root");
    let wire = trunk_with_odd_devices();
    let trunk = &wire.trunk;
    let attached = Attached::start(&wire.host, trunk, &["--metrics", "off"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("code");
    // The code is the exit code of vlanfast, and not that of the reader, which has ended by then.
    let run = |line: &str, to: &str| {
        let (binary, code) = (binary(), code.display());
        let line = format!("{{ sleep 0.2; {binary} {line}; echo $? >{code}; }} {to}");
        let mut command = wire.host.command("sh");
        command.args(["-c", &line]).stdin(Stdio::null());
        assert!(command.status().unwrap().success(), "{line}");
        let code = fs::read_to_string(dir.path().join("code")).unwrap();
        code.trim().parse::<u8>().unwrap()
    };
    for verb in ["status", "endpoints", "counters", "flows"] {
        for to in ["| true", "2>&1 | true", ">&- 2>&-"] {
            assert_eq!(run(&format!("{verb} {trunk}"), to), 0, "{verb} {to}");
        }
    }
    assert_eq!(run(&format!("counters {trunk} --watch"), "| true"), 0);
    assert_eq!(run(&format!("status {trunk}"), ">/dev/full"), 1);
    assert_eq!(run("attach nope", "2>/dev/full"), 4);
    assert_eq!(run(&format!("detach {trunk}"), "2>&1 | true"), 0);
    assert_eq!(attached.end().unwrap().code, Some(0));
    assert_eq!(pinned(trunk), [] as [OsString; 0]);
}
