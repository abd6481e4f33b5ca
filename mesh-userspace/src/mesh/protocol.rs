//! What a service port speaks, from `appProtocol` or the port's name (Istio's protocol selection).

use super::model::Protocol;

/// Ports whose servers speak first or are known to speak no HTTP: SMTP, DNS, `MySQL`, `MongoDB`. They are
/// not sniffed.
const PLAIN_TCP_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// The protocol of a TCP port: `appProtocol`, else the name's prefix up to `-`, without case; else
/// well-known ports are TCP and all others are sniffed.
pub fn of_port(number: u16, name: &str, app_protocol: Option<&str>) -> Protocol {
    let declared = app_protocol.unwrap_or(name).to_ascii_lowercase();
    match declared.as_str() {
        "kubernetes.io/h2c" => return Protocol::Http2,
        "kubernetes.io/ws" => return Protocol::Http,
        "kubernetes.io/wss" => return Protocol::Https,
        _ => {}
    }
    match declared.split('-').next().unwrap_or_default() {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        // The prefix of `grpc-web` too: both are HTTP/2 to the server.
        "grpc" => Protocol::Grpc,
        "tcp" | "mongo" | "mysql" | "redis" => Protocol::Tcp,
        "tls" => Protocol::Tls,
        "https" => Protocol::Https,
        _ if PLAIN_TCP_PORTS.contains(&number) => Protocol::Tcp,
        _ => Protocol::Auto,
    }
}

/// Whether requests may be read on a port: declared HTTP, or found out by sniffing.
pub fn may_be_http(protocol: Protocol) -> bool {
    protocol.is_http() || protocol == Protocol::Auto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_protocol_beats_the_name_and_the_name_beats_the_number() {
        for (number, name, app_protocol, expected) in [
            (9080, "http", None, Protocol::Http),
            (9080, "HTTP-web", None, Protocol::Http),
            (9080, "http2-x", None, Protocol::Http2),
            (9080, "grpc-web", None, Protocol::Grpc),
            (9080, "grpc", Some("tcp"), Protocol::Tcp),
            (9080, "x", Some("kubernetes.io/h2c"), Protocol::Http2),
            (9080, "x", Some("kubernetes.io/ws"), Protocol::Http),
            (9080, "x", Some("kubernetes.io/wss"), Protocol::Https),
            (9080, "x", Some("HTTPS"), Protocol::Https),
            (443, "tls-front", None, Protocol::Tls),
            (27017, "mongo", None, Protocol::Tcp),
            (27017, "db", None, Protocol::Tcp),
            (3306, "http", None, Protocol::Http),
            (9080, "web", None, Protocol::Auto),
            (9080, "httpx", None, Protocol::Auto),
            (9080, "", None, Protocol::Auto),
            (25, "", None, Protocol::Tcp),
        ] {
            assert_eq!(
                of_port(number, name, app_protocol),
                expected,
                "{number} {name:?} {app_protocol:?}"
            );
        }
    }
}
