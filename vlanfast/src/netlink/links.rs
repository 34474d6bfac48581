//! Looks up devices of our own namespace by name or index.

use netlink_packet_core::NLM_F_ACK;
use nix::errno::Errno;

use super::{
    decode,
    decode::{LinkRecord, Undecodable, ifla},
    query::Netlink,
    request::Request,
};
use crate::{
    netlink::failure::Failure,
    state::{name::Name, snapshot::Ifindex},
};

/// `IFNAMSIZ` and `ALTIFNAMSIZ`, which include the NUL.
const NAME: usize = 16;
const ALTERNATIVE: usize = 128;
/// `RTEXT_FILTER_SKIP_STATS`: leaves out the statistics, which would be most of an answer.
pub const SKIP_STATS: u32 = 1 << 3;

impl Netlink {
    /// Finds the device with a name or alternative name; `None` if the kernel reports that there is none.
    pub async fn link(&self, name: &Name) -> anyhow::Result<Option<LinkRecord>> {
        let bytes = [name.as_bytes(), &[0]].concat();
        let (length, has_nul) = (bytes.len(), name.as_bytes().contains(&0));
        if has_nul || !(2..=ALTERNATIVE).contains(&length) {
            return Ok(None);
        }
        // A short alternative name is found by `IFLA_IFNAME` as well.
        let kind = match length <= NAME {
            true => ifla::IFNAME,
            false => ifla::ALT_IFNAME,
        };
        let request = about(Ifindex(0)).with(kind, &bytes);
        self.device(&request, &format!("ask for device {name}"))
            .await
    }

    /// Finds the device with an index; `None` if the kernel reports that there is none.
    pub async fn link_of(&self, ifindex: Ifindex) -> anyhow::Result<Option<LinkRecord>> {
        // With index 0, the kernel would look for a name.
        if ifindex.0 == 0 {
            return Ok(None);
        }
        let asked = format!("ask for device {}", ifindex.0);
        self.device(&about(ifindex), &asked).await
    }

    async fn device(&self, request: &Request, asked: &str) -> anyhow::Result<Option<LinkRecord>> {
        let answered = self.one(request).await;
        match answered {
            Ok(device) => Ok(Some(device)),
            Err(failure) if failure.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(failure) => Err(failure.of(asked)),
        }
    }

    /// Requests one device.
    pub async fn one(&self, request: &Request) -> Result<LinkRecord, Failure> {
        let mut found = None;
        let whole = self
            .ask(request, |message| {
                if message.kind == libc::RTM_NEWLINK {
                    found = Some(decode::device(message.body));
                }
            })
            .await?;
        match found {
            Some(Ok(device)) => Ok(device),
            Some(Err(Undecodable { why, .. })) => Err(Failure::Garbled(why)),
            None if whole => Err(Failure::Garbled("it has no device")),
            None => Err(Failure::Garbled("it is truncated")),
        }
    }
}

/// Builds a request about one device.
pub fn about(ifindex: Ifindex) -> Request {
    Request::links(libc::RTM_GETLINK, NLM_F_ACK, ifindex)
        .with(ifla::EXT_MASK, &SKIP_STATS.to_ne_bytes())
}
