//! Envoy's response flags: why a request or connection ended as it did.

use std::fmt;

/// A set of response flags, printed as Envoy prints them (`UF,URX`, `-` for none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ResponseFlags(u16);

impl ResponseFlags {
    /// Nothing to say: the answer is the upstream's own.
    pub const NONE: Self = Self(0);
    /// No healthy upstream.
    pub const UH: Self = Self(1);
    /// Upstream connection failure.
    pub const UF: Self = Self(1 << 1);
    /// Upstream retry limit exceeded.
    pub const URX: Self = Self(1 << 2);
    /// No route.
    pub const NR: Self = Self(1 << 3);
    /// No cluster: the route names a host, subset or port that is not there.
    pub const NC: Self = Self(1 << 4);
    /// Upstream request timeout.
    pub const UT: Self = Self(1 << 5);
    /// Upstream connection termination.
    pub const UC: Self = Self(1 << 6);
    /// Downstream connection termination.
    pub const DC: Self = Self(1 << 7);
    /// Delay injected.
    pub const DI: Self = Self(1 << 8);
    /// Fault (abort) injected.
    pub const FI: Self = Self(1 << 9);
    /// Downstream protocol error.
    pub const DPE: Self = Self(1 << 10);
    /// Upstream protocol error.
    pub const UPE: Self = Self(1 << 11);
    /// Upstream remote reset of a stream.
    pub const UR: Self = Self(1 << 12);

    /// Those that explain why an answer was not passed on to its end.
    pub const CUT_BY_UPSTREAM: Self = Self::UC.with(Self::UT).with(Self::UPE).with(Self::UR);

    /// In Envoy's order.
    const NAMES: [(Self, &'static str); 13] = [
        (Self::UH, "UH"),
        (Self::UT, "UT"),
        (Self::UR, "UR"),
        (Self::UF, "UF"),
        (Self::UC, "UC"),
        (Self::NR, "NR"),
        (Self::DI, "DI"),
        (Self::FI, "FI"),
        (Self::DC, "DC"),
        (Self::URX, "URX"),
        (Self::DPE, "DPE"),
        (Self::UPE, "UPE"),
        (Self::NC, "NC"),
    ];

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is in it.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag));
        match names.next() {
            None => f.write_str("-"),
            Some((_, first)) => {
                f.write_str(first)?;
                names.try_for_each(|(_, name)| write!(f, ",{name}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseFlags as Flags;

    #[test]
    fn flags_print_as_envoy_prints_them() {
        assert_eq!(Flags::NONE.to_string(), "-");
        assert_eq!(Flags::UF.to_string(), "UF");
        assert_eq!(Flags::URX.with(Flags::UF).to_string(), "UF,URX");
    }
}
