//! Limits the open connections of the metrics server. When there are too many, the oldest is closed, so that a new client
//! is always served.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Connections at a time. When another comes, one of these makes way.
pub const CONNECTIONS: usize = 16;
/// Those of them that may have an answer in memory, which is megabytes with thousands of VLANs.
pub const ANSWERS: usize = 4;

/// The open connections, the oldest first.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Vec<Guest>>);

#[derive(Debug)]
struct Guest {
    number: u64,
    /// It has said what it wants, and is being answered.
    has_asked: bool,
    task: AbortHandle,
}

/// A connection's place; dropped with the connection, it is free.
#[derive(Debug)]
pub struct ConnectionSlot {
    room: Arc<Connections>,
    number: u64,
}

impl Connections {
    fn guests(&self) -> MutexGuard<'_, Vec<Guest>> {
        // Nothing panics while it is held, and a list of connections is good at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a connection that is about to begin.
    pub fn place(self: &Arc<Self>, number: u64) -> ConnectionSlot {
        ConnectionSlot {
            room: self.clone(),
            number,
        }
    }

    /// Takes a connection in, which goes by the number of its place. Where there are too many, the oldest of
    /// those that have not asked for anything makes way; and if all have, the oldest.
    pub fn enter(&self, number: u64, task: AbortHandle) {
        let mut guests = self.guests();
        if guests.len() >= CONNECTIONS {
            let silent = guests.iter().position(|guest| !guest.has_asked);
            guests.remove(silent.unwrap_or(0)).task.abort();
        }
        guests.push(Guest {
            number,
            has_asked: false,
            task,
        });
    }
}

impl ConnectionSlot {
    /// An answer to this connection is about to be made. Where too many others read theirs, the oldest of them
    /// makes way.
    pub fn asks(&self) {
        let mut guests = self.room.guests();
        let others = |guest: &Guest| guest.has_asked && guest.number != self.number;
        if guests.iter().filter(|guest| others(guest)).count() >= ANSWERS
            && let Some(oldest) = guests.iter().position(others)
        {
            guests.remove(oldest).task.abort();
        }
        let own = guests.iter_mut().find(|guest| guest.number == self.number);
        if let Some(own) = own {
            own.has_asked = true;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        guests.retain(|guest| guest.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinHandle;

    use super::*;

    struct Scene {
        room: Arc<Connections>,
        guests: Vec<(ConnectionSlot, JoinHandle<()>)>,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                room: Arc::default(),
                guests: vec![],
            }
        }

        fn come(&mut self) {
            let number = self.guests.len() as u64;
            let task = tokio::spawn(pending());
            self.room.enter(number, task.abort_handle());
            self.guests.push((self.room.place(number), task));
        }

        /// The numbers of those that are gone.
        async fn gone(&self) -> Vec<usize> {
            tokio::task::yield_now().await;
            let guests = self.guests.iter().enumerate();
            let gone = guests.filter(|(_, (_, task))| task.is_finished());
            gone.map(|(number, _)| number).collect()
        }
    }

    #[tokio::test]
    async fn the_oldest_that_is_silent_makes_way() {
        let mut scene = Scene::new();
        (0..CONNECTIONS).for_each(|_| scene.come());
        assert_eq!(scene.gone().await, [0; 0]);
        scene.guests[0].0.asks();
        scene.come();
        assert_eq!(scene.gone().await, [1]);
        (0..CONNECTIONS).for_each(|_| scene.come());
        // The one that reads its answer is still there, whoever came.
        assert!(!scene.gone().await.contains(&0));
        assert_eq!(scene.gone().await.len(), CONNECTIONS + 1);
    }

    #[tokio::test]
    async fn few_have_an_answer_in_memory_and_the_oldest_makes_way() {
        let mut scene = Scene::new();
        (0..ANSWERS + 2).for_each(|_| scene.come());
        for number in 0..ANSWERS {
            scene.guests[number].0.asks();
        }
        assert_eq!(scene.gone().await, [0; 0]);
        scene.guests[ANSWERS].0.asks();
        assert_eq!(scene.gone().await, [0]);
        // Who asks again does not push others out.
        scene.guests[ANSWERS].0.asks();
        assert_eq!(scene.gone().await, [0]);
        scene.guests[ANSWERS + 1].0.asks();
        assert_eq!(scene.gone().await, [0, 1]);
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_connection_ends() {
        let mut scene = Scene::new();
        (0..CONNECTIONS).for_each(|_| scene.come());
        let (place, task) = scene.guests.remove(3);
        drop(place);
        assert_eq!(scene.room.guests().len(), CONNECTIONS - 1);
        assert!(!task.is_finished());
    }
}
