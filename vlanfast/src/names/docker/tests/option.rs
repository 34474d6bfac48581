//! Tests of the option `--docker` and of the socket that it selects.

use std::path::Path;

use crate::names::docker::{DEFAULT_SOCKET, DockerSocket, default_socket};

#[test]
fn a_socket_option_is_read_and_written() {
    let socket = |path: &str| Ok(DockerSocket::Socket(path.into()));
    assert_eq!("auto".parse(), Ok(DockerSocket::Auto));
    assert_eq!("off".parse(), Ok(DockerSocket::Off));
    assert_eq!("/run/docker.sock".parse(), socket("/run/docker.sock"));
    assert_eq!(
        "unix:///run/docker.sock".parse(),
        socket("/run/docker.sock")
    );
    for wrong in ["", "of", "unix://", "tcp://10.0.0.1:2375"] {
        assert!(wrong.parse::<DockerSocket>().is_err(), "{wrong}");
    }
    for text in ["auto", "off", "/run/docker.sock"] {
        assert_eq!(text.parse::<DockerSocket>().unwrap().to_string(), text);
    }
}

#[test]
fn the_default_is_the_daemon_of_this_host() {
    for (host, socket) in [
        (None, DEFAULT_SOCKET),
        (
            Some("unix:///run/user/docker.sock"),
            "/run/user/docker.sock",
        ),
        (Some(""), DEFAULT_SOCKET),
        (Some("unix://"), DEFAULT_SOCKET),
        (Some("tcp://10.0.0.1:2375"), DEFAULT_SOCKET),
        (Some("ssh://root@host"), DEFAULT_SOCKET),
    ] {
        assert_eq!(default_socket(host), Path::new(socket), "{host:?}");
    }
}
