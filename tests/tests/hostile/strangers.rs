//! Root never follows names, directories, links or locks of another user.

mod locks;

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use aya::maps::MapData;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use vlanfast_tests::{
    net::{namespace::Netns, topology::Wire},
    require,
    run::{
        pins::{PINS, is_pinned, pins},
        program::{Attached, Ended, binary, detach, end},
        residue::Residue,
    },
};

/// The id of a user who is not root.
const OTHER: u32 = 65534;

/// A file system whose contents must not be touched.
struct Victim {
    directory: tempfile::TempDir,
    before: Vec<Entry>,
}

/// An entry: name, content or target, modification time, mode, and inode number.
type Entry = (PathBuf, Vec<u8>, (i64, i64), u32, u64);

impl Victim {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("deep/deeper")).unwrap();
        // Some files have the names of pins.
        for name in ["COUNTERS", "ingress_link", "precious", "deep/deeper/STATUS"] {
            fs::write(path.join(name), name).unwrap();
        }
        let before = tree(path);
        Self { directory, before }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn assert_untouched(&self, by: &str) {
        assert_eq!(tree(self.path()), self.before, "touched by {by}");
    }
}

fn tree(path: &Path) -> Vec<Entry> {
    let metadata = path.symlink_metadata().unwrap();
    let (mut children, mut content) = (vec![], vec![]);
    if metadata.is_dir() {
        children.extend(fs::read_dir(path).unwrap().map(|it| it.unwrap().path()));
        children.sort();
    } else {
        content = fs::read(path).unwrap();
    }
    let changed = (metadata.mtime(), metadata.mtime_nsec());
    let (mode, number) = (metadata.mode(), metadata.ino());
    let mut all = vec![(path.to_owned(), content, changed, mode, number)];
    all.extend(children.iter().flat_map(|child| tree(child)));
    all
}

