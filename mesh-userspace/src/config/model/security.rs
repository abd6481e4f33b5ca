//! Istio's `security.istio.io`: who may connect to whom, and how.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::Labels;

/// `AuthorizationPolicy` (`security/v1beta1/authorization_policy.proto`).
#[derive(Debug, Clone)]
pub struct AuthorizationPolicy {
    /// `selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: Labels,
    /// `ALLOW` where absent.
    pub action: PolicyAction,
    /// Any of them; none matches nothing.
    pub rules: Vec<AuthorizationRule>,
}

/// What an `AuthorizationPolicy` does with what matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyAction {
    /// Lets it pass, and nothing that no ALLOW matches.
    Allow,
    /// Refuses it.
    Deny,
    /// Asks somebody outside. Nobody is asked in this version, so what it matches is refused.
    Custom,
    /// Notes it. Decides nothing.
    Audit,
}

impl PolicyAction {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Custom => "CUSTOM",
            Self::Audit => "AUDIT",
        }
    }
}

/// `Rule`: a source, an operation and all conditions must match; an empty list matches all.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationRule {
    /// `from`: any of them.
    pub from: Vec<SourceMatch>,
    /// `to`: any of them.
    pub to: Vec<OperationMatch>,
    /// `when`: all of them.
    pub when: Vec<ConditionMatch>,
    /// Some part of it asks about a request: what a connection alone does not tell.
    pub needs_request: bool,
}

/// `Source`: all of its fields must match.
#[derive(Debug, Clone, Default)]
pub struct SourceMatch {
    /// `ipBlocks`, `notIpBlocks`.
    pub address: Values<IpBlock>,
    /// `principals`, `notPrincipals`: `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub principal: Values<Pattern>,
    /// `namespaces`, `notNamespaces`.
    pub namespace: Values<Pattern>,
    /// `serviceAccounts`, `notServiceAccounts`: namespace (absent: the policy's) and account.
    pub service_account: Values<(Option<String>, String)>,
    /// `trustDomains`, `notTrustDomains`.
    pub trust_domain: Values<Pattern>,
}

/// `Operation`: what of it a connection tells.
#[derive(Debug, Clone, Default)]
pub struct OperationMatch {
    /// `ports`, `notPorts`: where the workload listens.
    pub port: Values<u16>,
}

/// `Condition`: what of it a connection tells.
#[derive(Debug, Clone)]
pub enum ConditionMatch {
    /// `source.ip`, `source.namespace`, `source.principal`, `source.serviceAccount`.
    Source(SourceMatch),
    /// `destination.port`.
    Operation(OperationMatch),
}

/// A field and its `not` twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<T> {
    /// Any of them; empty matches all.
    pub any: Vec<T>,
    /// None of them.
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    /// Whether something matches, of which `is` says what it is.
    pub fn matches(&self, mut is: impl FnMut(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&mut is)) && !self.none.iter().any(is)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }

    /// Both lists.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.any.iter().chain(&self.none)
    }
}

/// A string of a policy: exact, `a*`, `*a`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole value.
    Exact(String),
    /// The value's start.
    Prefix(String),
    /// The value's end.
    Suffix(String),
    /// Anything but nothing.
    Present,
}

impl Pattern {
    /// From the API's spelling.
    pub fn parse(text: &str) -> Self {
        match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
            ("*", ..) => Self::Present,
            (_, Some(prefix), _) => Self::Prefix(prefix.to_owned()),
            (_, None, Some(suffix)) => Self::Suffix(suffix.to_owned()),
            (text, None, None) => Self::Exact(text.to_owned()),
        }
    }

    /// Whether a value, empty where there is none, is meant.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted,
            Self::Prefix(prefix) => !value.is_empty() && value.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => !value.is_empty() && value.ends_with(suffix.as_str()),
            Self::Present => !value.is_empty(),
        }
    }
}

