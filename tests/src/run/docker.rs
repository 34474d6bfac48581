//! Docker's daemon in the lab, and the network of the tutorial that the project started from.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::net::namespace::run;

/// Docker's daemon, for as long as this lives; what it runs ends with it.
pub struct Docker(Child);

impl Docker {
    /// Starts it in the namespace where the test began, with the image of the tutorial.
    pub fn start() -> Result<Self> {
        let docker = Self(dockerd()?);
        docker.wait_until_it_answers()?;
        run("docker import -c 'CMD [\"/sbin/my_init\"]' /lab/image.tar phusion/baseimage:latest")?;
        Ok(docker)
    }

    /// Ends it without a word; its containers stay.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Starts it again after [`Docker::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.0 = dockerd()?;
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let start = Instant::now();
        while run("docker version").is_err() {
            let log = || std::fs::read_to_string("/tmp/dockerd.log").unwrap_or_default();
            ensure!(
                start.elapsed() < Duration::from_secs(180),
                "dockerd does not start: {}",
                log()
            );
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}

fn dockerd() -> Result<Child> {
    // Containers outlive a daemon that is killed, as they do on hosts that care.
    let line = "exec dockerd --iptables=false --ip6tables=false --bridge=none -s overlay2 \
                --live-restore >/tmp/dockerd.log 2>&1";
    Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .spawn()
        .context("failed to start dockerd")
}

impl Drop for Docker {
    fn drop(&mut self) {
        // All there is was made by a test: the lab has no other user of Docker.
        let _ = run("docker rm -f $(docker ps -aq)");
        let _ = run("docker network prune -f");
        // In order: it ends containerd too.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
