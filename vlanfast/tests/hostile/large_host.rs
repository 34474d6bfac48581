//! Docker's answer on a large host.

use serde_json::json;

/// Builds a list of containers.
pub fn containers(count: usize) -> String {
    let id = "4c01db0b339c9f5c2b1d7a0e8c6f4a3b2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a";
    let container = |number: usize| {
        json!({
            "Id": id, "Names": [format!("/shop-worker-{number}")],
            "Image": "registry.example.org/shop/worker:2026.11.3", "ImageID": format!("sha256:{id}"),
            "Command": "/usr/local/bin/docker-entrypoint.sh worker --queue default", "Created": 1700000000,
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                      {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
            "Labels": {
                "com.docker.compose.config-hash": id, "com.docker.compose.container-number": number.to_string(),
                "com.docker.compose.depends_on": "database:service_started:false", "com.docker.compose.image":
                format!("sha256:{id}"), "com.docker.compose.oneoff": "False", "com.docker.compose.project": "shop",
                "com.docker.compose.project.config_files": "/srv/compose/shop/docker-compose.yml",
                "com.docker.compose.project.working_dir": "/srv/compose/shop", "com.docker.compose.service": "worker",
                "com.docker.compose.version": "2.40.1", "org.opencontainers.image.created": "2026-11-03T00:00:00Z",
                "org.opencontainers.image.revision": id, "org.opencontainers.image.title": "worker"},
            "State": "running", "Status": "Up 2 hours (healthy)", "HostConfig": {"NetworkMode": "macvlan10"},
            "NetworkSettings": {"Networks": {"macvlan10": {"IPAMConfig": null, "Links": null, "Aliases": null,
                "MacAddress": "02:42:0a:00:0a:02", "DriverOpts": null, "GwPriority": 0, "NetworkID": "m10",
                "EndpointID": id, "Gateway": "10.0.10.1", "IPAddress": "10.0.10.2", "IPPrefixLen": 24,
                "IPv6Gateway": "fd00::1", "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 64, "DNSNames": null}}},
            "Mounts": [{"Type": "volume", "Name": "shop_data", "Source": "/var/lib/docker/volumes/shop_data/_data",
                "Destination": "/var/lib/worker", "Driver": "local", "Mode": "z", "RW": true, "Propagation": ""}]
        })
    };
    let list: Vec<_> = (0..count)
        .map(|number| container(number).to_string())
        .collect();
    format!("[{}]", list.join(","))
}
