//! Whoever answers at Docker's socket may answer anything. Whatever it is, there is an end to it in time,
//! it costs a bounded amount of memory, and what is sane is understood afterwards.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is a test, and one that cannot go on should panic"
)]

mod answers;
mod crowd;
mod server;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use vlanfast::names::docker::DockerSocket;
use vlanfast::names::docker::list_once;
use vlanfast::state::snapshot::Docker;
use vlanfast_common::SourceState;

use server::Server;

/// Counts what is in use, and the most that ever was.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(used, Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    /// What is large enough to matter is not copied: the kernel moves its pages.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let used = USED.fetch_add(size, Relaxed) + size - layout.size();
        USED.fetch_sub(layout.size(), Relaxed);
        MOST.fetch_max(used, Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests of this program go one after the other: they share the count.
static NO_STEER: Mutex<()> = Mutex::new(());

/// What reading one answer may take, as `source/docker.rs` promises.
const MEMORY: usize = 64 << 20;
/// For answers that go on: they are cut off by the clock.
const SHORT: Duration = Duration::from_millis(200);
/// For those that end by themselves; emulated machines are slow.
const LONG: Duration = Duration::from_secs(120);

/// Asks once, and says what came, and how much memory that took.
fn ask(server: &Server, limit: Duration) -> (Docker, SourceState, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = USED.load(Relaxed);
    MOST.store(before, Relaxed);
    let wish = DockerSocket::Socket(server.socket.clone());
    let (docker, status) = runtime.block_on(list_once(&wish, limit));
    // With what it left behind to be done.
    drop(runtime);
    let took = MOST.load(Relaxed) - before;
    (
        docker,
        SourceState::from_number(status.state).unwrap(),
        took,
    )
}

#[test]
fn a_hundred_hostile_answers_end_in_bounds() {
    let _alone = NO_STEER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    for seed in 0..100 {
        let hostile = answers::generate(seed);
        let what = format!("seed {seed}: {} for {}", hostile.name, hostile.path);
        let limit = if hostile.ends { LONG } else { SHORT };
        let (mercy, may_be_sane) = (limit + LONG, hostile.may_be_sane);
        server.answer(Some(hostile));
        let start = Instant::now();
        let (docker, state, took) = ask(&server, limit);
        assert!(start.elapsed() < mercy, "{what}: {:?}", start.elapsed());
        println!("{what}: {:?}, {} KiB", start.elapsed(), took >> 10);
        assert!(took < MEMORY, "{what}: {} KiB", took >> 10);
        if !may_be_sane {
            assert_eq!(state, SourceState::Unreachable, "{what}");
            assert_eq!(docker, Docker::default(), "{what}");
        }
        for container in &docker.containers {
            let (project, service) = (container.project.iter(), container.service.iter());
            let mut texts = [&container.name].into_iter().chain(project).chain(service);
            assert!(texts.all(|text| text.len() < 140), "{what}");
        }

        server.answer(None);
        let (docker, state, _) = ask(&server, LONG);
        assert_eq!(state, SourceState::Ok, "after {what}");
        assert_eq!(docker.containers[0].name, "web", "after {what}");
    }
}

/// As Docker 28 lists containers that Compose made, with what it says of each.
#[test]
fn ten_thousand_containers_have_room() {
    let _alone = NO_STEER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    let list = crowd::containers(10_000);
    let size = list.len();
    println!("{} bytes for each container", size / 10_000);
    server.answer(Some(answers::whole("/containers/json", list)));
    let (docker, state, took) = ask(&server, LONG);
    assert_eq!(state, SourceState::Ok);
    assert_eq!(docker.containers.len(), 10_000);
    assert_eq!(docker.containers[9_999].name, "shop-worker-9999");
    println!("{} MiB of answer took {} MiB", size >> 20, took >> 20);
    assert!(took < MEMORY, "{took}");
}
