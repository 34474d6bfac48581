use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::*;

/// Reads from a peer that plays netlink, and answers each type of message with an error code.
fn answered_with(code: impl Fn(u16) -> i32 + Clone + Send + Sync + 'static) -> NamespaceReader {
    let netlink = Netlink::behind(move || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
        let (ours, kernels): (OwnedFd, OwnedFd) = pair.map_err(io::Error::from)?;
        let code = code.clone();
        thread::spawn(move || {
            let mut question = [0u8; 4096];
            while let Ok(16..) = recv(kernels.as_raw_fd(), &mut question, MsgFlags::empty()) {
                let kind = u16::from_ne_bytes(*question[4..].first_chunk().unwrap());
                let mut answer = [&20u32.to_ne_bytes()[..], &[2, 0, 0, 0]].concat();
                answer.extend(&question[8..12]);
                answer.extend([0; 4]);
                answer.extend((-code(kind)).to_ne_bytes());
                send(kernels.as_raw_fd(), &answer, MsgFlags::empty()).unwrap();
            }
        });
        Ok(ours)
    });
    NamespaceReader {
        netlink,
        own: Some(5),
    }
}

const OTHER: Nsid = Nsid::Other(3);
const DEVICE: Ifindex = Ifindex(7);

#[tokio::test]
async fn only_the_kernels_word_means_that_a_device_or_a_namespace_is_gone() {
    let gone = answered_with(|_| libc::ENODEV);
    assert_eq!(gone.link(OTHER, DEVICE).await.unwrap(), Answer::Gone);
    assert_eq!(gone.link(Nsid::Own, DEVICE).await.unwrap(), Answer::Gone);
    for refused in [
        libc::EINVAL,
        libc::ENONET,
        libc::EPERM,
        libc::EACCES,
        libc::ENOMEM,
    ] {
        // The namespace has no id any more, or still has one.
        for (answer, is_gone) in [(libc::ENOENT, true), (0, false)] {
            let code = move |kind| match kind {
                libc::RTM_GETNSID => answer,
                _ => refused,
            };
            let reader = answered_with(code);
            let link = reader.link(OTHER, DEVICE).await.unwrap();
            let namespace = reader.namespace(OTHER).await.unwrap();
            assert_eq!(link == Answer::Gone, is_gone, "{link:?}");
            assert_eq!(namespace == Answer::Gone, is_gone, "{namespace:?}");
            // Our own namespace always exists.
            reader.link(Nsid::Own, DEVICE).await.unwrap_err();
            reader.namespace(Nsid::Own).await.unwrap_err();
        }
    }
    // The peer sends only the end of its answer.
    let nothing = answered_with(|_| 0).link(Nsid::Own, DEVICE).await.unwrap();
    assert!(matches!(nothing, Answer::Unclear(_)), "{nothing:?}");
}

#[tokio::test]
async fn our_own_id_stands_for_us() {
    let reader = answered_with(|_| 0);
    assert_eq!(reader.nsid(Some(5)), Nsid::Own);
    assert_eq!(reader.nsid(None), Nsid::Own);
    assert_eq!(reader.nsid(Some(3)), OTHER);
}
