//! The values of flags, checked while the command line is parsed.

use crate::{config::model::Acceleration, kernel::loader::MAPS};

/// `HOST:PORT`; an IPv6 address in brackets.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not HOST:PORT, for example 127.0.0.1:15000");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_ipv6 || host.contains(['/', '@', ' ']) {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// `NAMESPACE/NAME`.
pub fn namespaced_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "{text:?} is not NAMESPACE/NAME, for example default/reviews-v1"
        )),
    }
}

/// A node's name is a folder below bpffs.
pub fn node_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err(format!(
            "{text:?} cannot be a node's name: it names a folder below bpffs"
        ));
    }
    Ok(text.to_owned())
}

/// A layout's folder below bpffs: `v2`.
pub fn layout(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('v').unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no layout, for example v2"));
    }
    Ok(text.to_owned())
}

/// `name: value`, as curl takes it.
pub fn header(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("{text:?} is not 'NAME: VALUE'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::try_from(name).map_err(|_| wrong())?;
    http::HeaderValue::try_from(value).map_err(|_| wrong())?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `auto`, `on` or `off`.
pub fn acceleration(text: &str) -> Result<Acceleration, String> {
    match text {
        "auto" => Ok(Acceleration::Auto),
        "on" => Ok(Acceleration::On),
        "off" => Ok(Acceleration::Off),
        _ => Err("use auto, on or off".to_owned()),
    }
}

/// `NAME=N`: a map and how many entries it is to hold.
pub fn map_capacity(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("{text:?} is not NAME=N, for example sockets=1024");
    let (name, entries) = text.split_once('=').ok_or_else(wrong)?;
    if !MAPS.contains(&name) {
        return Err(format!("no map {name:?}: one of {}", MAPS.join(", ")));
    }
    match entries.parse() {
        Ok(entries) if entries > 0 => Ok((name.to_owned(), entries)),
        _ => Err(wrong()),
    }
}

/// A level, or directives of `tracing_subscriber::EnvFilter` (`info,zerohop::proxy=debug`).
pub fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text)) {
        return Ok(text.to_owned());
    }
    // A lone word would be taken for the name of a module: a mistyped level, most likely.
    let directives =
        text.contains('=') && tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
    if directives {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "use {}, or directives like info,zerohop=debug",
            LEVELS.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for good in [
            "127.0.0.1:15000",
            "localhost:1",
            "[::1]:15000",
            "node-1.example:80",
        ] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1",
            ":15000",
            "host:",
            "host:99999",
            "::1:15000",
            "http://a:1",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_is_named_with_its_namespace() {
        assert!(namespaced_name("default/reviews-v1").is_ok());
        for bad in ["reviews-v1", "/x", "x/", "a/b/c", ""] {
            assert!(namespaced_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_name_cannot_leave_its_folder() {
        assert!(node_name("node-1.example").is_ok());
        for bad in ["", ".", "..", "../x", "a/b"] {
            assert!(node_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        assert_eq!(
            header("Host: reviews:9080"),
            Ok(("Host".into(), "reviews:9080".into()))
        );
        assert_eq!(header("x:"), Ok(("x".into(), String::new())));
        for bad in ["nocolon", ": v", "na me: v", "n: v\nx"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_capacity_names_a_map_that_there_is() {
        assert_eq!(map_capacity("sockets=2"), Ok(("sockets".into(), 2)));
        for bad in ["sockets", "sockets=0", "sockets=x", "socks=2", "=2"] {
            assert!(map_capacity(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mistyped_level_is_refused() {
        assert!(log_level("INFO").is_ok());
        assert!(log_level("info,zerohop::proxy=debug").is_ok());
        for bad in ["inof", "", "zerohop=loud"] {
            assert!(log_level(bad).is_err(), "{bad:?}");
        }
    }
}
