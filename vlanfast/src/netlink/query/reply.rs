//! Splits datagrams into netlink messages and follows the answer to one request until its end.

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NetlinkBuffer};
use nix::errno::Errno;

use crate::netlink::{
    attrs::{Attributes, word},
    failure::Failure,
    request::HEADER,
};

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_NEWLINK`, …
    pub kind: u16,
    pub flags: u16,
    pub number: u32,
    /// The bytes after `struct nlmsghdr`.
    pub body: &'a [u8],
}

/// Iterates over the messages of a datagram. Ends with an error where the rest is no valid message.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, ()>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Ok(buffer) = NetlinkBuffer::new_checked(rest) else {
            rest = &[];
            return Some(Err(()));
        };
        let length = buffer.length() as usize;
        let message = Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            number: buffer.sequence_number(),
            body: rest.get(HEADER..length).unwrap_or_default(),
        };
        // Messages start at multiples of 4 bytes (netlink(7)).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    })
}

/// `include/uapi/linux/netlink.h`.
const NLMSG_MIN_TYPE: i32 = 16;

/// The answer to one request, as far as it has been received.
pub struct Reply {
    number: u32,
    /// Nothing is known to be missing.
    pub whole: bool,
    /// Every datagram consisted of valid messages of this answer.
    in_order: bool,
    /// The result, once the answer has ended.
    pub end: Option<Result<(), Failure>>,
}

impl Reply {
    pub const fn new(number: u32) -> Self {
        Self {
            number,
            whole: true,
            in_order: true,
            end: None,
        }
    }

    /// Whether the socket can be used for the next request, because nothing of this answer is left in it.
    pub const fn in_order(&self) -> bool {
        self.in_order
    }

    /// Processes a datagram, which may be truncated. Returns whether any of its messages belong to this request.
    pub fn take(
        &mut self,
        datagram: &[u8],
        is_cut_off: bool,
        each: &mut impl FnMut(Message<'_>),
    ) -> bool {
        let (mut is_ours, mut is_anothers) = (false, false);
        if is_cut_off {
            self.mark_stale();
        }
        for message in messages(datagram) {
            match message {
                // No message may follow the end of an answer.
                _ if self.end.is_some() => self.mark_stale(),
                // An invalid message does not say which request it answers.
                Err(()) => self.mark_stale(),
                Ok(message) if message.number == self.number => {
                    is_ours = true;
                    self.take_message(message, each);
                }
                Ok(_) => is_anothers = true,
            }
        }
        // The kernel never mixes answers to two requests in one datagram.
        if is_ours && is_anothers {
            self.mark_stale();
        }
        is_ours
    }

    fn take_message(&mut self, message: Message<'_>, each: &mut impl FnMut(Message<'_>)) {
        self.whole &= message.flags & NLM_F_DUMP_INTR == 0;
        match i32::from(message.kind) {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => self.end = Some(end(&message)),
            // Smaller types are control messages; rtnetlink sends no others.
            ..NLMSG_MIN_TYPE => self.mark_stale(),
            _ => each(message),
        }
    }

    fn mark_stale(&mut self) {
        self.whole = false;
        self.in_order = false;
    }
}

/// Reads the result from an ACK or the end of a dump. An ACK is an error message with code 0; a failed dump has its
/// error code in `NLMSG_DONE` (`netlink_dump_done`).
fn end(message: &Message<'_>) -> Result<(), Failure> {
    match word(message.body, 0).map(|code| code as i32) {
        Ok(code @ ..0) => Err(Failure::Refused(
            Errno::from_raw(code.saturating_neg()),
            explanation(message),
        )),
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Garbled("it does not say how it ended")),
    }
}

/// Reads the extended ACK message (`NLMSGERR_ATTR_MSG`). It follows the error code and, in an error, the header of the
/// refused request.
fn explanation(message: &Message<'_>) -> Option<String> {
    const MSG: u16 = 1;
    let before = match i32::from(message.kind) {
        libc::NLMSG_DONE => 4,
        _ if message.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
        _ => return None,
    };
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let attributes = Attributes::behind(message.body, before).ok()?;
    let text = attributes.get(MSG)?.text();
    Some(crate::state::name::escape(&String::from_utf8_lossy(text)))
}
