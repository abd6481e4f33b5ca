//! What differs between the families of a connect: where its addresses stand. The decision is one.
//!
//! An IPv6 socket that dials `::ffff:a.b.c.d` (Java, and Go's dual-stack sockets) talks IPv4: the kernel runs
//! `connect6` and goes on as for IPv4, so it is decided as for IPv4, and answered in its own family.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/tcp_ipv6.c> `tcp_v6_connect`.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_TCP_ESTABLISHED, bpf_sock, bpf_sock_addr, sockaddr},
    helpers::generated::bpf_bind,
};
use mesh_common::{IpBe, Ipv4Be, PortBe};

use crate::kernel::{AF_INET, AF_INET6};

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
    /// The family of the sockets whose connects run its program, but for AF_INET6 ones that are told an
    /// AF_INET address.
    const SOCKET: u32;

    /// The address in the context, dialled or given back.
    ///
    /// # Safety
    /// `addr` is the program's own context.
    unsafe fn address(addr: *const bpf_sock_addr) -> IpBe;

    /// Replaces it by another that this family can say.
    ///
    /// # Safety
    /// As above.
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: IpBe);

    /// Whether the application chose the socket's own address.
    ///
    /// # Safety
    /// `sk` is the context's socket.
    unsafe fn is_bound(sk: *const bpf_sock) -> bool;

    /// The address that it chose.
    ///
    /// # Safety
    /// As above.
    unsafe fn bound(sk: *const bpf_sock) -> IpBe;

    /// Whether the address and port in the context are those that the socket is connected to.
    ///
    /// # Safety
    /// `addr` is the program's own context, `sk` its socket.
    unsafe fn is_peer(addr: *const bpf_sock_addr, sk: *const bpf_sock) -> bool;

    /// Binds the socket to an address, with a port to be chosen at connect. A failure (the address is not
    /// the pod's, or there is a port already) leaves the kernel's choice.
    ///
    /// # Safety
    /// As the first.
    unsafe fn bind(addr: *mut bpf_sock_addr, address: IpBe);
}

/// An AF_INET socket.
pub struct V4;

/// An AF_INET6 socket, whatever it talks.
pub struct V6;

impl Family for V4 {
    const SOCKET: u32 = AF_INET;

    #[inline(always)]
    unsafe fn address(addr: *const bpf_sock_addr) -> IpBe {
        // SAFETY: as the caller says.
        IpBe::from_v4(Ipv4Be(unsafe { (*addr).user_ip4 }))
    }

    #[inline(always)]
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: IpBe) {
        // SAFETY: the verifier lets this field be written.
        unsafe { (*addr).user_ip4 = address.0[3] };
    }

    #[inline(always)]
    unsafe fn is_bound(sk: *const bpf_sock) -> bool {
        // SAFETY: as the caller says.
        unsafe { (*sk).src_ip4 != 0 }
    }

    #[inline(always)]
    unsafe fn bound(sk: *const bpf_sock) -> IpBe {
        // SAFETY: as the caller says.
        IpBe::from_v4(Ipv4Be(unsafe { (*sk).src_ip4 }))
    }

    #[inline(always)]
    unsafe fn is_peer(addr: *const bpf_sock_addr, sk: *const bpf_sock) -> bool {
        // SAFETY: as the caller says.
        unsafe {
            (*sk).state == BPF_TCP_ESTABLISHED
                && (*sk).dst_ip4 == (*addr).user_ip4
                && u32::from((*sk).dst_port) == (*addr).user_port
        }
    }

    #[inline(always)]
    unsafe fn bind(addr: *mut bpf_sock_addr, address: IpBe) {
        let mut source = SockaddrIn {
            family: AF_INET as u16,
            port: PortBe(0),
            address: address.0[3],
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

impl Family for V6 {
    const SOCKET: u32 = AF_INET6;

    #[inline(always)]
    unsafe fn address(addr: *const bpf_sock_addr) -> IpBe {
        // SAFETY: as the caller says.
        unsafe {
            IpBe([
                word!((*addr).user_ip6[0]),
                word!((*addr).user_ip6[1]),
                word!((*addr).user_ip6[2]),
                word!((*addr).user_ip6[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn set_address(addr: *mut bpf_sock_addr, address: IpBe) {
        // SAFETY: the verifier lets these fields be written.
        unsafe {
            word!((*addr).user_ip6[0], address.0[0]);
            word!((*addr).user_ip6[1], address.0[1]);
            word!((*addr).user_ip6[2], address.0[2]);
            word!((*addr).user_ip6[3], address.0[3]);
        }
    }

    #[inline(always)]
    unsafe fn is_bound(sk: *const bpf_sock) -> bool {
        // Of `::` and of `::ffff:0.0.0.0`, which choose nothing, these three words are 0.
        // SAFETY: as the caller says.
        unsafe { word!((*sk).src_ip6[0]) | word!((*sk).src_ip6[1]) | word!((*sk).src_ip6[3]) != 0 }
    }

    #[inline(always)]
    unsafe fn bound(sk: *const bpf_sock) -> IpBe {
        // SAFETY: as the caller says.
        unsafe {
            IpBe([
                word!((*sk).src_ip6[0]),
                word!((*sk).src_ip6[1]),
                word!((*sk).src_ip6[2]),
                word!((*sk).src_ip6[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn is_peer(addr: *const bpf_sock_addr, sk: *const bpf_sock) -> bool {
        // SAFETY: as the caller says.
        unsafe {
            let peer = IpBe([
                word!((*sk).dst_ip6[0]),
                word!((*sk).dst_ip6[1]),
                word!((*sk).dst_ip6[2]),
                word!((*sk).dst_ip6[3]),
            ]);
            (*sk).state == BPF_TCP_ESTABLISHED
                && Self::address(addr).is(peer)
                && u32::from((*sk).dst_port) == (*addr).user_port
        }
    }

    #[inline(always)]
    unsafe fn bind(addr: *mut bpf_sock_addr, address: IpBe) {
        let mut source = SockaddrIn6 {
            family: AF_INET6 as u16,
            port: PortBe(0),
            flow: 0,
            address: address.0,
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
    address: u32,
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
