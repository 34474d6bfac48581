//! Docker's daemon in the lab, and the network of the tutorial from which the project started.

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

/// Docker's daemon; when this is dropped, it ends with its containers.
pub struct Docker(Child);

impl Docker {
    /// Starts it in the namespace in which the test began, with the image of the tutorial.
    pub fn start() -> Result<Self> {
        let docker = Self(dockerd()?);
        docker.wait_until_it_answers()?;
        run("docker import -c 'CMD [\"/sbin/my_init\"]' /lab/image.tar phusion/baseimage:latest")?;
        Ok(docker)
    }

    /// Kills the daemon; its containers stay.
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
    // With `live-restore`, containers outlive a daemon that is killed.
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
        // The tests created everything that is there: the lab has no other user of Docker.
        let _ = run("docker rm -f $(docker ps -aq)");
        let _ = run("docker network prune -f");
        // An orderly end stops containerd too.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
