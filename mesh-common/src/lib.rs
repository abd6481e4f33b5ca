//! Types and names that the eBPF programs and the agent share, each written once.
//!
//! Every type is `repr(C)` without padding, so that what the kernel copies is what was written:
//! [`assert_layout`] fails the build otherwise. Addresses and ports are in network byte order and
//! have types that say so.

#![no_std]

pub mod access;
pub mod caveat;
pub mod connection;
pub mod dns;
pub mod executable;
mod ip;
pub mod names;
pub mod policy;
pub mod settings;
pub mod traffic;

pub use ip::IpBe;

/// The version of everything in this crate. Part of the path that maps and links are pinned under, so
/// that two layouts never meet: raise it with every change to a key, a value or a map's type.
pub const LAYOUT: u32 = 3;

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ipv4Be(pub u32);

impl Ipv4Be {
    /// 127.0.0.1.
    pub const LOOPBACK: Self = Self(0x7f00_0001_u32.to_be());

    /// Whether it lies in 127.0.0.0/8.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        u32::from_be(self.0) >> 24 == 127
    }

    /// The four bytes as people write them.
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// From the four bytes as people write them.
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }
}

/// A TCP port in network byte order.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PortBe(pub u16);

impl PortBe {
    /// From the number as people write it.
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The number as people write it.
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// Fails the build where a type's size is not the sum of its fields', which is how padding shows.
#[macro_export]
macro_rules! assert_layout {
    ($($ty:ty = $size:expr),+ $(,)?) => {
        $(
            const _: () = assert!(core::mem::size_of::<$ty>() == $size, "padding or a changed layout");
            // SAFETY: repr(C), Copy, every field an integer or an array of integers, no padding (above).
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $ty {}
        )+
    };
}

assert_layout!(Ipv4Be = 4, PortBe = 2);
