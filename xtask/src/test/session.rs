//! The programs and options that the jobs of a run share.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    args::{Args, Level},
    build,
};
use crate::{ebpf, sh};

pub struct Session<'a> {
    pub args: &'a Args,
    /// The directory for the outputs.
    pub logs: PathBuf,
    programs: BTreeMap<String, PathBuf>,
}

impl<'a> Session<'a> {
    /// Builds everything that the levels need.
    pub fn build(args: &'a Args, levels: &[Level]) -> Result<Self> {
        let logs = sh::workspace().join("target/lab");
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let mut programs = BTreeMap::new();
        let rooted = levels.iter().any(|level| *level != Level::Host);
        if rooted {
            programs.insert("vlanfast-next".to_owned(), ebpf::build_next(args.release)?);
        }
        programs.insert("vlanfast".to_owned(), ebpf::build(args.release)?);
        if rooted {
            programs.extend(build::tests()?);
        }
        Ok(Session {
            args,
            programs,
            logs,
        })
    }

    /// Returns the executable of a test program, or of vlanfast.
    pub fn program(&self, name: &str) -> Result<&Path> {
        self.programs.get(name).map(PathBuf::as_path).with_context(|| {
            format!("finding the test target `{name}` of vlanfast-tests: cargo built none; is it in tests/tests?")
        })
    }
}
