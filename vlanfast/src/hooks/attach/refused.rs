//! Where ingress can't be read as it was chosen: why, in numbers and in words.

use std::io;

use anyhow::anyhow;
use vlanfast_common::IngressReason;

use crate::error::Error;

/// What ingress was refused as it was chosen.
pub enum Refused {
    /// To have `rx-vlan-offload` off.
    Offload(io::Error),
    Program(anyhow::Error),
}

/// The context of a [`Refused::Program`] for which TC is the remedy.
#[derive(Debug, thiserror::Error)]
#[error("the driver of {0} refused native XDP")]
pub struct NoNativeXdp(pub String);

impl Refused {
    /// Whether TC is the remedy.
    pub fn is_the_drivers(&self) -> bool {
        match self {
            Self::Offload(_) => true,
            Self::Program(error) => error.is::<NoNativeXdp>(),
        }
    }

    pub const fn reason(&self) -> IngressReason {
        match self {
            Self::Offload(_) => IngressReason::KeepsOffload,
            Self::Program(_) => IngressReason::NoNativeXdp,
        }
    }

    /// For who left the choice to us, which is made.
    pub fn note(&self, trunk: &str) -> String {
        match self {
            Self::Offload(why) => format!("{}; using TC instead", offload(trunk, why)),
            Self::Program(error) => format!("{error:#}; using TC instead"),
        }
    }

    /// For who asked for it by name.
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
        "the driver of {trunk} refused to leave VLAN tags to XDP (rx-vlan-offload stays on: {why})"
    )
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn who_is_refused_is_told_what_to_use_and_auto_what_it_uses() {
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
        // Its code is another than that of a failure.
        assert!(offload().error("eth0").is::<Error>());
        let other = Refused::Program(anyhow!("failed to pin the link"));
        assert!(!other.is_the_drivers());
        assert_eq!(other.error("eth0").to_string(), "failed to pin the link");
    }
}
