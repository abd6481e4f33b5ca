//! `cgroup_skb/ingress`: a SYN to an enrolled pod is let in, or dropped.
//!
//! Runs for each packet that reaches a TCP or UDP socket of the cgroup, so everything but a SYN leaves after
//! a few loads of the packet's own bytes. The pod is known by the socket's namespace, not by the address
//! that was dialled: a pod may have more addresses than its manifest says.
//!
//! Reads access, access_sources, access_ports, announced, local_pods, settings, workloads; writes denials,
//! events. A packet that is too short to be TCP goes on to where the kernel drops it. What hides behind more
//! extension headers than are walked does not reach a guarded pod.
//! Minimum kernel 5.14 (`net.net_cookie` is a number; `bpf_probe_read_kernel` in this program type).
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_ipv4.c> `tcp_v4_rcv` calls `tcp_filter` with
//! the listener, before a request socket is made: a refused SYN leaves nothing behind.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use mesh_common::{IpBe, Ipv4Be, PortBe, access::Place, traffic::Event};

use crate::{
    access, events,
    kernel::{TCP, TcpSock},
    maps::{LOCAL_PODS, count},
    vouch::{self, Syn},
};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// `LOOPBACK_IFINDEX`: the number of `lo` in every namespace. Nothing comes by it from outside.
const LOOPBACK: u32 = 1;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Bytes of a TCP header up to and with its flags.
const TO_FLAGS: usize = 14;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// Extension headers that are walked; senders put none before a SYN, and RFC 8200 lists six.
const EXTENSIONS: usize = 8;

/// See the module.
#[cgroup_skb(ingress)]
pub fn judge_syn(ctx: SkBuffContext) -> i32 {
    match syn(&ctx) {
        Some(syn) => judge(&ctx, &syn),
        None => PASS,
    }
}

#[inline(always)]
fn judge(ctx: &SkBuffContext, syn: &Syn) -> i32 {
    // SAFETY: the context is the program's own.
    let (sk, interface) = unsafe {
        let skb = &*ctx.skb.skb;
        (skb.__bindgen_anon_2.sk, skb.ifindex)
    };
    // A pod talks to itself, by whichever of its addresses.
    if sk.is_null() || interface == LOOPBACK {
        return PASS;
    }
    // SAFETY: the context's own socket: a listener, or one that connects at the same time.
    let Some(tcp) = (unsafe { TcpSock::of(sk.cast()) }) else {
        return PASS;
    };
    let netns = tcp.netns_cookie();
    let Err(denial) = vouch::judge_syn(netns, syn) else {
        return PASS;
    };
    // SAFETY: user space replaces values whole.
    let client = unsafe { LOCAL_PODS.get(&syn.source) };
    let client = client.map_or(0, |client| client.workload);
    count(Event::SynDenied);
    access::count_denial(denial, client, Place::Syn);
    events::denied(
        denial,
        client,
        Place::Syn,
        syn.source,
        IpBe::default(),
        syn.port,
    );
    DROP
}

/// The packet's source and port, where it is a SYN. The kernel has brought the headers into the linear part.
#[inline(always)]
fn syn(ctx: &SkBuffContext) -> Option<Syn> {
    // IPv4's and TCP's header, or IPv6's: whatever is shorter is no SYN.
    let packet = Packet::of::<{ IPV4_HEADER + TCP_HEADER }>(ctx)?;
    let first = packet.byte(0);
    match first >> 4 {
        4 => syn_v4(ctx, &packet, usize::from(first & 0xf) * 4),
        6 => syn_v6(ctx, &packet),
        _ => None,
    }
}

#[inline(always)]
fn syn_v4(ctx: &SkBuffContext, packet: &Packet, header: usize) -> Option<Syn> {
    if u16::from(packet.byte(9)) != TCP {
        return None;
    }
    let ports = if header == IPV4_HEADER {
        packet.ports_of_syn(IPV4_HEADER)?
    } else {
        loaded_ports_of_syn(ctx, header)?
    };
    let [source, destination]: [Ipv4Be; 2] = ctx.load(12).ok()?;
    Some(Syn {
        source: IpBe::from_v4(source),
        destination: IpBe::from_v4(destination),
        source_port: ports.0,
        port: ports.1,
    })
}

#[inline(always)]
fn syn_v6(ctx: &SkBuffContext, packet: &Packet) -> Option<Syn> {
    let next = packet.byte(6);
    let ports = if u16::from(next) == TCP {
        Packet::of::<{ IPV6_HEADER + TCP_HEADER }>(ctx)?.ports_of_syn(IPV6_HEADER)?
    } else {
        behind_extensions(ctx, next)?
    };
    let [source, destination]: [IpBe; 2] = ctx.load(8).ok()?;
    Some(Syn {
        source,
        destination,
        source_port: ports.0,
        port: ports.1,
    })
}

/// Nobody gets past a policy by an option in front of the SYN.
#[inline(always)]
fn behind_extensions(ctx: &SkBuffContext, next: u8) -> Option<(PortBe, PortBe)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    let mut next = next;
    let mut at = IPV6_HEADER;
    for _ in 0..EXTENSIONS {
        if u16::from(next) == TCP {
            return loaded_ports_of_syn(ctx, at);
        }
        let [following, length]: [u8; 2] = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT | AUTHENTICATION => ctx.load(at).ok()?,
            _ => return None,
        };
        at += match next {
            FRAGMENT => 8,
            AUTHENTICATION => usize::from(length) * 4 + 8,
            _ => usize::from(length) * 8 + 8,
        };
        next = following;
    }
    Some((PortBe(0), PortBe(0)))
}

/// As [`Packet::ports_of_syn`], at a place that only the packet says.
#[inline(always)]
fn loaded_ports_of_syn(ctx: &SkBuffContext, at: usize) -> Option<(PortBe, PortBe)> {
    let header: [u8; TO_FLAGS] = ctx.load(at).ok()?;
    if header[TO_FLAGS - 1] & (SYN | ACK) != SYN {
        return None;
    }
    let port = |at: usize| PortBe(u16::from_ne_bytes([header[at], header[at + 1]]));
    Some((port(0), port(2)))
}

/// A packet from its IP header on, of which a number of bytes is known to be there.
struct Packet(*const u8);

impl Packet {
    /// One of at least `LEAST` bytes. One comparison for all of them, since the verifier takes none that it
    /// could make `start >= end` of: "invalid access to packet, off=0 size=1, R3(id=0,off=0,r=0)".
    #[inline(always)]
    fn of<const LEAST: usize>(ctx: &SkBuffContext) -> Option<Self> {
        // SAFETY: the context is the program's own.
        let (start, end) = unsafe {
            let skb = &*ctx.skb.skb;
            (skb.data as usize, skb.data_end as usize)
        };
        (start + LEAST <= end).then_some(Self(start as *const u8))
    }

    /// A byte of those that are there: callers pass constants, and the verifier checks them.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        // SAFETY: as above.
        unsafe { *self.0.add(at) }
    }

    /// The source's port and the destination's, where the TCP header at `at` says SYN.
    #[inline(always)]
    fn ports_of_syn(&self, at: usize) -> Option<(PortBe, PortBe)> {
        if self.byte(at + TO_FLAGS - 1) & (SYN | ACK) != SYN {
            return None;
        }
        let port = |at| PortBe(u16::from_ne_bytes([self.byte(at), self.byte(at + 1)]));
        Some((port(at), port(at + 2)))
    }
}