/// Addresses with a common prefix. IPv4 is kept as `::ffff:a.b.c.d`, so that one order holds for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    bits: u128,
    length: u8,
}

impl IpBlock {
    /// All IPv4 addresses.
    pub const ALL_V4: Self = Self {
        bits: 0xffff_u128 << 32,
        length: 96,
    };
    /// Every address there is.
    pub const ALL: Self = Self { bits: 0, length: 0 };

    /// `length` bits of an address, of its own family; the others are cleared. None: too many.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (bits, most, before) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), 32, 96),
            IpAddr::V6(v6) => (u128::from(v6), 128, 0),
        };
        (length <= most).then(|| {
            let length = length + before;
            Self {
                bits: bits & mask(length),
                length,
            }
        })
    }

    /// From what [`Self::octets`] and [`Self::length`] give.
    pub fn from_octets(octets: [u8; 16], length: u8) -> Option<Self> {
        Self::new(Ipv6Addr::from(octets).into(), length)
    }

    /// A single address.
    pub fn host(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        Self { bits, length: 128 }
    }

    /// `10.0.0.0/8`, `10.0.0.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().ok().map(Self::host);
        };
        Self::new(address.parse().ok()?, length.parse().ok()?)
    }

    /// Whether all of `other` lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && other.bits & mask(self.length) == self.bits
    }

    /// The common bits as an IPv6 address in network byte order; IPv4 is mapped.
    pub fn octets(&self) -> [u8; 16] {
        self.bits.to_be_bytes()
    }

    /// How many bits of [`Self::octets`] count.
    pub fn length(&self) -> u8 {
        self.length
    }
}

fn mask(length: u8) -> u128 {
    match length {
        0 => 0,
        length => u128::MAX << (128 - length),
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Self::ALL_V4.covers(self) {
            // The last 32 bits of a mapped address are the IPv4 address.
            let address = Ipv4Addr::from(self.bits as u32);
            write!(f, "{address}/{}", self.length - 96)
        } else {
            write!(f, "{}/{}", Ipv6Addr::from(self.bits), self.length)
        }
    }
}

/// `PeerAuthentication` (`security/v1beta1/peer_authentication.proto`).
#[derive(Debug, Clone)]
pub struct PeerAuthentication {
    /// `selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: Labels,
    /// `mtls.mode`; absent where unset: inherited.
    pub mode: Option<MutualTls>,
    /// `portLevelMtls`, by the workload's port; absent modes are the policy's own.
    pub ports: BTreeMap<u16, Option<MutualTls>>,
}

/// `MutualTLS.Mode`: what a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MutualTls {
    /// Plaintext only.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// What is authenticated only.
    Strict,
}

impl MutualTls {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_what_they_should() {
        let block = |text| IpBlock::parse(text).expect(text);
        assert!(block("10.0.0.0/8").covers(&block("10.1.2.3")));
        assert!(!block("10.0.0.0/8").covers(&block("11.0.0.0")));
        assert!(!block("10.0.0.0/16").covers(&block("10.0.0.0/8")));
        assert!(block("0.0.0.0/0").covers(&block("255.255.255.255")));
        assert!(!block("0.0.0.0/0").covers(&block("2001:db8::1")));
        assert!(block("::/0").covers(&block("1.2.3.4")));
        assert_eq!(block("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(block("2001:db8::1/32").to_string(), "2001:db8::/32");
        for wrong in ["10.0.0.0/33", "10.0.0", "::1/129", "a", "1.2.3.4/"] {
            assert_eq!(IpBlock::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_star_never_matches_nothing() {
        for pattern in ["*", "a*", "*a"] {
            assert!(!Pattern::parse(pattern).matches(""), "{pattern}");
        }
        assert!(Pattern::parse("*/sa/x").matches("d/ns/n/sa/x"));
        assert!(Pattern::parse("d/ns/n/*").matches("d/ns/n/sa/x"));
        assert!(!Pattern::parse("d/ns/n/*").matches("d/ns/nn/sa/x"));
    }
}
