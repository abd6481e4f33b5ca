//! The exchanges in a socket's storage.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
};
use mesh_common::{
    IpBe, PortBe,
    datagram::{CONNECTED, EXCHANGES as EXCHANGES_PER_SOCKET, Exchange, Exchanges},
};

use crate::maps::EXCHANGES;

/// Those of a socket that has some.
///
/// # Safety
/// `sk` is a socket pointer that the verifier knows: from a program's context.
#[inline(always)]
pub unsafe fn of(sk: *mut bpf_sock) -> Option<&'static mut Exchanges> {
    // SAFETY: as the caller says; no value is inserted.
    unsafe {
        bpf_sk_storage_get(storage(), sk.cast(), ptr::null_mut(), 0)
            .cast::<Exchanges>()
            .as_mut()
    }
}

/// Those of a socket, all free where it had none. None: no memory.
///
/// # Safety
/// As [`of`].
#[inline(always)]
pub unsafe fn new(sk: *mut bpf_sock) -> Option<&'static mut Exchanges> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as the caller says; a null value means zeros.
    unsafe {
        bpf_sk_storage_get(storage(), sk.cast(), ptr::null_mut(), create)
            .cast::<Exchanges>()
            .as_mut()
    }
}

#[inline(always)]
fn storage() -> *mut c_void {
    (&raw const EXCHANGES).cast_mut().cast()
}

/// Whether an exchange is with this service.
#[inline(always)]
pub fn is_of(entry: &Exchange, address: IpBe, port: PortBe) -> bool {
    entry.service_port.0 == port.0 && entry.service_address.is(address)
}

/// The one with a service.
#[inline(always)]
pub fn find(exchanges: &mut Exchanges, address: IpBe, port: PortBe) -> Option<&mut Exchange> {
    let index = exchanges
        .entries
        .iter()
        .position(|entry| is_of(entry, address, port))?;
    Some(entry_at(exchanges, index))
}

/// Where the one with a service is, or is to be: a free place, or that of the one that was longest not sent
/// to.
#[inline(always)]
pub fn place(exchanges: &mut Exchanges, address: IpBe, port: PortBe) -> &mut Exchange {
    let mut oldest = 0;
    let mut used = u64::MAX;
    for (index, entry) in exchanges.entries.iter().enumerate() {
        if is_of(entry, address, port) {
            oldest = index;
            break;
        }
        if entry.used < used {
            oldest = index;
            used = entry.used;
        }
    }
    entry_at(exchanges, oldest)
}

/// An entry by its index, which goes by memory: the verifier forgets which of them it is, and follows what
/// comes after once instead of once for each ("processed 116108 insns" in sendmsg4 without).
#[inline(always)]
fn entry_at(exchanges: &mut Exchanges, index: usize) -> &mut Exchange {
    let cursor = &raw mut exchanges.cursor;
    // SAFETY: points into the socket's storage, which is locked.
    let index = unsafe {
        cursor.write_volatile(index as u32);
        cursor.read_volatile() as usize
    };
    // Of a power of two, which tells the verifier that it is inside.
    &mut exchanges.entries[index & (EXCHANGES_PER_SOCKET - 1)]
}

/// Whether the socket talks to an endpoint, under whatever name.
#[inline(always)]
pub fn knows(exchanges: &Exchanges, address: IpBe, port: PortBe) -> bool {
    let mut known = 0;
    for entry in &exchanges.entries {
        let end = entry.endpoint_address.0;
        let differs = (end[0] ^ address.0[0])
            | (end[1] ^ address.0[1])
            | (end[2] ^ address.0[2])
            | (end[3] ^ address.0[3])
            | u32::from(entry.endpoint_port.0 ^ port.0);
        // 1 where nothing differs. Without a branch, each of which the verifier would follow.
        known |= u64::from(differs).wrapping_sub(1) >> 63;
    }
    known != 0
}

/// The one with an endpoint: of several the one that the socket is connected to, else that was sent to last.
#[inline(always)]
pub fn by_endpoint(exchanges: &Exchanges, address: IpBe, port: PortBe) -> Option<&Exchange> {
    let mut found: Option<&Exchange> = None;
    for entry in &exchanges.entries {
        let is_it = entry.endpoint_port.0 == port.0 && entry.endpoint_address.is(address);
        // A free entry has no port, and nothing comes from port 0.
        if is_it && entry.used != 0 && found.is_none_or(|found| entry.used > found.used) {
            found = Some(entry);
        }
    }
    found
}

/// The socket connects anew, to `address` and `port`: nothing that it has said so far is from there.
#[inline(always)]
pub fn disconnect(exchanges: &mut Exchanges, address: IpBe, port: PortBe) {
    for entry in &mut exchanges.entries {
        let is_there = entry.endpoint_port.0 == port.0 && entry.endpoint_address.is(address);
        if entry.used == CONNECTED || is_there {
            *entry = Exchange::default();
        }
    }
}
