//! Finds out why a driver refuses native XDP. `BPF_LINK_CREATE` returns only an error number; rtnetlink also returns
//! the driver's message (extended ACK).

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::NLM_F_ACK;

use super::{query::Netlink, request::Request};
use crate::{netlink::failure::Failure, state::snapshot::Ifindex};

/// `include/uapi/linux/if_link.h`.
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

impl Netlink {
    /// Attaches a program over rtnetlink after a link was refused, and returns the driver's message if it refuses
    /// again.
    pub async fn xdp_refusal(&self, ifindex: Ifindex, program: BorrowedFd<'_>) -> Option<String> {
        let flags = XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST;
        match self
            .ask(&set(ifindex, program.as_raw_fd(), flags), |_| {})
            .await
        {
            Err(Failure::Refused(_, why)) => why,
            // This time it was attached. Without a link it would outlive the process, so it is removed again.
            Ok(_) => {
                let off = set(ifindex, -1, XDP_FLAGS_DRV_MODE);
                let _ = self.ask(&off, |_| {}).await;
                None
            }
            Err(_) => None,
        }
    }
}

fn set(ifindex: Ifindex, program: i32, flags: u32) -> Request {
    Request::links(libc::RTM_SETLINK, NLM_F_ACK, ifindex).with_nested(
        IFLA_XDP,
        &[
            (IFLA_XDP_FD, &program.to_ne_bytes()),
            (IFLA_XDP_FLAGS, &flags.to_ne_bytes()),
        ],
    )
}
