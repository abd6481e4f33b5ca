//! `sk_msg`: bytes go from the sender straight into the receiver's queue, where that is safe.
//!
//! Reads settings, peers, sockets; writes the sending direction of the socket's record and peers. Runs
//! under the sender's socket lock, so nothing else sends in this direction meanwhile. Whatever fails
//! passes the message on to TCP: `bpf_msg_redirect_hash` answers SK_DROP where the peer is not in the
//! map, and that answer is never handed on.
//! Minimum kernel 5.15: `bpf_get_netns_cookie` elsewhere; here `bpf_sk_storage_get`, 5.11.
//!
//! Both ends agree before the first byte, or the connection is plain TCP both ways: a socket that gets
//! its bytes by TCP is better off outside the socket map (see `pairing::leave_if_plain`). Two keys of the
//! peers map arbitrate, each written once, with BPF_NOEXIST:
//!
//! | key | by the server's end | by the client's end |
//! |---|---|---|
//! | client's cookie | its own cookie: it is there | 0: it has sent before the server was there |
//! | server's cookie | 0: it has sent before the client agreed | its own cookie: it agrees; 0: it does not |
//!
//! What comes by TCP later joins the reader's queue behind what was redirected ([`crate::join`]), so a
//! direction may go from redirected to TCP, once, and keep its order. It does where the reader lags (TCP's
//! flow control then holds the sender back, which redirection cannot) and where TCP is faster. Both ends
//! leave the socket map when nothing redirected can come any more (`pairing::leave_if_plain`).
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_bpf.c>.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, sk_action::SK_PASS},
    helpers::generated::bpf_msg_redirect_hash,
    macros::sk_msg,
    programs::SkMsgContext,
};
use mesh_common::{
    connection::{Connection, NOBODY, Peer, Plain, Role, Sending},
    traffic::Event,
};

use crate::{
    kernel::{self, NOEXIST, TcpSock},
    maps::{PEERS, SETTINGS, SOCKETS, count},
    queue::{PeerRecord, Psock},
};

/// Bytes up to which TCP joins messages to the sender's gain.
const SMALL: u32 = 512;

/// So many small messages with fewer than [`FEW`] answers are a stream.
const MANY: u32 = 16;

/// See [`MANY`].
const FEW: u64 = 4;

/// Messages up to so many bytes go from socket to socket again when a reader that lagged has caught up;
/// streams of larger ones are faster by TCP outside of the map.
const WORTH_RETURNING: u32 = 8 * 1024;

/// A first message beyond this many bytes starts what TCP carries as fast: half of the receive buffer that
/// Linux gives by default.
const LARGE: u32 = 64 * 1024;

/// See the module.
#[sk_msg]
pub fn redirect_message(ctx: SkMsgContext) -> u32 {
    // SAFETY: the context and its socket are the program's own.
    let sk = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    // SAFETY: as above; the record is written under the socket's lock alone.
    if let Some(record) = unsafe { kernel::connection(sk) } {
        send(&ctx, unsafe { &mut *record.as_ptr() });
    }
    SK_PASS
}

#[inline(always)]
fn send(ctx: &SkMsgContext, record: &mut Connection) {
    if record.sending == Sending::Plain as u32 {
        if record.clean == 0 {
            record.clean = alone(ctx);
        }
        return;
    }
    let on = SETTINGS
        .get(0)
        .is_some_and(|settings| settings.acceleration != 0);
    let size = ctx.size();
    if record.sending == Sending::Undecided as u32 {
        // Switched off or not, the other end must learn what was decided: it may redirect already.
        if !decide(ctx, record, on, size) {
            return;
        }
    }
    let why = if !on {
        Plain::SwitchedOff
    } else if record.told != 0 {
        Plain::PeerPlain
    } else if record.sending == Sending::Detour as u32 {
        if !caught_up(ctx, record) {
            return;
        }
        record.sending = Sending::Redirect as u32;
        record.plain = Plain::No as u32;
        record.credit = 0;
        better_by_tcp(record, size)
    } else {
        better_by_tcp(record, size)
    };
    if why == Plain::Queued && size <= WORTH_RETURNING {
        record.sending = Sending::Detour as u32;
        record.plain = why as u32;
        return;
    }
    if why != Plain::No {
        leave(ctx, record, why);
        return;
    }
    let mut peer = record.peer;
    // SAFETY: the context is the program's own, the key is of the map's type.
    let sent = unsafe {
        bpf_msg_redirect_hash(
            ctx.msg,
            (&raw const SOCKETS).cast_mut().cast(),
            (&raw mut peer).cast(),
            u64::from(BPF_F_INGRESS),
        )
    };
    if sent as u32 == SK_PASS {
        record.redirected_bytes += u64::from(size);
        record.redirected_messages += 1;
    } else {
        // Gone before it could see the consent: nobody else would remove it.
        if record.redirected_messages == 0 && record.role == Role::Client as u32 {
            let _ = PEERS.remove(&record.peer);
        }
        leave(ctx, record, Plain::PeerGone);
    }
}

