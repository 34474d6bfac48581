//! Sends raw frames and counts them independently of vlanfast, with AF_PACKET (packet(7)).

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::net::{
    namespace::in_netns,
    tally::{Cast, CounterKey, Sums, add},
};

const ALL: u16 = libc::ETH_P_ALL as u16;

/// A packet socket on one device. It stays in the namespace in which it was opened.
pub struct Packets {
    socket: OwnedFd,
    ifindex: i32,
}

impl Packets {
    /// Opens a socket on a device of a namespace. With protocol 0 it only sends.
    pub fn open(netns: &str, device: &str, receive: bool) -> Result<Self> {
        Self::open_for(netns, device, if receive { ALL } else { 0 })
    }

    /// Opens a socket that receives a single EtherType.
    pub fn open_for(netns: &str, device: &str, protocol: u16) -> Result<Self> {
        let device = device.to_owned();
        in_netns(netns, move || {
            let protocol = protocol.to_be();
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            // SAFETY: the call takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol as i32) };
            ensure!(
                fd >= 0,
                "failed to open a packet socket: {}",
                io::Error::last_os_error()
            );
            let socket = Self {
                // SAFETY: the descriptor was just created, and nothing else owns it.
                socket: unsafe { OwnedFd::from_raw_fd(fd) },
                ifindex: nix::net::if_::if_nametoindex(device.as_str())
                    .with_context(|| format!("no device {device}"))?
                    as i32,
            };
            socket.option(libc::SO_RCVBUFFORCE, libc::SOL_SOCKET, 256 << 20)?;
            socket.option(libc::SO_SNDBUFFORCE, libc::SOL_SOCKET, 16 << 20)?;
            socket.option(libc::PACKET_AUXDATA, libc::SOL_PACKET, 1)?;
            // SAFETY: all zeroes is a valid address of this family.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = socket.ifindex;
            let length = size_of_val(&address) as u32;
            // SAFETY: the arguments are an address and its size.
            let result = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
            ensure!(
                result == 0,
                "failed to bind to {device}: {}",
                io::Error::last_os_error()
            );
            Ok(socket)
        })
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Keeps the device in promiscuous mode for as long as the socket is open, as tcpdump does.
    pub fn promiscuous(self) -> Result<Self> {
        // SAFETY: all zeroes is a valid request.
        let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
        request.mr_ifindex = self.ifindex;
        request.mr_type = libc::PACKET_MR_PROMISC as u16;
        self.option(libc::PACKET_ADD_MEMBERSHIP, libc::SOL_PACKET, request)?;
        Ok(self)
    }

    /// Receives incoming frames only; outgoing frames are not even queued (Linux 4.20).
    pub fn without_outgoing(self) -> Result<Self> {
        self.option(libc::PACKET_IGNORE_OUTGOING, libc::SOL_PACKET, 1)?;
        Ok(self)
    }

    fn option<T>(&self, name: i32, level: i32, value: T) -> Result<()> {
        let length = size_of::<T>() as u32;
        // SAFETY: the arguments are a value and its size.
        let result =
            unsafe { libc::setsockopt(self.fd(), level, name, (&raw const value).cast(), length) };
        ensure!(
            result == 0,
            "failed to set option {name}: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }

    /// Sends one frame, and waits if the device's queue is full.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_in_times(frame).map(drop)
    }

    /// Sends one frame and returns the number of attempts: egress hooks run before the queue, and see each attempt.
    fn send_in_times(&self, frame: &[u8]) -> Result<u64> {
        for times in 1.. {
            // SAFETY: the arguments are a buffer and its size.
            let sent = unsafe { libc::send(self.fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if sent == frame.len() as isize {
                return Ok(times);
            }
            let error = io::Error::last_os_error();
            ensure!(
                error.raw_os_error() == Some(libc::ENOBUFS),
                "failed to send {} bytes: {error}",
                frame.len()
            );
            thread::sleep(Duration::from_micros(200));
        }
        unreachable!("there is no last number")
    }

    /// Sends frames at a steady rate until told to stop; returns the number of frames and of attempts.
    pub fn send_steadily(
        self,
        frame: Vec<u8>,
        rate: u64,
        sending: Arc<AtomicBool>,
    ) -> JoinHandle<(u64, u64)> {
        thread::spawn(move || {
            let start = Instant::now();
            let (mut sent, mut times) = (0, 0);
            while sending.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
                // After a pause the sender is behind: it catches up in small bursts, as a switch would.
                let burst = due.saturating_sub(sent).min(64);
                for _ in 0..burst {
                    times += self
                        .send_in_times(&frame)
                        .expect("a bounded burst into our own namespace");
                }
                sent += burst;
                thread::sleep(Duration::from_micros(500));
            }
            (sent, times)
        })
    }

    /// Bypasses the queueing discipline, and sends through the queue of the sending CPU.
    pub fn by_cpu(self) -> Result<Self> {
        self.option(libc::PACKET_QDISC_BYPASS, libc::SOL_PACKET, 1)?;
        Ok(self)
    }

    /// Returns the frames received so far, up to 256 bytes of each, without an outer tag.
    pub fn incoming(&self) -> Result<Vec<Vec<u8>>> {
        self.received(|frame| frame.bytes[..frame.captured].to_vec())
    }

    /// Returns the frames received so far, up to 256 bytes of each, with an outer tag in its place, as on the wire.
    pub fn incoming_with_tags(&self) -> Result<Vec<Vec<u8>>> {
        self.received(|frame| {
            let (addresses, rest) = frame.bytes[..frame.captured].split_at(12);
            let tag = frame
                .tag
                .map(|(tpid, tci)| [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
            [addresses, &tag.unwrap_or_default(), rest].concat()
        })
    }

    fn received(&self, read: impl Fn(&Seen) -> Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let mut frames = vec![];
        while let Some(frame) = self.next() {
            if !frame.outgoing {
                frames.push(read(&frame));
            }
        }
        let lost = self.lost()?;
        ensure!(lost == 0, "the independent count lost {lost} frames itself");
        Ok(frames)
    }

    /// Returns the number of frames that the socket dropped because its buffer was full.
    fn lost(&self) -> Result<u32> {
        let mut statistics = [0u32; 2];
        let mut length = size_of_val(&statistics) as u32;
        // SAFETY: the arguments are a buffer of `struct tpacket_stats` and its size.
        let result = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        ensure!(
            result == 0,
            "failed to read PACKET_STATISTICS: {}",
            io::Error::last_os_error()
        );
        Ok(statistics[1])
    }

    /// Returns the next frame, if there is one.
    fn next(&self) -> Option<Seen> {
        let mut bytes = [0u8; 256];
        let mut control = [0u64; 16];
        // SAFETY: all zeroes is a valid address.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all zeroes is a valid header.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every pointer leads to a buffer of the size beside it.
        let length = unsafe { libc::recvmsg(self.fd(), &raw mut message, flags) };
        if length < 14 {
            return None;
        }
        // SAFETY: the kernel filled it in; PACKET_AUXDATA is the only control message that is enabled.
        let auxiliary = unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (!header.is_null()).then(|| {
                libc::CMSG_DATA(header)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            })
        };
        let tag = auxiliary
            .filter(|data| data.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
            .map(
                |data| match data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
                    0 => (0x8100, data.tp_vlan_tci),
                    _ => (data.tp_vlan_tpid, data.tp_vlan_tci),
                },
            );
        Some(Seen {
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            row: row(&bytes, tag),
            cast: match bytes[..6] {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Cast::Broadcast,
                [first, ..] if first & 1 == 1 => Cast::Multicast,
                _ => Cast::Unicast,
            },
            length: length as usize + if tag.is_some() { 4 } else { 0 },
            captured: bytes.len().min(length as usize),
            tag,
            bytes,
        })
    }
}

struct Seen {
    outgoing: bool,
    row: CounterKey,
    cast: Cast,
    length: usize,
    /// The number of bytes that belong to the frame.
    captured: usize,
    /// TPID and TCI of an outer tag that is not in the bytes.
    tag: Option<(u16, u16)>,
    bytes: [u8; 256],
}

/// Finds the counter that a frame belongs to by its outermost tag, independently of vlanfast's parser.
fn row(bytes: &[u8], tag: Option<(u16, u16)>) -> CounterKey {
    let (tpid, tci) = tag.unwrap_or((
        u16::from_be_bytes([bytes[12], bytes[13]]),
        u16::from_be_bytes([bytes[14], bytes[15]]),
    ));
    match tpid {
        0x8100 => CounterKey::Vlan(tci % 4096),
        0x88a8 => CounterKey::Service,
        _ => CounterKey::Vlan(0),
    }
}

/// Counts the frames that cross a device in both directions, until it is stopped.
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Sums, Sums)>>,
}

impl Sniffer {
    pub fn start(netns: &str, device: &str) -> Result<Self> {
        let socket = Packets::open(netns, device, true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut received, mut sent) = (Sums::new(), Sums::new());
            loop {
                // The flag is read first: frames from before the stop are still in the queue, and are counted.
                let last = seen.load(Ordering::Acquire);
                while let Some(frame) = socket.next() {
                    let sums = if frame.outgoing {
                        &mut sent
                    } else {
                        &mut received
                    };
                    add(sums, frame.row, frame.cast, 1, frame.length);
                }
                if last {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            let lost = socket.lost()?;
            ensure!(lost == 0, "the independent count lost {lost} frames itself");
            Ok((received, sent))
        });
        Ok(Self { stop, thread })
    }

    /// Returns what the device received and what it sent.
    pub fn stop(self) -> Result<(Sums, Sums)> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
