//! Tests with a malicious daemon over a longer time. Single answers are tested in `tests/hostile/`.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;
use vlanfast_common::SourceState;

use crate::names::docker::{
    DockerSocket, SETTLE, SETTLE_MOST,
    answer::{MOST, cut},
    fake::{Daemon, socket},
    next_pause,
    tests::{container, fake_docker, is, names, until},
    watch, watch_daemon,
};

#[tokio::test]
async fn names_outlive_invalid_answers() {
    for garbage in ["[", r#"[{"Id": [[]]}]"#, "{}"] {
        let (_dir, socket) = socket();
        let fake = fake_docker();
        let daemon = Daemon::start(&socket, &fake);
        let (_task, mut states) = watch(DockerSocket::Socket(socket));
        until(&mut states, is(SourceState::Ok)).await;

        fake.change(|script| script.garbage = Some(garbage));
        daemon.send_event("container", "start");
        let wrong = until(&mut states, is(SourceState::Unreachable)).await;
        assert_eq!(names(&wrong), ["web"], "{garbage}");
        assert!(wrong.status.last_success > 0);
    }
}

#[tokio::test]
async fn names_outlive_a_daemon_that_hangs_and_come_back() {
    let (_dir, socket) = socket();
    let fake = fake_docker();
    let daemon = Daemon::start(&socket, &fake);
    let watched = crate::names::docker::Daemon {
        socket,
        pid_files: None,
    };
    let (_task, mut states) = watch_daemon(Some(watched), Duration::from_secs(1));
    until(&mut states, is(SourceState::Ok)).await;

    fake.change(|script| script.hangs = true);
    daemon.send_event("container", "start");
    let hung = until(&mut states, is(SourceState::Unreachable)).await;
    assert_eq!(names(&hung), ["web"]);

    fake.change(|script| {
        script.hangs = false;
        script.containers = json!([container("api", "running", json!({}))]);
    });
    let back = states.wait_for(|state| names(state) == ["api"]);
    let back = tokio::time::timeout(3 * crate::names::docker::error::RETRY_WRONG, back).await;
    assert!(is(SourceState::Ok)(&back.unwrap().unwrap()));
}

#[tokio::test]
async fn a_flood_of_events_causes_few_lists() {
    let (_dir, socket) = socket();
    let fake = fake_docker();
    fake.change(|script| script.floods = true);
    let _daemon = Daemon::start(&socket, &fake);
    let (_task, mut states) = watch(DockerSocket::Socket(socket));
    until(&mut states, is(SourceState::Ok)).await;
    let lists = || {
        fake.change(|script| {
            let asked = script.asked.iter();
            asked.filter(|path| path.starts_with("/networks")).count()
        })
    };
    // The pauses have to grow first.
    let start = Instant::now();
    while lists() < 8 {
        sleep(SETTLE).await;
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} lists",
            lists()
        );
    }
    let (before, start) = (lists(), Instant::now());
    sleep(3 * SETTLE_MOST).await;
    let most = start.elapsed().as_secs() as usize + 1;
    assert!(
        (1..=most).contains(&(lists() - before)),
        "{}",
        lists() - before
    );

    // Changed names still arrive.
    let renamed = json!([container("api", "running", json!({}))]);
    fake.change(|script| script.containers = renamed);
    until(&mut states, |state| names(state) == ["api"]).await;
}

#[test]
fn pauses_grow_with_events_and_shrink_without() {
    let ms = Duration::from_millis;
    let mut pause = SETTLE;
    let grown: Vec<_> = std::iter::repeat_with(|| {
        pause = next_pause(pause, Duration::ZERO);
        pause
    })
    .take(7)
    .collect();
    assert_eq!(grown, [40, 80, 160, 320, 640, 1000, 1000].map(ms));
    assert_eq!(next_pause(SETTLE_MOST, ms(4000)), SETTLE_MOST);
    assert_eq!(next_pause(SETTLE_MOST, ms(8000)), SETTLE);
    assert_eq!(next_pause(SETTLE, ms(80)), SETTLE);
    assert_eq!(next_pause(SETTLE, Duration::MAX), SETTLE);
}

#[test]
fn texts_are_cut_between_letters() {
    assert_eq!(cut("web"), "web");
    assert_eq!(cut(&"é".repeat(64)), "é".repeat(64));
    assert_eq!(cut(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    assert_eq!(cut(&format!("a{}", "é".repeat(64))).chars().count(), 65);
}

/// Each element is read into a structure larger than itself, so even short ones are limited in number.
#[test]
fn a_list_of_too_many_is_refused() {
    use super::answer::{List, Listed, Network};
    let list = |element: &str, count: usize| {
        format!("[{}{element}]", format!("{element},").repeat(count - 1))
    };
    let containers =
        |text: &str| serde_json::from_str::<List<Listed>>(text).map(|list| list.0.len());
    let networks =
        |text: &str| serde_json::from_str::<List<Network>>(text).map(|list| list.0.len());
    assert_eq!(containers(&list("{}", MOST)).unwrap(), MOST);
    assert!(containers(&list("{}", MOST + 1)).is_err());
    // Networks that are not macvlans are not kept.
    assert_eq!(networks(&list("{}", 2 * MOST)).unwrap(), 0);
    let macvlan = r#"{"Driver": "macvlan"}"#;
    assert_eq!(networks(&list(macvlan, MOST)).unwrap(), MOST);
    assert!(networks(&list(macvlan, MOST + 1)).is_err());
    let many = list(r#""":{"NetworkID":""}"#, 257)
        .replace('[', "{")
        .replace(']', "}");
    assert!(containers(&format!(r#"[{{"NetworkSettings":{{"Networks":{many}}}}}]"#)).is_err());
    let attached = list(r#""":{"NetworkID":""}"#, 256)
        .replace('[', "{")
        .replace(']', "}");
    let attached = format!(r#"{{"NetworkSettings":{{"Networks":{attached}}}}}"#);
    assert_eq!(containers(&list(&attached, 128)).unwrap(), 128);
    assert!(containers(&list(&attached, 129)).is_err());
}
