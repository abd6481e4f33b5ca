//! The configurations of the proxies that Zerohop is compared with: one worker, no access log, the
//! same two routes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::backend::{self, HTTP1_PORT, HTTP2_PORT};
use super::load::Protocol;

/// The addresses of the two versions.
#[derive(Clone, Copy, Debug)]
pub struct Versions {
    /// Where requests go.
    pub v1: Ipv4Addr,
    /// Where those of jason go.
    pub v2: Ipv4Addr,
}

/// Where a proxy listens beside the client.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// HTTP/1.1.
    pub http1: u16,
    /// HTTP/2 by prior knowledge.
    pub http2: u16,
}

/// Where the sidecars listen for what iptables sends them.
pub const SIDECAR_OUTBOUND: Ports = Ports {
    http1: 15001,
    http2: 15002,
};
/// On the server's side.
pub const SIDECAR_INBOUND: Ports = Ports {
    http1: 15006,
    http2: 15007,
};

/// HAProxy's configuration; its file.
pub fn haproxy(dir: &Path, ports: Ports, versions: Versions) -> Result<PathBuf> {
    let section = |name: &str, port: u16, to: u16, proto: &str| {
        let backend = |version: &str, address: Ipv4Addr| {
            format!(
                "backend {name}_{version}\n http-reuse always\n server {version} {address}:{to}{proto}\n"
            )
        };
        format!(
            "frontend {name}\n bind 127.0.0.1:{port}{proto}\n use_backend {name}_v2 if {{ req.hdr(end-user) -m str jason }}\n \
             default_backend {name}_v1\n{}{}",
            backend("v1", versions.v1),
            backend("v2", versions.v2)
        )
    };
    let text = format!(
        "global\n nbthread 1\n maxconn 1024\ndefaults\n mode http\n timeout connect 5s\n timeout client 300s\n \
         timeout server 300s\n{}{}",
        section("h1", ports.http1, HTTP1_PORT, ""),
        section("h2", ports.http2, HTTP2_PORT, " proto h2")
    );
    write(&dir.join("haproxy.cfg"), &text)
}

/// nginx's configuration as a proxy; its file. It speaks no HTTP/2 to its upstreams.
pub fn nginx(dir: &Path, ports: Ports, versions: Versions) -> Result<PathBuf> {
    let upstream = |name: &str, address: Ipv4Addr| {
        format!(
            "upstream {name} {{ server {address}:{HTTP1_PORT}; keepalive 64; keepalive_requests 1000000000; }}\n"
        )
    };
    let text = format!(
        "map $http_end_user $version {{ default v1; jason v2; }}\n{}{}\
         server {{\n listen 127.0.0.1:{};\n location / {{\n  proxy_http_version 1.1;\n  \
         proxy_set_header Connection \"\";\n  proxy_set_header Host $host;\n  \
         proxy_pass http://$version;\n }}\n}}\n",
        upstream("v1", versions.v1),
        upstream("v2", versions.v2),
        ports.http1
    );
    backend::write_nginx(dir, "proxy", &text)
}

/// Envoy's configuration beside the client; its file.
pub fn envoy(dir: &Path, ports: Ports, versions: Versions) -> Result<PathBuf> {
    routed_envoy(&dir.join("envoy.json"), "127.0.0.1", ports, versions)
}

/// Envoy's configuration as the client's sidecar; its file.
pub fn outbound_sidecar(dir: &Path, versions: Versions) -> Result<PathBuf> {
    routed_envoy(
        &dir.join("outbound.json"),
        "0.0.0.0",
        SIDECAR_OUTBOUND,
        versions,
    )
}

/// Envoy's configuration as a server's sidecar: everything to the application; its file.
pub fn inbound_sidecar(dir: &Path) -> Result<PathBuf> {
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for (protocol, port, to) in [
        (Protocol::Http1, SIDECAR_INBOUND.http1, HTTP1_PORT),
        (Protocol::Http2, SIDECAR_INBOUND.http2, HTTP2_PORT),
    ] {
        let name = format!("application-{to}");
        let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": name } }]);
        listeners.push(listener("0.0.0.0", port, &routes));
        clusters.push(cluster(&name, Ipv4Addr::LOCALHOST, to, protocol));
    }
    write_envoy(&dir.join("inbound.json"), &listeners, &clusters)
}

fn routed_envoy(path: &Path, address: &str, ports: Ports, versions: Versions) -> Result<PathBuf> {
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for (protocol, port, to) in [
        (Protocol::Http1, ports.http1, HTTP1_PORT),
        (Protocol::Http2, ports.http2, HTTP2_PORT),
    ] {
        let (v1, v2) = (format!("v1-{to}"), format!("v2-{to}"));
        let jason = json!([{ "name": "end-user", "string_match": { "exact": "jason" } }]);
        let routes = json!([
            { "match": { "prefix": "/", "headers": jason }, "route": { "cluster": v2 } },
            { "match": { "prefix": "/" }, "route": { "cluster": v1 } },
        ]);
        listeners.push(listener(address, port, &routes));
        clusters.push(cluster(&v1, versions.v1, to, protocol));
        clusters.push(cluster(&v2, versions.v2, to, protocol));
    }
    write_envoy(path, &listeners, &clusters)
}

fn listener(address: &str, port: u16, routes: &Value) -> Value {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                           http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    json!({
        "name": format!("port-{port}"),
        "address": { "socket_address": { "address": address, "port_value": port } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": MANAGER,
                "stat_prefix": "bench",
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } }],
            },
        }] }],
    })
}

fn cluster(name: &str, address: Ipv4Addr, port: u16, protocol: Protocol) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let endpoint =
        json!({ "address": { "socket_address": { "address": address, "port_value": port } } });
    let spoken = match protocol {
        Protocol::Http1 => json!({ "http_protocol_options": {} }),
        Protocol::Http2 => json!({ "http2_protocol_options": {} }),
    };
    json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint }] }] },
        "typed_extension_protocol_options": {
            OPTIONS: { "@type": format!("type.googleapis.com/{OPTIONS}"), "explicit_http_config": spoken },
        },
    })
}

fn write_envoy(path: &Path, listeners: &[Value], clusters: &[Value]) -> Result<PathBuf> {
    let bootstrap = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    write(path, &format!("{bootstrap:#}"))
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_path_buf())
}
