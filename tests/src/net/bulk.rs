//! TCP in bulk from one namespace to another.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::net::namespace::{Netns, in_netns};

pub const MEGABYTE: usize = 1_000_000;

/// A connection whose ends are in two namespaces.
pub struct BulkConnection {
    pub sender: TcpStream,
    pub receiver: TcpStream,
}

impl BulkConnection {
    pub fn open(from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<Self> {
        let listener = in_netns(&to.path(), move || {
            let bound = TcpListener::bind((address, 5001));
            bound.with_context(|| format!("failed to bind to {address}"))
        })?;
        let accepted = thread::spawn(move || listener.accept());
        let sender = in_netns(&from.path(), move || {
            let connected = TcpStream::connect((address, 5001));
            connected.with_context(|| format!("failed to reach {address}"))
        })?;
        let (receiver, _) = joined(accepted).context("failed to accept the connection")?;
        Ok(Self { sender, receiver })
    }

    /// Sends so many bytes, and waits until they are read.
    pub fn transfer(&self, bytes: usize) -> Result<()> {
        let mut sender = self.sender.try_clone()?;
        let sent = thread::spawn(move || {
            let data = vec![0x55; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                left -= sender.write(&data[..data.len().min(left)])?;
            }
            Ok::<_, std::io::Error>(())
        });
        let mut buffer = vec![0; 256 << 10];
        let (mut receiver, mut read) = (&self.receiver, 0);
        while read < bytes {
            let some = receiver.read(&mut buffer)?;
            ensure!(
                some > 0,
                "the connection broke after {read} of {bytes} bytes"
            );
            read += some;
        }
        joined(sent).context("failed to send")
    }
}

fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    let ended = thread.join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
