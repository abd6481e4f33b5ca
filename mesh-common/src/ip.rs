//! An address of either family as one key type.

use core::net::{IpAddr, Ipv6Addr};

use crate::Ipv4Be;

/// An IPv6 address in network byte order, or an IPv4 one as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2): one type
/// of key for both. Words, since the kernel has it in words. All zeros: none.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBe(pub [u32; 4]);

/// The third word of an IPv4 address; the two before it are 0.
const MAPPED: u32 = 0xffff_u32.to_be();

impl IpBe {
    /// 127.0.0.1.
    pub const LOOPBACK_V4: Self = Self::from_v4(Ipv4Be::LOOPBACK);

    /// `::1`.
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, 1_u32.to_be()]);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn from_v4(address: Ipv4Be) -> Self {
        Self([0, 0, MAPPED, address.0])
    }

    /// From sixteen bytes as people write them.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]),
            u32::from_ne_bytes([octets[4], octets[5], octets[6], octets[7]]),
            u32::from_ne_bytes([octets[8], octets[9], octets[10], octets[11]]),
            u32::from_ne_bytes([octets[12], octets[13], octets[14], octets[15]]),
        ])
    }

    /// The sixteen bytes as people write them.
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// Whether it is an IPv4 one.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ MAPPED) == 0
    }

    /// Whether it is none.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// Whether both are the same. As `==`, in words, which the programs' compiler can do.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        (self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3])
            == 0
    }

    /// Whether it lies in `fe80::/10`.
    #[inline(always)]
    pub const fn is_link_local_v6(self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }

    /// Whether it lies in 127.0.0.0/8 or is `::1`.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            Ipv4Be(self.0[3]).is_loopback()
        } else {
            self.is(Self::LOOPBACK_V6)
        }
    }
}

impl From<IpAddr> for IpBe {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        Self::from_octets(octets)
    }
}

impl From<IpBe> for IpAddr {
    fn from(address: IpBe) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}

crate::assert_layout!(IpBe = 16);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;

    use super::*;

    fn ip(text: &str) -> IpBe {
        let address: IpAddr = text.parse().expect("an address");
        address.into()
    }

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.96.0.1", "fd00:10:96::1", "::1", "0.0.0.0", "::"] {
            assert_eq!(IpAddr::from(ip(text)).to_string(), text);
        }
        assert_eq!(ip("::ffff:10.96.0.1"), ip("10.96.0.1"));
        assert_eq!(
            ip("10.96.0.1"),
            IpBe::from_v4(Ipv4Be::from_octets([10, 96, 0, 1]))
        );
    }

    #[test]
    fn families_and_loopbacks_are_told_apart() {
        assert!(ip("10.0.0.1").is_v4() && !ip("fd00::1").is_v4() && !ip("::").is_v4());
        for text in ["127.0.0.1", "127.1.2.3", "::1"] {
            assert!(ip(text).is_loopback(), "{text}");
        }
        for text in ["10.0.0.127", "fd00::1", "::", "::127.0.0.1"] {
            assert!(!ip(text).is_loopback(), "{text}");
        }
        assert!(ip("::").is_none() && !ip("0.0.0.0").is_none());
        assert!(ip("fd00::1").is(ip("fd00::1")) && !ip("fd00::1").is(ip("fd00::2")));
        assert_eq!(IpBe::LOOPBACK_V4, ip("127.0.0.1"));
        assert_eq!(IpBe::LOOPBACK_V6, ip("::1"));
    }
}
