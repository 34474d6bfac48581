//! What one small packet costs on its way between the wire and a container.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vlanfast_tests::net::namespace::{Netns, in_netns};

use crate::{
    bench::Bench,
    contender::Contender,
    frame::{CONTAINER, Fate, PORT, ROUTER, VID, datagram},
    generator::Generator,
    measure::{Effort, FRAMES},
    netns::Inside,
    one_container::OneContainer,
    report,
};

/// 64 bytes on the wire, tag included.
const PAYLOAD: [u8; 18] = [0; 18];

pub fn to_container(bench: &mut Bench) -> Result<()> {
    from_wire(bench, "wire-to-container", &Contender::INTO_CONTAINER)
}

pub fn to_neighbour(bench: &mut Bench) -> Result<()> {
    from_wire(bench, "wire-to-neighbour", &Contender::NEAR)
}

fn from_wire(bench: &mut Bench, table: &str, ways: &[Contender]) -> Result<()> {
    let own = bench.generator.own_cost(bench.effort, FRAMES)?;
    for column in ["to the device", "to a socket's reader"] {
        report::figure(table, "(the generator itself)", column, own);
    }
    for contender in bench.rows(ways) {
        let row = contender.name();
        report::step(&format!("{table}: {row}"));
        let generator = &mut bench.generator;
        let [device, socket] = contender.measured(bench.effort, |network, effort| {
            Ok([
                to_device(generator, effort, network)?,
                to_socket(generator, effort, network)?,
            ])
        })?;
        report::figure(table, row, "to the device", device - own);
        report::figure(table, row, "to a socket's reader", socket - own);
    }
    Ok(())
}

fn to_device(generator: &mut Generator, effort: Effort, network: &OneContainer) -> Result<f64> {
    generator.aim(
        &network.wire.router,
        datagram(network.mac, VID, Fate::Dropped),
    )?;
    let before = network.received()?;
    let cost = {
        let _inside = Inside::enter(&network.wire.router)?;
        effort.cost(FRAMES, || generator.inject(FRAMES))?
    };
    let sent = u64::from(effort.rounds() * FRAMES);
    network.check(before, sent)?;
    Ok(cost)
}

fn to_socket(generator: &mut Generator, effort: Effort, network: &OneContainer) -> Result<f64> {
    let frame = datagram(network.mac, VID, Fate::Read);
    generator.aim(&network.wire.router, frame)?;
    let (tell, told) = mpsc::channel();
    let reader = reader(&network.container, effort.rounds(), tell)?;
    let cost = {
        let _inside = Inside::enter(&network.wire.router)?;
        effort.cost(FRAMES, || {
            generator.inject(FRAMES)?;
            // Not in a loop: it would run, and count, whenever the scheduler gives us the reader's turn.
            let all = told.recv_timeout(Duration::from_secs(1));
            all.context("not every datagram was read")
        })?
    };
    let ended = reader.join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(cost)
}

/// Reads datagrams in the container, which wakes it once for a burst, and tells the end of each round.
fn reader(container: &Netns, rounds: u32, tell: Sender<()>) -> Result<JoinHandle<Result<()>>> {
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
        for _ in 0..rounds {
            for _ in 0..FRAMES {
                socket
                    .recv(&mut [0; 64])
                    .context("failed to read a datagram")?;
            }
            tell.send(()).context("nobody waits for the reader")?;
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
        let [cost] = contender.measured(bench.effort, |network, effort| {
            Ok([sending(effort, &network.container)?])
        })?;
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
