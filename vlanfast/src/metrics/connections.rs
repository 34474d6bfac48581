//! Limits the open connections of the metrics server. When there are too many, the oldest is closed, so that a new
//! client is always served.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// The maximum number of connections. When another one is accepted, an open one is closed.
pub const CONNECTIONS: usize = 16;
/// The maximum number of connections with an answer in memory, which takes megabytes with thousands of VLANs.
pub const ANSWERS: usize = 4;

/// The open connections, the oldest first.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Vec<Client>>);

#[derive(Debug)]
struct Client {
    number: u64,
    /// The request has been received and is being answered.
    has_request: bool,
    task: AbortHandle,
}

/// The slot of a connection. Dropping it frees the slot.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        // Nothing panics while the lock is held, and the list is consistent at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the slot for a connection that is about to start.
    pub fn slot(self: &Arc<Self>, number: u64) -> ConnectionSlot {
        ConnectionSlot {
            connections: self.clone(),
            number,
        }
    }

    /// Adds the connection with the number of its slot. If there are too many, the oldest one without a request is
    /// closed; if all have sent one, the oldest of all.
    pub fn add(&self, number: u64, task: AbortHandle) {
        let mut clients = self.clients();
        if clients.len() >= CONNECTIONS {
            let silent = clients.iter().position(|client| !client.has_request);
            clients.remove(silent.unwrap_or(0)).task.abort();
        }
        clients.push(Client {
            number,
            has_request: false,
            task,
        });
    }
}

impl ConnectionSlot {
    /// Records that the answer is about to be made. If too many others are still reading their answers, the oldest of
    /// them is closed.
    pub fn start_answer(&self) {
        let mut clients = self.connections.clients();
        let others = |client: &Client| client.has_request && client.number != self.number;
        if clients.iter().filter(|client| others(client)).count() >= ANSWERS
            && let Some(oldest) = clients.iter().position(others)
        {
            clients.remove(oldest).task.abort();
        }
        let own = clients
            .iter_mut()
            .find(|client| client.number == self.number);
        if let Some(own) = own {
            own.has_request = true;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut clients = self.connections.clients();
        clients.retain(|client| client.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinHandle;

    use super::*;

    struct Fixture {
        connections: Arc<Connections>,
        clients: Vec<(ConnectionSlot, JoinHandle<()>)>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                connections: Arc::default(),
                clients: vec![],
            }
        }

        fn connect(&mut self) {
            let number = self.clients.len() as u64;
            let task = tokio::spawn(pending());
            self.connections.add(number, task.abort_handle());
            self.clients.push((self.connections.slot(number), task));
        }

        /// Returns the numbers of the closed connections.
        async fn closed(&self) -> Vec<usize> {
            tokio::task::yield_now().await;
            let clients = self.clients.iter().enumerate();
            let closed = clients.filter(|(_, (_, task))| task.is_finished());
            closed.map(|(number, _)| number).collect()
        }
    }

    #[tokio::test]
    async fn the_oldest_without_a_request_is_closed() {
        let mut fixture = Fixture::new();
        (0..CONNECTIONS).for_each(|_| fixture.connect());
        assert_eq!(fixture.closed().await, [0; 0]);
        fixture.clients[0].0.start_answer();
        fixture.connect();
        assert_eq!(fixture.closed().await, [1]);
        (0..CONNECTIONS).for_each(|_| fixture.connect());
        // A connection that reads its answer survives the newcomers.
        assert!(!fixture.closed().await.contains(&0));
        assert_eq!(fixture.closed().await.len(), CONNECTIONS + 1);
    }

    #[tokio::test]
    async fn few_have_an_answer_in_memory_and_the_oldest_is_closed() {
        let mut fixture = Fixture::new();
        (0..ANSWERS + 2).for_each(|_| fixture.connect());
        for number in 0..ANSWERS {
            fixture.clients[number].0.start_answer();
        }
        assert_eq!(fixture.closed().await, [0; 0]);
        fixture.clients[ANSWERS].0.start_answer();
        assert_eq!(fixture.closed().await, [0]);
        // A second request on the same connection closes no other.
        fixture.clients[ANSWERS].0.start_answer();
        assert_eq!(fixture.closed().await, [0]);
        fixture.clients[ANSWERS + 1].0.start_answer();
        assert_eq!(fixture.closed().await, [0, 1]);
    }

    #[tokio::test]
    async fn a_slot_is_free_when_its_connection_ends() {
        let mut fixture = Fixture::new();
        (0..CONNECTIONS).for_each(|_| fixture.connect());
        let (slot, task) = fixture.clients.remove(3);
        drop(slot);
        assert_eq!(fixture.connections.clients().len(), CONNECTIONS - 1);
        assert!(!task.is_finished());
    }
}
