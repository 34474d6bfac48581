//! Reads the host's neighbour tables, which map addresses to MACs.

use std::{net::IpAddr, time::Duration};

use netlink_packet_core::NLM_F_DUMP;

use super::{
    attrs::{Attributes, Malformed, half, word},
    query::Netlink,
    request::Request,
};
use crate::state::snapshot::Ifindex;

/// `include/uapi/linux/neighbour.h`.
const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NUD_REACHABLE: u16 = 2;
const NUD_STALE: u16 = 4;
const NUD_DELAY: u16 = 8;
const NUD_PROBE: u16 = 16;
pub(super) const NUD_PERMANENT: u16 = 128;

/// The length of `struct ndmsg`.
pub(super) const HEADER: usize = 12;
/// Netlink counts time in units of 1/`USER_HZ` s, which is 10 ms.
const TICK: Duration = Duration::from_millis(10);

/// An entry of the host's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostNeighbor {
    /// The host's device.
    pub ifindex: Ifindex,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// How long ago the entry was confirmed; 0 for a permanent one.
    pub age: Duration,
}

impl Netlink {
    /// Reads the valid neighbour entries of all devices of our own namespace.
    pub async fn neighbors(&self) -> anyhow::Result<Vec<HostNeighbor>> {
        let mut all = vec![];
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut header = [0; HEADER];
            header[0] = family as u8;
            let request = Request::new(libc::RTM_GETNEIGH, NLM_F_DUMP, &header);
            let asked = self.ask(&request, |message| {
                // An entry that cannot be decoded is skipped: the address is probed on the wire anyway.
                if let Ok(Some(known)) = known(message.body) {
                    all.push(known);
                }
            });
            let asked = asked.await;
            asked.map_err(|failure| failure.of("list the host's neighbours"))?;
        }
        Ok(all)
    }
}

/// Decodes a neighbour entry; `None` for one that is failed or incomplete.
fn known(body: &[u8]) -> Result<Option<HostNeighbor>, Malformed> {
    const VALID: u16 = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT;
    let attributes = Attributes::behind(body, HEADER)?;
    let state = half(body, 8)?;
    let (Some(to), Some(mac)) = (attributes.get(NDA_DST), attributes.get(NDA_LLADDR)) else {
        return Ok(None);
    };
    let address = match to.bytes().len() {
        4 => to.array::<4>()?.into(),
        _ => to.array::<16>()?.into(),
    };
    let info = attributes.need(NDA_CACHEINFO, "it has no times")?;
    let age = match state & NUD_PERMANENT {
        0 => TICK * word(info.bytes(), 0)?,
        _ => Duration::ZERO,
    };
    Ok((state & VALID != 0).then_some(HostNeighbor {
        ifindex: Ifindex(word(body, 4)?),
        address,
        mac: mac.array()?,
        age,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: u16, confirmed: u32) -> Vec<u8> {
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([0, 1]);
        let times = [confirmed, 0, 0, 0].map(u32::to_ne_bytes).concat();
        let attributes = [
            (NDA_DST, &[10, 9, 0, 1][..]),
            (NDA_LLADDR, &[2, 0, 0, 0, 0, 1]),
            (NDA_CACHEINFO, &times),
        ];
        for (kind, value) in attributes {
            body.extend(((value.len() + 4) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body
    }

    #[test]
    fn an_entry_is_as_old_as_its_last_confirmation() {
        let stale = known(&entry(NUD_STALE, 1234)).unwrap().unwrap();
        assert_eq!(stale.age, Duration::from_millis(12_340));
        assert_eq!(stale.ifindex, Ifindex(7));
        assert_eq!(stale.address, IpAddr::from([10, 9, 0, 1]));
        let permanent = known(&entry(NUD_PERMANENT, 1234)).unwrap().unwrap();
        assert_eq!(permanent.age, Duration::ZERO);
        // These entries are failed or incomplete, or need no resolution.
        for state in [0, 1, 32, 64] {
            assert_eq!(known(&entry(state, 0)).unwrap(), None);
        }
        assert!(known(&entry(NUD_STALE, 0)[..18]).is_err());
    }
}