/// Whether, and why, the rest of the direction is better sent by TCP.
#[inline(always)]
fn better_by_tcp(record: &mut Connection, size: u32) -> Plain {
    if size < SMALL {
        record.small += 1;
        if record.small == MANY {
            let heard = PeerRecord::of(record).messages();
            let answers = heard - record.heard;
            record.small = 0;
            record.heard = heard;
            if answers < FEW {
                return Plain::SmallMessages;
            }
        }
    }
    if record.credit < size {
        record.credit = PeerRecord::of(record).room();
        if record.credit < size {
            return Plain::Queued;
        }
    }
    record.credit -= size;
    Plain::No
}

/// Whether the reader has read all that took the detour, and no other thread waits inside a send with more of
/// it: what is under way would be overtaken.
#[inline(always)]
fn caught_up(ctx: &SkMsgContext, record: &Connection) -> bool {
    // SAFETY: the context's own socket.
    let tcp = unsafe { TcpSock::of((*ctx.msg).__bindgen_anon_3.sk.cast()) };
    tcp.is_some_and(|tcp| {
        PeerRecord::of(record).has_read_up_to(tcp.write_seq()) && Psock::of(tcp).calls() == 1
    })
}

/// 1 where no other system call sends on this socket: whatever was redirected has arrived.
#[inline(always)]
fn alone(ctx: &SkMsgContext) -> u32 {
    // SAFETY: the context's own socket.
    let tcp = unsafe { TcpSock::of((*ctx.msg).__bindgen_anon_3.sk.cast()) };
    tcp.map_or(0, |tcp| u32::from(Psock::of(tcp).calls() == 1))
}

/// The first send decides for the direction: redirected from byte 0, or TCP for ever.
#[inline(always)]
fn decide(ctx: &SkMsgContext, record: &mut Connection, on: bool, size: u32) -> bool {
    // A send that waited for the handshake, or MSG_FASTOPEN, wrote past this program.
    // SAFETY: the context's own socket.
    let tcp = unsafe { TcpSock::of((*ctx.msg).__bindgen_anon_3.sk.cast()) };
    let Some(tcp) = tcp else { return false };
    let hindrance = if !on {
        Plain::SwitchedOff
    } else if tcp.write_seq() != record.first_sequence {
        Plain::SentBefore
    } else if record.role == Role::Client as u32 && record.forced() == 0 && tcp.blocks() {
        Plain::Blocking
    } else if tcp.sending_is_shut() {
        Plain::ShutDown
    } else if size > LARGE {
        Plain::LargeMessage
    } else {
        Plain::No
    };
    let outcome = if record.role == Role::Client as u32 {
        client_decides(record, hindrance)
    } else {
        server_decides(record, hindrance)
    };
    if outcome == Plain::No {
        record.sending = Sending::Redirect as u32;
        return true;
    }
    leave(ctx, record, outcome);
    false
}

#[inline(always)]
fn client_decides(record: &mut Connection, hindrance: Plain) -> Plain {
    if PEERS.insert(&record.cookie, &NOBODY, NOEXIST).is_ok() {
        count(Event::PeerNotThere);
        return Plain::PeerNotThere;
    }
    // SAFETY: written once, before it could be found.
    let Some(server) = (unsafe { PEERS.get(&record.cookie) }).copied() else {
        return Plain::PeerNotThere;
    };
    let _ = PEERS.remove(&record.cookie);
    record.peer = server.cookie;
    record.peer_record = server.record;
    let server = server.cookie;
    let answer = if hindrance == Plain::No {
        Peer {
            cookie: record.cookie,
            ..NOBODY
        }
    } else {
        NOBODY
    };
    // The key is there where the server spoke first, or needed no consent.
    // SAFETY: a number, copied out.
    let answer = if PEERS.insert(&server, &answer, NOEXIST).is_ok() {
        answer
    } else {
        unsafe { PEERS.get(&server) }.copied().unwrap_or(NOBODY)
    };
    if answer.cookie == record.cookie {
        record.agreed = 1;
        return hindrance;
    }
    if hindrance == Plain::No {
        Plain::ServerFirst
    } else {
        hindrance
    }
}

#[inline(always)]
fn server_decides(record: &mut Connection, hindrance: Plain) -> Plain {
    if PEERS.insert(&record.cookie, &NOBODY, NOEXIST).is_ok() {
        return Plain::ServerFirst;
    }
    // SAFETY: written once, before it could be found.
    if unsafe { PEERS.get(&record.cookie) }.map(|peer| peer.cookie) != Some(record.peer) {
        return Plain::PeerPlain;
    }
    // The client redirects, so this end stays in the map whatever its own bytes do.
    record.agreed = 1;
    hindrance
}

#[inline(always)]
fn leave(ctx: &SkMsgContext, record: &mut Connection, why: Plain) {
    record.sending = Sending::Plain as u32;
    record.plain = why as u32;
    record.clean = alone(ctx);
}
