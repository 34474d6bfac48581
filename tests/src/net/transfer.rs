//! Data that is sent over TCP and UDP and compared byte by byte at the other end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::net::namespace::{Netns, in_netns};

/// Bytes of payload in a bulk transfer, in each direction.
pub const BULK: usize = 4 << 20;

/// Bytes of the receiving socket's buffer, which the kernel doubles for its own overhead. The data in flight must fit
/// the 256 frames that a veth with XDP accepts, or the veth drops frames that the sender's egress has counted.
const WINDOW: usize = 64 << 10;

/// Sends [`BULK`] bytes over TCP.
pub fn transfer(from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    transfer_of(BULK, from, to, address)
}

/// Sends a number of bytes over TCP, and checks each that arrives.
pub fn transfer_of(length: usize, from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    let listener = in_netns(&to.path(), move || {
        let listener = TcpListener::bind((address, 5001))?;
        setsockopt(&listener, RcvBuf, &WINDOW)?;
        Ok(listener)
    })?;
    let reader = thread::spawn(move || -> Result<Vec<u8>> {
        let mut read = vec![];
        listener.accept()?.0.read_to_end(&mut read)?;
        Ok(read)
    });
    let mut stream = in_netns(&from.path(), move || {
        Ok(TcpStream::connect((address, 5001))?)
    })?;
    let sent = content(0, length);
    stream.write_all(&sent)?;
    drop(stream);
    let read = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(
        read.len() == length,
        "{} of {length} bytes arrived",
        read.len()
    );
    ensure!(read == sent, "what arrived is not what was sent");
    Ok(())
}

/// Sends UDP datagrams, some of which fit one packet and some of which need fragments. Each arrives unchanged, and
/// once.
pub fn datagrams(from: &Netns, to: &Netns, address: &'static str) -> Result<()> {
    let bind = |netns: &Netns, address: &'static str| {
        in_netns(&netns.path(), move || Ok(UdpSocket::bind((address, 0))?))
    };
    let receiver = bind(to, address)?;
    let sender = bind(
        from,
        if address.contains(':') {
            "::"
        } else {
            "0.0.0.0"
        },
    )?;
    let there = receiver.local_addr()?;
    let mut buffer = vec![0; 1 << 16];
    // The first length is the largest that fits 1500 bytes in either protocol, and the second is just over it.
    let sizes = [0, 1, 100, 1452, 1453, 1472, 1473, 9000, 40_000];
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = content(number, size);
        sender.send_to(&sent, there)?;
        let length = receiver
            .recv(&mut buffer)
            .with_context(|| format!("{size} bytes to {address}"))?;
        // The previous datagram must not arrive a second time either.
        ensure!(buffer[..length] == sent, "{size} bytes to {address}");
    }
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    ensure!(
        receiver.recv(&mut buffer).is_err(),
        "a datagram arrived twice"
    );
    Ok(())
}

/// Returns bytes that do not repeat with a packet's length and differ for every `number`.
fn content(number: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| (place % 251 + number) as u8;
    (0..length).map(byte).collect()
}
