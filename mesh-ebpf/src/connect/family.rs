//! What differs between the families of a connect: where its addresses stand. The decision is one.
//!
//! An IPv6 socket that dials `::ffff:a.b.c.d` (Java, and Go's dual-stack sockets) talks IPv4: the kernel runs
//! `connect6` and goes on as for IPv4, so it is decided as for IPv4, and answered in its own family.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/tcp_ipv6.c> `tcp_v6_connect`.

use core::ptr;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, sockaddr},
    helpers::generated::bpf_bind,
};
use mesh_common::{Ipv4Be, PortBe};

use crate::kernel::{AF_INET, AF_INET6};

/// The third word of `::ffff:a.b.c.d`; the two before it are 0, the one after it is the IPv4 address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Reads or writes one word of the context. Volatile, so that the compiler joins no two of them: the
/// verifier takes them one by one.
macro_rules! word {
    ($place:expr) => {
        ptr::read_volatile(&raw const $place)
    };
    ($place:expr, $value:expr) => {
        ptr::write_volatile(&raw mut $place, $value)
    };
}

/// Where a family has its addresses. `addr` is always the context of the program that runs.
pub trait Family {
    /// The address in the context, dialled or given back; None: not an IPv4 one.
    ///
    /// # Safety
    /// `addr` is the program's own context.
    unsafe fn address(addr: *const bpf_sock_addr) -> Option<Ipv4Be>;

    /// Replaces it by another of the same kind.
    ///
    /// # Safety
    /// As above, and [`Family::address`] said that there is one.
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: Ipv4Be);

    /// Whether the application chose the socket's own address.
    ///
    /// # Safety
    /// `sk` is the context's socket.
    unsafe fn is_bound(sk: *const bpf_sock) -> bool;

    /// Binds the socket to an address, with a port to be chosen at connect. A failure (the address is not
    /// the pod's, or there is a port already) leaves the kernel's choice.
    ///
    /// # Safety
    /// As the first.
    unsafe fn bind(addr: *mut bpf_sock_addr, address: Ipv4Be);
}

/// An AF_INET socket.
pub struct V4;

/// An AF_INET6 socket that talks IPv4.
pub struct Mapped;

impl Family for V4 {
    #[inline(always)]
    unsafe fn address(addr: *const bpf_sock_addr) -> Option<Ipv4Be> {
        // SAFETY: as the caller says.
        Some(Ipv4Be(unsafe { (*addr).user_ip4 }))
    }

    #[inline(always)]
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: Ipv4Be) {
        // SAFETY: the verifier lets this field be written.
        unsafe { (*addr).user_ip4 = address.0 };
    }

    #[inline(always)]
    unsafe fn is_bound(sk: *const bpf_sock) -> bool {
        // SAFETY: as the caller says.
        unsafe { (*sk).src_ip4 != 0 }
    }

    #[inline(always)]
    unsafe fn bind(addr: *mut bpf_sock_addr, address: Ipv4Be) {
        let mut source = SockaddrIn {
            family: AF_INET as u16,
            port: PortBe(0),
            address,
            zero: [0; 8],
        };
        // SAFETY: points to a sockaddr of this length.
        unsafe {
            bpf_bind(
                addr,
                (&raw mut source).cast::<sockaddr>(),
                size_of::<SockaddrIn>() as i32,
            )
        };
    }
}

impl Family for Mapped {
    #[inline(always)]
    unsafe fn address(addr: *const bpf_sock_addr) -> Option<Ipv4Be> {
        // SAFETY: as the caller says.
        unsafe {
            let mapped = word!((*addr).user_ip6[0]) == 0
                && word!((*addr).user_ip6[1]) == 0
                && word!((*addr).user_ip6[2]) == MAPPED;
            mapped.then(|| Ipv4Be(word!((*addr).user_ip6[3])))
        }
    }

    #[inline(always)]
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: Ipv4Be) {
        // The words before it are the mapped prefix already.
        // SAFETY: the verifier lets this field be written.
        unsafe { word!((*addr).user_ip6[3], address.0) };
    }

    #[inline(always)]
    unsafe fn is_bound(sk: *const bpf_sock) -> bool {
        // SAFETY: as the caller says. Of `::` and of `::ffff:0.0.0.0` the last word is 0, and the address
        // of a socket that may dial a mapped one is one of these or mapped.
        unsafe { word!((*sk).src_ip6[3]) != 0 }
    }

    #[inline(always)]
    unsafe fn bind(addr: *mut bpf_sock_addr, address: Ipv4Be) {
        let mut source = SockaddrIn6 {
            family: AF_INET6 as u16,
            port: PortBe(0),
            flow: 0,
            address: [0, 0, MAPPED, address.0],
            scope: 0,
        };
        // SAFETY: points to a sockaddr of this length.
        unsafe {
            bpf_bind(
                addr,
                (&raw mut source).cast::<sockaddr>(),
                size_of::<SockaddrIn6>() as i32,
            )
        };
    }
}

/// `struct sockaddr_in`.
#[repr(C)]
struct SockaddrIn {
    family: u16,
    /// 0: the port is chosen at connect, as without `bind`.
    port: PortBe,
    address: Ipv4Be,
    zero: [u8; 8],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct SockaddrIn6 {
    family: u16,
    /// As above.
    port: PortBe,
    flow: u32,
    address: [u32; 4],
    scope: u32,
}
