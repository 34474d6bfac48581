//! What one small packet costs on its way between the wire and a container.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail, ensure};
use vlanfast_tests::{capture::in_netns, topology::Netns};

use crate::{
    Bench,
    contender::Contender,
    frame::{CONTAINER, Fate, PORT, ROUTER, VID, datagram},
    measure::{Effort, FRAMES},
    place::Inside,
    report,
    site::Site,
};

/// 64 bytes on the wire, tag included.
const PAYLOAD: [u8; 18] = [0; 18];

pub fn to_container(bench: &mut Bench) -> Result<()> {
    let table = "wire-to-container";
    let own = bench.generator.own_cost(bench.effort, FRAMES)?;
    for column in ["to the device", "to a socket's reader"] {
        report::figure(table, "(the generator itself)", column, own);
    }
    for contender in bench.rows(&Contender::WAYS) {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let site = contender
            .build()
            .with_context(|| format!("failed to set up: {row}"))?;
        let device = to_device(bench, &site)?;
        report::figure(table, row, "to the device", device - own);
        let socket = to_socket(bench, &site)?;
        report::figure(table, row, "to a socket's reader", socket - own);
    }
    Ok(())
}

fn to_device(bench: &mut Bench, site: &Site) -> Result<f64> {
    bench
        .generator
        .aim(&site.wire.router, datagram(site.mac, VID, Fate::Dropped))?;
    let before = site.received()?;
    let cost = {
        let _inside = Inside::enter(&site.wire.router)?;
        bench
            .effort
            .cost(FRAMES, || bench.generator.inject(FRAMES))?
    };
    let sent = u64::from(bench.effort.rounds() * FRAMES);
    site.check(before, sent)?;
    Ok(cost)
}

fn to_socket(bench: &mut Bench, site: &Site) -> Result<f64> {
    let frame = datagram(site.mac, VID, Fate::Read);
    bench.generator.aim(&site.wire.router, frame)?;
    let (effort, read) = (bench.effort, Arc::new(AtomicU32::new(0)));
    let reader = reader(&site.container, effort.rounds() * FRAMES, Arc::clone(&read))?;
    let cost = {
        let _inside = Inside::enter(&site.wire.router)?;
        let mut sent = 0;
        effort.cost(FRAMES, || {
            bench.generator.inject(FRAMES)?;
            sent += FRAMES;
            // It takes precedence over us, so it is done as soon as it has been woken.
            for _ in 0..1000 {
                if read.load(Ordering::Acquire) == sent {
                    return Ok(());
                }
                thread::yield_now();
            }
            bail!(
                "{} of {sent} datagrams were read",
                read.load(Ordering::Acquire)
            )
        })?
    };
    let ended = reader.join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(cost)
}

/// Reads datagrams in the container until it has had `all` of them, which wakes it once for a burst.
fn reader(container: &Netns, all: u32, count: Arc<AtomicU32>) -> Result<JoinHandle<Result<()>>> {
    let address = SocketAddr::from((CONTAINER, PORT));
    let socket = in_netns(&container.path(), move || {
        UdpSocket::bind(address).with_context(|| format!("failed to bind to {address}"))
    })?;
    // A page for each datagram of a burst.
    let room: i32 = 4 << 20;
    // SAFETY: a value and its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of_val(&room) as u32,
        )
    };
    ensure!(
        result == 0,
        "failed to give the socket room: {}",
        std::io::Error::last_os_error()
    );
    Ok(thread::spawn(move || {
        for number in 1..=all {
            socket
                .recv(&mut [0; 64])
                .context("failed to read a datagram")?;
            count.store(number, Ordering::Release);
        }
        Ok(())
    }))
}

pub fn to_wire(bench: &mut Bench) -> Result<()> {
    let table = "container-to-wire";
    let own = into_the_void(bench.effort)?;
    report::figure(table, "(the sender itself)", "to the wire", own);
    for contender in bench.rows(&Contender::BUT_XDP) {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let site = contender
            .build()
            .with_context(|| format!("failed to set up: {row}"))?;
        let cost = sending(bench.effort, &site.container)?;
        report::figure(table, row, "to the wire", cost - own);
    }
    Ok(())
}

/// What a datagram costs from the system call to the first device.
fn into_the_void(effort: Effort) -> Result<f64> {
    let alone = Netns::new()?;
    alone.run(&format!(
        "ip link add eth0 type dummy && ip addr add {}/24 dev eth0 && ip link set eth0 up && \
         ip neigh add {} lladdr 02:00:00:00:00:0b dev eth0 nud permanent",
        Ipv4Addr::from(CONTAINER),
        Ipv4Addr::from(ROUTER)
    ))?;
    sending(effort, &alone)
}

fn sending(effort: Effort, from: &Netns) -> Result<f64> {
    let socket = in_netns(&from.path(), || {
        let socket = UdpSocket::bind((Ipv4Addr::from(CONTAINER), PORT))?;
        // Nobody is there: the frame ends where the far end finds no VLAN device for it.
        socket.connect((Ipv4Addr::from(ROUTER), PORT))?;
        Ok(socket)
    })?;
    effort.cost(FRAMES, || {
        for _ in 0..FRAMES {
            socket.send(&PAYLOAD).context("failed to send a datagram")?;
        }
        Ok(())
    })
}
