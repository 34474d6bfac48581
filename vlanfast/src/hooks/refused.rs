//! What the kernel or the driver refused when ingress was attached, and the messages about it.

use std::io;

use anyhow::anyhow;
use vlanfast_common::IngressReason;

use crate::error::Error;

/// What was refused.
pub enum Refused {
    /// The driver did not turn `rx-vlan-offload` off.
    Offload(io::Error),
    /// The program could not be attached.
    Program(anyhow::Error),
}

/// The context of an error for which TC is the remedy: the driver refused native XDP.
#[derive(Debug, thiserror::Error)]
#[error("the driver of {0} refused native XDP")]
pub struct NoNativeXdp(pub String);

impl Refused {
    /// Whether the driver refused, so that TC is the remedy.
    pub fn is_the_drivers(&self) -> bool {
        match self {
            Self::Offload(_) => true,
            Self::Program(error) => error.is::<NoNativeXdp>(),
        }
    }

    /// The reason for TC that goes into `SETTINGS`.
    pub const fn reason(&self) -> IngressReason {
        match self {
            Self::Offload(_) => IngressReason::KeepsOffload,
            Self::Program(_) => IngressReason::NoNativeXdp,
        }
    }

    /// The note for a user who left the choice to vlanfast: TC is used instead.
    pub fn note(&self, trunk: &str) -> String {
        match self {
            Self::Offload(why) => format!("{}; using TC instead", offload(trunk, why)),
            Self::Program(error) => format!("{error:#}; using TC instead"),
        }
    }

    /// The error for a user who asked for XDP by name.
    pub fn error(self, trunk: &str) -> anyhow::Error {
        match self {
            Self::Offload(why) => Error::KeepsOffload {
                why: offload(trunk, &why),
            }
            .into(),
            Self::Program(error) if !error.is::<NoNativeXdp>() => error,
            Self::Program(error) => anyhow!("{error:#}; use --ingress tc"),
        }
    }
}

fn offload(trunk: &str, why: &io::Error) -> String {
    format!(
        "the driver of {trunk} refused to turn rx-vlan-offload off, so XDP would not see VLAN tags ({why})"
    )
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_names_tc_as_the_remedy_and_a_note_says_that_tc_is_used() {
        let offload = || Refused::Offload(io::Error::other("it can't"));
        let driver = || {
            let cause = Err::<(), _>(io::Error::other("it can't"));
            let error = cause.context(NoNativeXdp("eth0".into())).unwrap_err();
            Refused::Program(error)
        };
        for (refused, reason) in [
            (offload(), IngressReason::KeepsOffload),
            (driver(), IngressReason::NoNativeXdp),
        ] {
            assert_eq!(refused.reason(), reason);
            assert!(refused.is_the_drivers());
            let note = refused.note("eth0");
            assert!(note.contains("eth0") && note.contains("it can't"), "{note}");
            assert!(note.ends_with("; using TC instead"), "{note}");
            let error = refused.error("eth0").to_string();
            assert!(
                error.contains("eth0") && error.contains("it can't"),
                "{error}"
            );
            assert!(error.ends_with("use --ingress tc"), "{error}");
        }
        // This error has an exit code of its own.
        assert!(offload().error("eth0").is::<Error>());
        let other = Refused::Program(anyhow!("failed to pin the link"));
        assert!(!other.is_the_drivers());
        assert_eq!(other.error("eth0").to_string(), "failed to pin the link");
    }
}