/// Runs something where a BPF file system of its own is mounted.
pub fn aside<T: Send>(mode: u32, what: impl FnOnce() -> T + Send) -> T {
    let run = || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let all = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(none, "/", none, all, none).unwrap();
        let options = format!("mode={mode:o}");
        let flags = MsFlags::empty();
        mount(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        what()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs a shell command as a user who is not root.
fn as_other(line: &str) {
    let mut shell = Command::new("sh");
    let ended = end(shell.args(["-c", line]).uid(OTHER).gid(OTHER)).unwrap();
    assert_eq!(ended.code, Some(0), "{line}: {}", ended.stderr);
}

/// Runs every verb that takes a trunk, with one.
fn every_verb(netns: &Netns, trunk: &OsStr) -> Vec<(String, Ended)> {
    [
        &["attach", "--docker", "off", "--metrics", "off"][..],
        &["status"],
        &["counters"],
        &["endpoints", "--docker", "off"],
        &["flows"],
        &["flows", "flush"],
        &["detach"],
    ]
    .map(|verb| {
        let ended = end(netns.command(&binary()).args(verb).arg("--").arg(trunk)).unwrap();
        (format!("{verb:?} {trunk:?}"), ended)
    })
    .into()
}

pub fn assert_refused(verb: &str, ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{verb}: {ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{verb}: {ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{verb}, no {word}: {ended:?}");
    }
}

#[test]
fn a_name_that_no_device_can_have_leads_nowhere() {
    require!("names", nix::unistd::geteuid().is_root(), "needs root");
    let victim = Victim::new();
    let wire = Wire::veth().unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &["--metrics", "off"]).unwrap();
    let absolute = victim.path().as_os_str().to_owned();
    let relative = Path::new("../../../..").join(victim.path().strip_prefix("/").unwrap());
    let long = "x".repeat(200);
    let own = pins(&wire.trunk).into_os_string();
    let mut names: Vec<&OsStr> = vec![&absolute, relative.as_os_str(), &own];
    for name in [
        "..",
        ".",
        "",
        "a/b",
        "a:b",
        "a\nb",
        "a b",
        "./",
        "../vlanfast",
        &long,
    ] {
        names.push(OsStr::new(name));
    }
    names.push(OsStr::new("/sys/fs/bpf/vlanfast/../x"));
    names.push(OsStr::from_bytes(b"\xff/\x1b[2J"));
    for name in names {
        for (verb, ended) in every_verb(&wire.host, name) {
            assert_refused(&verb, &ended, 4, &["no such device"]);
            assert!(!ended.stderr.contains('\x1b'), "{ended:?}");
            victim.assert_untouched(&verb);
        }
    }
    assert_eq!(
        attached.status().unwrap()["hooks"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    attached.stop().unwrap();
}

/// Returns what another user may have put in the place of the pins, and how the refusal describes it.
fn traps(trunk: &str, victim: &str) -> Vec<(&'static str, String, [&'static str; 2])> {
    vec![
        (
            "a directory of his own",
            format!("mkdir {PINS}"),
            ["/vlanfast can't be trusted", "belongs to user 65534"],
        ),
        (
            "a link under the trunk's name",
            format!("mkdir {PINS} && ln -s {victim} {PINS}/{trunk}"),
            ["/vlanfast can't be trusted", "belongs to user 65534"],
        ),
        (
            "a link in place of all pins",
            format!("ln -s {victim} {PINS}"),
            ["/vlanfast can't be trusted", "it is a link"],
        ),
    ]
}

#[test]
fn paths_of_another_user_are_refused_and_left_alone() {
    require!("traps", nix::unistd::geteuid().is_root(), "needs root");
    let victim = Victim::new();
    let wire = Wire::veth().unwrap();
    let path = victim.path().to_str().unwrap();
    for (what, line, words) in traps(&wire.trunk, path) {
        aside(0o1777, || {
            as_other(&line);
            let bpffs = Path::new("/sys/fs/bpf");
            let list = || {
                end(Command::new("ls").arg("-lR").arg(bpffs))
                    .unwrap()
                    .stdout
            };
            let before = list();
            for (verb, ended) in every_verb(&wire.host, OsStr::new(&wire.trunk)) {
                assert_refused(&format!("{verb}, {what}"), &ended, 5, &words);
                victim.assert_untouched(&verb);
            }
            assert_eq!(list(), before, "{what} stays");
        });
    }
    // A world-writable directory with the sticky bit is accepted.
    aside(0o1777, || {
        let attached = Attached::start(&wire.host, &wire.trunk, &["--metrics", "off"]).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(Path::new(PINS)), 0o700);
        assert_eq!(mode(&pins(&wire.trunk)), 0o700);
        attached.stop().unwrap();
    });
}

#[test]
fn a_directory_of_pins_that_was_swapped_is_not_followed() {
    require!("swapped", nix::unistd::geteuid().is_root(), "needs root");
    let victim = Victim::new();
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, trunk).unwrap();
    aside(0o755, || {
        let attached = Attached::start(host, trunk, &["--metrics", "off"]).unwrap();
        let (ours, root) = (pins(trunk), Path::new(PINS));
        let elsewhere = root.join("elsewhere");
        fs::set_permissions(root, Permissions::from_mode(0o777)).unwrap();
        let (from, to, path) = (ours.display(), elsewhere.display(), victim.path().display());
        as_other(&format!("mv {from} {to} && ln -s {path} {from}"));
        let words = ["/vlanfast can't be trusted", "mode 0777", "chmod 700"];
        for (verb, ended) in every_verb(host, OsStr::new(trunk)) {
            assert_refused(&verb, &ended, 5, &words);
        }
        // Once the parent is in order, the link itself is refused.
        fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap();
        for (verb, ended) in every_verb(host, OsStr::new(trunk)) {
            assert_refused(&verb, &ended, 5, &[trunk, "it is a link"]);
        }
        victim.assert_untouched("those who were refused");
        // The attached process continues in the directory that it holds open, and removes only its own pins.
        let ended = attached.stop();
        victim.assert_untouched("the process that was attached");
        assert!(ours.is_symlink(), "{ended:?}");
        fs::remove_file(&ours).unwrap();
        if elsewhere.exists() {
            fs::rename(&elsewhere, &ours).unwrap();
            detach(host, trunk).unwrap();
        }
        assert!(!is_pinned(trunk));
    });
    before.wait_until_as_before(host, trunk).unwrap();
}

#[test]
fn a_trunks_directory_that_others_can_write_to_is_refused() {
    require!("others", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    aside(0o755, || {
        Attached::start(host, trunk, &["--metrics", "off"])
            .unwrap()
            .kill()
            .unwrap();
        let ours = pins(trunk);
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&ours)
                .unwrap()
                .flatten()
                .map(|it| it.path())
                .collect();
            names.sort();
            names
        };
        let before = names();
        for (mode, owner, word) in [
            (0o770, 0, "mode 0770"),
            (0o700, OTHER, "belongs to user 65534"),
        ] {
            fs::set_permissions(&ours, Permissions::from_mode(mode)).unwrap();
            chown(&ours, Some(owner), None).unwrap();
            for (verb, ended) in every_verb(host, OsStr::new(trunk)) {
                assert_refused(&verb, &ended, 5, &[trunk, word, "chown root"]);
            }
            assert_eq!(names(), before);
        }
        chown(&ours, Some(0), None).unwrap();
        detach(host, trunk).unwrap();
        assert!(!is_pinned(trunk));
    });
}

#[test]
fn foreign_files_among_the_pins_stay() {
    require!("not ours", nix::unistd::geteuid().is_root(), "needs root");
    let victim = Victim::new();
    let wire = Wire::veth().unwrap();
    let (host, trunk) = (&wire.host, wire.trunk.as_str());
    let before = Residue::of(host, trunk).unwrap();
    let attached = Attached::start(host, trunk, &["--metrics", "off"]).unwrap();
    let ours = pins(trunk);
    let link = ours.join("notes");
    symlink(victim.path(), &link).unwrap();
    let pin = ours.join("MINE");
    let map = MapData::from_pin(ours.join("VLANS")).unwrap();
    map.pin(&pin).unwrap();
    drop(map);
    // A link in the place of a pin is removed, and its target is not.
    fs::remove_file(ours.join("STATUS")).unwrap();
    symlink(victim.path().join("precious"), ours.join("STATUS")).unwrap();
    attached.kill().unwrap();
    let ended = end(host.command(&binary()).args(["detach", trunk])).unwrap();
    assert_refused("detach", &ended, 1, &["/notes", "/MINE", "is detached"]);
    victim.assert_untouched("detach");
    let left: Vec<_> = fs::read_dir(&ours)
        .unwrap()
        .flatten()
        .map(|it| it.path())
        .collect();
    assert!(
        left.len() == 2 && left.contains(&link) && left.contains(&pin),
        "{left:?}"
    );
    // It does not prevent a new attachment either.
    Attached::start(host, trunk, &["--metrics", "off"])
        .unwrap()
        .kill()
        .unwrap();
    fs::remove_file(&pin).unwrap();
    fs::remove_file(&link).unwrap();
    detach(host, trunk).unwrap();
    assert!(!is_pinned(trunk));
    before.wait_until_as_before(host, trunk).unwrap();
}
