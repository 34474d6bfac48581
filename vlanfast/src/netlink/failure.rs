//! The ways in which a netlink request fails.

use std::io;

use anyhow::anyhow;
use nix::errno::Errno;

use crate::error::Error;

/// Why there is no answer, or no good one.
#[derive(Debug)]
pub enum Failure {
    /// The kernel's word, with its own explanation if it has one.
    Refused(Errno, Option<String>),
    Silent,
    /// What came is no answer.
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

    /// As an error about what was asked, like "list the devices".
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
