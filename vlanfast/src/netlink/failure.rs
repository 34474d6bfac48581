//! The ways in which a netlink request fails.

use std::io;

use anyhow::anyhow;
use nix::errno::Errno;

use crate::error::Error;

/// Why a request has no usable answer.
#[derive(Debug)]
pub enum Failure {
    /// The kernel returned an error, possibly with an extended ACK message.
    Refused(Errno, Option<String>),
    /// The kernel did not answer in time.
    Silent,
    /// The answer cannot be decoded.
    Garbled(&'static str),
    Socket(io::Error),
}

impl Failure {
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(errno, _) => Some(*errno),
            _ => None,
        }
    }

    /// Converts the failure into an error; `asked` completes the phrase "failed to …", like "list the devices".
    pub fn of(self, asked: &str) -> anyhow::Error {
        let what = format!("failed to {asked}");
        match self {
            Self::Refused(errno, why) => {
                let error = anyhow::Error::new(io::Error::from(errno));
                match why {
                    Some(why) => error.context(format!("{what}: {why}")),
                    None => error.context(what),
                }
            }
            Self::Silent => Error::Silent {
                asked: asked.to_owned(),
            }
            .into(),
            Self::Garbled(why) => anyhow!("{what}: the kernel's answer can't be read: {why}"),
            Self::Socket(error) => anyhow::Error::new(error).context(what),
        }
    }
}
