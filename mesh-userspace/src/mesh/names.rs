//! What names mean: short hosts, wildcards, who sees a rule, and the host part of an authority.

use std::borrow::Cow;

/// Where mesh-wide rules live; Istio's default `rootNamespace`.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// The reserved gateway: the clients inside the mesh.
pub const MESH_GATEWAY: &str = "mesh";

/// The only port on which a host without a service is answered for.
pub const PORT_WITHOUT_SERVICE: u16 = 80;

/// How near a rule is to a client; the nearest VirtualService has the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Of the client's own namespace, and not for everybody.
    Private,
    /// Of another namespace, exported to the client's by name.
    Exported,
    /// For everybody.
    Public,
}

/// How a client in `client` sees an object of namespace `home`; `None`: not at all.
///
/// What is exported to others only is not seen at home.
pub fn visibility(export_to: &[String], home: &str, client: &str) -> Option<Visibility> {
    let names = |wanted: &str| export_to.iter().any(|entry| entry == wanted);
    if is_public(export_to) {
        Some(Visibility::Public)
    } else if home == client {
        (names(".") || names(home)).then_some(Visibility::Private)
    } else {
        names(client).then_some(Visibility::Exported)
    }
}

/// Whether everybody sees an object with this `exportTo`.
pub fn is_public(export_to: &[String]) -> bool {
    export_to.is_empty() || export_to.iter().any(|entry| entry == "*")
}

/// Whether a rule with these `gateways` acts on clients inside the mesh.
pub fn acts_in_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH_GATEWAY)
}

/// The host that `host` stands for in a rule of `namespace`: a name without a dot is short, all else
/// (wildcards and addresses too) stays as it is. Lower case, no trailing dot.
pub fn full_host(host: &str, namespace: &str, domain: &str) -> String {
    let host = normal_host(host);
    if host.contains(['.', ':']) || host == "*" {
        host.into_owned()
    } else {
        service_host(&host, namespace, domain)
    }
}

/// The full name of a Service.
pub fn service_host(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

/// What stands behind the star of a wildcard host; `None` for a plain one.
pub fn wildcard_suffix(host: &str) -> Option<&str> {
    host.strip_prefix('*')
}

/// Whether `*suffix` covers `host`: the star stands for one character at least.
pub fn wildcard_covers(suffix: &str, host: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

/// The host that an authority names: no port, no brackets, no trailing dot, lower case.
/// Borrowed unless upper case has to go.
pub fn host_of_authority(authority: &str) -> Cow<'_, str> {
    normal_host(split_port(authority).0)
}

/// An authority's host, brackets kept, and its port without the colon.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // An IPv6 address without brackets has colons, but no port.
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn normal_host(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_dot_is_of_the_rules_namespace() {
        let full = |host| full_host(host, "shop", "cluster.local");
        assert_eq!(full("reviews"), "reviews.shop.svc.cluster.local");
        assert_eq!(full("reviews.default"), "reviews.default");
        assert_eq!(full("Example.COM."), "example.com");
        assert_eq!(full("*"), "*");
        assert_eq!(full("*.example.com"), "*.example.com");
        assert_eq!(full("10.0.0.1"), "10.0.0.1");
        assert_eq!(full("fd00::1"), "fd00::1");
    }

    #[test]
    fn an_authority_loses_port_brackets_dot_and_case() {
        for (authority, host) in [
            ("reviews", "reviews"),
            ("reviews:9080", "reviews"),
            ("Reviews.Default.:9080", "reviews.default"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[fd00::1]:80", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("", ""),
        ] {
            assert_eq!(host_of_authority(authority), host, "{authority}");
        }
        assert!(matches!(
            host_of_authority("reviews:9080"),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn export_to_says_who_sees_a_rule_and_how_near_it_is() {
        let seen = |export: &[&str], client| {
            let export: Vec<String> = export.iter().map(ToString::to_string).collect();
            visibility(&export, "home", client)
        };
        assert_eq!(seen(&[], "home"), Some(Visibility::Public));
        assert_eq!(seen(&["*"], "away"), Some(Visibility::Public));
        assert_eq!(seen(&["."], "home"), Some(Visibility::Private));
        assert_eq!(seen(&["home"], "home"), Some(Visibility::Private));
        assert_eq!(seen(&["."], "away"), None);
        assert_eq!(seen(&["away"], "away"), Some(Visibility::Exported));
        assert_eq!(
            seen(&["away"], "home"),
            None,
            "exported to others only: not at home"
        );
        assert_eq!(seen(&["away", "."], "home"), Some(Visibility::Private));
        assert!(Visibility::Private < Visibility::Exported);
        assert!(Visibility::Exported < Visibility::Public);
    }

    #[test]
    fn a_wildcard_needs_something_for_its_star() {
        assert!(wildcard_covers(".example.com", "a.b.example.com"));
        assert!(!wildcard_covers(".example.com", ".example.com"));
        assert!(wildcard_covers("", "anything"));
        assert_eq!(wildcard_suffix("*"), Some(""));
        assert_eq!(wildcard_suffix("a.b"), None);
    }
}
