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
//! The reader takes redirected bytes before TCP's (`tcp_bpf_recvmsg`), so a direction may go from
//! redirected to TCP and keep its order, and never back:
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_bpf.c>.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, sk_action::SK_PASS},
    helpers::generated::bpf_msg_redirect_hash,
    macros::sk_msg,
    programs::SkMsgContext,
};
use mesh_common::{
    connection::{Connection, NOBODY, Plain, Role, Sending},
    traffic::Event,
};

use crate::{
    kernel::{self, NOEXIST, TcpSock},
    maps::{PEERS, SETTINGS, SOCKETS, count},
};

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
        return;
    }
    let on = SETTINGS
        .get(0)
        .is_some_and(|settings| settings.acceleration != 0);
    if record.sending == Sending::Undecided as u32 {
        // Switched off or not, the other end must learn what was decided: it may redirect already.
        if !decide(ctx, record, on) {
            return;
        }
    } else if !on {
        leave(record, Plain::SwitchedOff);
        return;
    }
    let mut peer = record.peer;
    let size = ctx.size();
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
        leave(record, Plain::PeerGone);
    }
}

/// The first send decides for the direction: redirected from byte 0, or TCP for ever.
#[inline(always)]
fn decide(ctx: &SkMsgContext, record: &mut Connection, on: bool) -> bool {
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
    leave(record, outcome);
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
    record.peer = server;
    let answer = if hindrance == Plain::No {
        record.cookie
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
    if answer == record.cookie {
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
    if unsafe { PEERS.get(&record.cookie) }.copied() != Some(record.peer) {
        return Plain::PeerPlain;
    }
    // The client redirects, so this end stays in the map whatever its own bytes do.
    record.agreed = 1;
    hindrance
}

#[inline(always)]
fn leave(record: &mut Connection, why: Plain) {
    record.sending = Sending::Plain as u32;
    record.plain = why as u32;
}
