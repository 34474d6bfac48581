//! Tests with a malicious peer at Docker's socket. Whatever it answers, a request ends in time and takes a limited
//! amount of memory, and the next valid answer is parsed.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is a test, and one that cannot go on should panic"
)]

mod answers;
mod large_host;
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

/// An allocator that records the memory in use and its maximum.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are passed on to `System`.
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

    /// A large allocation is not copied, because the kernel moves its pages.
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

/// A lock so that the tests run one after the other, because they share the counter.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The limit of memory for one answer, as documented in `names/docker.rs`.
const MEMORY: usize = 64 << 20;
/// The time limit for answers without end.
const SHORT: Duration = Duration::from_millis(200);
/// The time limit for answers that end by themselves. Emulated machines are slow.
const LONG: Duration = Duration::from_secs(120);

/// Reads one list, and returns it with the state and the amount of memory that was used.
fn ask(server: &Server, limit: Duration) -> (Docker, SourceState, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = USED.load(Relaxed);
    MOST.store(before, Relaxed);
    let socket = DockerSocket::Socket(server.socket.clone());
    let (docker, status) = runtime.block_on(list_once(&socket, limit));
    // Dropping the runtime includes tasks that are still to be done.
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
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The list is like that of Docker 28 for containers of Docker Compose.
#[test]
fn ten_thousand_containers_have_room() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    let list = large_host::containers(10_000);
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
