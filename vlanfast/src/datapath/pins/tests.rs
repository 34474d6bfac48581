//! Who holds pins, and how they follow their trunk.

use super::*;

#[test]
fn only_who_holds_this_very_file_exclusively_is_its_holder() {
    let locks = "\
1: POSIX  ADVISORY  WRITE 11 00:20:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF
3: FLOCK  ADVISORY  READ  13 00:20:77 0 EOF
4: FLOCK  ADVISORY  WRITE 14 00:20:77 0 EOF
4: -> FLOCK  ADVISORY  WRITE 15 00:20:77 0 EOF
5: FLOCK  ADVISORY  WRITE 0 00:20:78 0 EOF
";
    assert_eq!(writer(locks, "00:20:77"), Some(14));
    assert_eq!(writer(locks, "00:20:78"), None);
    assert_eq!(writer(locks, "00:20:7"), None);
}

fn pins() -> (tempfile::TempDir, Pins) {
    let root = tempfile::tempdir().unwrap();
    let pins = Pins::under(root.path(), "eth0");
    (root, pins)
}

#[test]
fn who_looks_disturbs_nobody() {
    let (_root, pins) = pins();
    let lock = pins.create().unwrap().unwrap();
    assert!(pins.holder().is_some() && pins.holder().is_some());
    assert_eq!(pins.lock().unwrap().unwrap_err(), pins.holder().unwrap());
    drop(lock);
    // Someone who looks at this very moment.
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
fn pins_that_nobody_holds_change_names_with_ours() {
    let (_root, mut pins) = pins();
    let other = pins.other("eth1");
    let (ours, others) = (pins.create().unwrap().unwrap(), other.create());
    let others = others.unwrap().unwrap().unlock().unwrap();
    pins.rename("eth1").unwrap();
    assert!(pins.trunk == "eth1" && pins.is(&ours));
    assert!(pins.other("eth0").is(&others));
}

#[test]
fn processes_whose_trunks_swapped_names_find_a_way() {
    let (_root, mut pins) = pins();
    let mut other = pins.other("eth1");
    let _locks = [pins.create(), other.create()].map(|taken| taken.unwrap().unwrap());
    for _ in 0..2 {
        let taken = pins.rename("eth1").unwrap_err();
        assert!(matches!(taken.downcast(), Ok(Error::NameTaken { .. })));
        assert!(pins.trunk == "eth0" && pins.exist());
    }
    other.rename("eth0").unwrap();
    pins.rename("eth1").unwrap();
    assert!(other.trunk == "eth0" && pins.trunk == "eth1");
}

#[test]
fn the_lock_of_a_directory_that_is_gone_is_none() {
    let (root, pins) = pins();
    assert!(pins.lock().is_err() && pins.holder().is_none());
    let old = pins.create().unwrap().unwrap();
    fs::rename(&pins.dir, root.path().join("elsewhere")).unwrap();
    assert!(!pins.is(&old));
    let new = pins.create().unwrap().unwrap();
    assert!(pins.is(&new));
}
