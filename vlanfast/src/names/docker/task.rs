//! A task that ends with its owner.

use tokio::task::JoinHandle;

/// A spawned task; dropping this aborts it.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    pub const fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
