//! Stops an attached process by a signal.
//!
//! A signal ends everything that is being waited for. If something blocks all the same, such as a terminal that takes
//! no output or a system call that does not return, a separate thread ends the process as `kill -9` would. The programs
//! then stay attached, pass every frame, and are left to the next `attach` or `detach`.

use std::{
    mem, ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::output;

/// How long an ending process may make no progress.
const GRACE: Duration = Duration::from_millis(700);

/// How long ending may take in all. Supervisors do not wait longer either.
const LONGEST: Duration = Duration::from_secs(8);

static STEPS: AtomicU64 = AtomicU64::new(0);
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Records progress. As long as there is progress, ending may take longer than [`GRACE`].
pub fn step() {
    STEPS.fetch_add(1, Relaxed);
}

/// Makes a system call that may block only in a driver or on the kernel's locks. It will return by itself, and ending
/// the process in the middle would leave its work half done, so a call counts as progress.
pub fn in_kernel<T>(call: impl FnOnce() -> T) -> T {
    BUSY.fetch_add(1, Relaxed);
    let done = call();
    BUSY.fetch_sub(1, Relaxed);
    step();
    done
}

/// The signals that end the attachment.
pub struct Stop(Vec<Signal>);

impl Stop {
    /// Starts to listen for signals. Signals that were ignored when the process started stay ignored, as `nohup` and
    /// background jobs of a shell expect. SIGTERM is always handled, because `detach` and supervisors send it.
    pub fn listen() -> anyhow::Result<Self> {
        let all = signals();
        guard(all.clone())?;
        listen(&all).map(Self)
    }

    pub async fn wait(&mut self) {
        any(&mut self.0).await;
    }
}

fn signals() -> Vec<SignalKind> {
    let optional = [SignalKind::interrupt(), SignalKind::hangup()];
    let heeded = optional.into_iter().filter(|kind| !is_ignored(*kind));
    heeded.chain([SignalKind::terminate()]).collect()
}

/// Whether the process ignores a signal.
fn is_ignored(kind: SignalKind) -> bool {
    // SAFETY: all zeroes is a valid sigaction, and the kernel only writes to it.
    let (asked, action) = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        let asked = libc::sigaction(kind.as_raw_value(), ptr::null(), &raw mut action);
        (asked, action)
    };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn listen(kinds: &[SignalKind]) -> anyhow::Result<Vec<Signal>> {
    let listen = |kind: &SignalKind| signal(*kind).context("failed to listen for signals");
    kinds.iter().map(listen).collect()
}

async fn any(signals: &mut [Signal]) {
    let one = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(one).await;
}

/// Starts the thread that ends the process if it does not end by itself.
fn guard(kinds: Vec<SignalKind>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to listen for signals")?;
    let mut signals = {
        let _entered = runtime.enter();
        listen(&kinds)?
    };
    let wait = move || {
        runtime.block_on(any(&mut signals));
        let (begin, mut steps) = (Instant::now(), None);
        let gets_on = |steps| steps != Some(STEPS.load(Relaxed)) || BUSY.load(Relaxed) > 0;
        while gets_on(steps) && begin.elapsed() < LONGEST {
            steps = Some(STEPS.load(Relaxed));
            thread::sleep(GRACE);
        }
        give_up()
    };
    let thread = thread::Builder::new().name("stop".into()).spawn(wait);
    thread.context("failed to start a thread").map(drop)
}

fn give_up() -> ! {
    output::note(
        "error: told to end, and something does not answer: programs that are still attached pass every frame; \
         `vlanfast detach TRUNK` removes them",
    );
    // SAFETY: this ends the process at once; to others it looks like a kill -9.
    unsafe { libc::_exit(1) }
}
