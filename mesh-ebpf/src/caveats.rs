//! What is seen of a socket before its first byte that redirection could not honour: options, and the
//! process that has it.
//!
//! Reads executables, peers; writes the socket's record and peers. Whatever fails leaves out a caveat: what
//! the application then meets is in docs/limits.md.

use aya_ebpf::bindings::bpf_sock;
use mesh_common::{
    caveat,
    connection::{Connection, NOBODY, Plain, Role, Sending},
    executable::Executable,
};

use crate::{
    kernel::{self, NOEXIST},
    maps::{EXECUTABLES, PEERS},
    sock_ops::plain,
};

/// Options that were set on this socket, and whether it was connected before.
///
/// # Safety
/// As [`kernel::connection`].
#[inline(always)]
pub unsafe fn of_socket(sk: *mut bpf_sock) -> u32 {
    // SAFETY: as the caller says; a number, copied out.
    unsafe { kernel::connection(sk) }.map_or(
        0,
        |record| unsafe { record.as_ref() }.hazards & (caveat::OPTIONS | caveat::CONNECTED_BEFORE),
    )
}

/// What is known of the current process.
#[inline(always)]
pub fn of_process() -> u32 {
    let executable = Executable {
        name: kernel::current_process_name(),
    };
    // SAFETY: user space replaces values whole.
    if unsafe { EXECUTABLES.get(&executable) }.is_some() {
        caveat::EXECUTABLE
    } else {
        0
    }
}

/// Why an end with these bits is to stay plain TCP. `forced`: somebody knows better than the list of
/// executables. What the application asked for by an option holds all the same.
#[inline(always)]
pub fn refusal(bits: u32, forced: bool) -> Plain {
    if bits & caveat::OPTIONS != 0 {
        return Plain::Option;
    }
    if bits & caveat::EXECUTABLE != 0 && !forced {
        return Plain::Executable;
    }
    Plain::No
}

/// An option was set on an established socket. Where this end has not sent yet, and the other has not been
/// told that it may redirect, the connection stays plain TCP. Else it is too late, but for what this end
/// sends: a direction may go from redirected to TCP. The keys of the peers map are as `sk_msg` has them.
#[inline(always)]
pub fn refuse(record: &mut Connection, bit: u32) {
    let decided = record.sending != Sending::Undecided as u32;
    if decided && record.sending != Sending::Plain as u32 && bit & caveat::SENDING != 0 {
        plain(record, Plain::Option);
        return;
    }
    if decided || record.agreed != 0 {
        return;
    }
    if record.role == Role::Client as u32 {
        if PEERS.insert(&record.cookie, &NOBODY, NOEXIST).is_ok() {
            plain(record, Plain::Option);
            return;
        }
        // SAFETY: written once, before it could be found.
        let Some(server) = (unsafe { PEERS.get(&record.cookie) }).copied() else {
            return;
        };
        // SAFETY: a number, copied out.
        let consented = PEERS.insert(&server.cookie, &NOBODY, NOEXIST).is_err()
            && unsafe { PEERS.get(&server.cookie) }.map(|peer| peer.cookie) == Some(record.cookie);
        if consented && bit & caveat::SENDING == 0 {
            return;
        }
        let _ = PEERS.remove(&record.cookie);
        record.peer = server.cookie;
        record.peer_record = server.record;
        // The server may redirect already: then this end stays in the map, whatever its own bytes do.
        record.agreed = u32::from(consented);
        plain(record, Plain::Option);
    } else if record.role == Role::Server as u32
        && PEERS.insert(&record.cookie, &NOBODY, NOEXIST).is_ok()
    {
        plain(record, Plain::Option);
    }
}
