//! Tests of the lock on pins, of renaming them after their trunk, and of removing them.

use std::fs;

use crate::pins::trunk::*;

const ETH0: TrunkId = TrunkId {
    netns: 1,
    ifindex: 2,
};

fn create(above: &tempfile::TempDir, id: TrunkId, name: &str) -> Result<(Pins, Lock), Holder> {
    let root = || Root::make_in(Dir::at(above.path().to_str().unwrap()).unwrap());
    Pins::create_in(root, id, &Name::from(name)).unwrap()
}

fn names(above: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(above.path().join("vlanfast"))
        .unwrap()
        .flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn readers_do_not_exclude_each_other() {
    let above = tempfile::tempdir().unwrap();
    let (pins, lock) = create(&above, ETH0, "eth0").unwrap();
    assert!(pins.holder().is_some() && pins.holder().is_some());
    assert_eq!(pins.lock().unwrap().unwrap_err(), pins.holder().unwrap());
    assert_eq!(
        create(&above, ETH0, "eth0").unwrap_err(),
        pins.holder().unwrap()
    );
    drop(lock);
    // Another process reads at this moment.
    let looking = pins.try_lock(FlockArg::LockSharedNonblock);
    let looking = looking.unwrap().unwrap().unwrap();
    assert_eq!(pins.holder(), None);
    let looks = thread::spawn(move || {
        thread::sleep(PATIENCE / 4);
        drop(looking);
    });
    pins.lock().unwrap().unwrap();
    looks.join().unwrap();
}

#[test]
fn trunks_may_swap_their_names() {
    let above = tempfile::tempdir().unwrap();
    let eth1 = TrunkId { ifindex: 3, ..ETH0 };
    let (mut one, lock) = create(&above, ETH0, "eth0").unwrap();
    let (mut other, _lock) = create(&above, eth1, "eth1").unwrap();
    one.rename(&Name::from("eth1")).unwrap();
    assert_eq!(names(&above), ["1:2:eth1", "1:3:eth1"]);
    other.rename(&Name::from("eth0.7")).unwrap();
    assert_eq!(names(&above), ["1:2:eth1", "1:3:eth0:7"]);
    assert!(one.exist() && one.holder().is_some());
    // The next process finds the directory by the trunk's id.
    drop(lock);
    let (again, _lock) = create(&above, ETH0, "eth9").unwrap();
    assert_eq!(
        again.dir.stat().unwrap().st_ino,
        one.dir.stat().unwrap().st_ino
    );
    assert_eq!(names(&above), ["1:2:eth9", "1:3:eth0:7"]);
    one.remove().unwrap();
    assert_eq!(names(&above), ["1:3:eth0:7"]);
}

#[test]
fn pins_of_a_version_that_knew_trunks_by_name_are_adopted() {
    let above = tempfile::tempdir().unwrap();
    let root = Root::make_in(Dir::at(above.path().to_str().unwrap()).unwrap()).unwrap();
    root.dir.make(b"br-lan:10").unwrap();
    let [mut old] =
        <[Pins; 1]>::try_from(Pins::find_in(&root, |_| true, |_| true).unwrap()).unwrap();
    assert_eq!((old.id, old.trunk.to_string()), (None, "br-lan.10".into()));
    let lock = old.lock().unwrap().unwrap();
    old.adopt(ETH0, &Name::from("br-lan.10")).unwrap();
    assert_eq!(names(&above), ["1:2:br-lan:10"]);
    drop(lock);
    create(&above, ETH0, "br-lan.10").unwrap();
    assert_eq!(names(&above), ["1:2:br-lan:10"]);
}

#[test]
fn a_removed_directory_can_not_be_locked() {
    let above = tempfile::tempdir().unwrap();
    let (pins, _lock) = create(&above, ETH0, "eth0").unwrap();
    pins.remove().unwrap();
    assert!(pins.lock().is_err() && pins.holder().is_none() && !pins.exist());
    let (new, _lock) = create(&above, ETH0, "eth0").unwrap();
    assert!(new.exist() && !pins.exist());
}

#[test]
fn files_of_others_stay() {
    let above = tempfile::tempdir().unwrap();
    let (pins, _lock) = create(&above, ETH0, "eth0").unwrap();
    let dir = above.path().join("vlanfast/1:2:eth0");
    for name in [
        "COUNTERS",
        "next_ingress_link",
        "egress_program",
        "next_",
        "notes",
    ] {
        fs::write(dir.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink(dir.join("notes"), dir.join("VLANS")).unwrap();
    let error = pins.remove().unwrap_err().downcast::<Error>().unwrap();
    assert!(matches!(&error, Error::NotOurs { files, .. }
        if files.contains("/next_") && files.contains("/notes") && !files.contains("COUNTERS")));
    let mut left: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .map(|it| it.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["next_", "notes"]);
}

#[test]
fn the_holder_is_known_by_its_descriptor() {
    let above = tempfile::tempdir().unwrap();
    let (pins, lock) = create(&above, ETH0, "eth0").unwrap();
    let own = Process::open(std::process::id() as i32).unwrap().unwrap();
    let dir = pins.dir.stat().unwrap();
    assert!(own.has_locked(&dir).unwrap());
    let holders = holder::holders(&dir);
    assert!(
        holders.contains(&std::process::id().to_string()),
        "{holders}"
    );
    drop(lock);
    assert!(!own.has_locked(&dir).unwrap());
    assert!(pins.process().unwrap().is_none());
}
