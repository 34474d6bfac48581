//! How a process that is attached is told to end, and that it does end.
//!
//! A signal ends whatever is being waited for. Where something does not come back all the same (a
//! terminal that takes no output, a call that never returns), a thread of its own ends the process, as
//! a `kill -9` would: what is attached stays, passes every frame, and is for the next `attach` or `detach`.

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

/// How long an ending process may go without getting any further.
const GRACE: Duration = Duration::from_millis(700);

/// However long a driver takes: supervisors have no more patience either.
const LONGEST: Duration = Duration::from_secs(8);

static STEPS: AtomicU64 = AtomicU64::new(0);
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Says that we got further: an end that does get on may take longer than [`GRACE`].
pub fn step() {
    STEPS.fetch_add(1, Relaxed);
}

/// Calls into the kernel for something that only a driver, or whoever holds the kernel's locks, can make last:
/// it comes back by itself, and to be ended in its middle would leave the rest undone.
pub fn in_kernel<T>(call: impl FnOnce() -> T) -> T {
    BUSY.fetch_add(1, Relaxed);
    let done = call();
    BUSY.fetch_sub(1, Relaxed);
    step();
    done
}

/// The signals that end an attachment.
pub struct Stop(Vec<Signal>);

impl Stop {
    /// Listens from here on. What was ignored when we were started stays so, as `nohup` and a shell's
    /// background jobs want it; SIGTERM alone always counts, because it is how `detach` and supervisors
    /// end us.
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

/// Whether nothing happens when the signal comes.
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

/// Starts the thread that ends the process where it does not end by itself.
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
        "error: told to end, and something does not answer: what is still attached passes every frame; \
         `vlanfast detach TRUNK` takes it off",
    );
    // SAFETY: ends the process; what others may see of it is as after a kill -9.
    unsafe { libc::_exit(1) }
}
