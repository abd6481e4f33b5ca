//! Programs of somebody else's on a node's cgroup: a load balancer's connect hook, another owner of sockets.
//!
//! They are a dozen instructions each, assembled here, and gone with what holds them.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

const BPF_MAP_CREATE: i64 = 0;
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_DETACH: i64 = 9;

const SOCKHASH: u32 = 18;
const SOCK_OPS: u32 = 13;
const SK_MSG: u32 = 16;
const CGROUP_SOCK_ADDR: u32 = 18;

const AT_SOCK_OPS: u32 = 3;
const AT_SK_MSG: u32 = 7;
const AT_CONNECT4: u32 = 10;

/// How a program shares its hook with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It takes no other beside it.
    Exclusive,
    /// Only one below it may take its place.
    Override,
    /// All of them run.
    Multi,
}

/// A program that is attached until this is dropped.
#[derive(Debug)]
pub struct Attached {
    program: OwnedFd,
    target: OwnedFd,
    hook: u32,
    /// What stays as long as it does: the program on its map.
    with: Option<Box<Self>>,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `registers`: destination, source.
fn op(code: u8, registers: (u8, u8), offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: registers.0 | registers.1 << 4,
        offset,
        immediate,
    }
}

/// What stands before each return: `r0 = 1; exit`.
fn allow() -> [Instruction; 2] {
    [op(0xb7, (0, 0), 0, 1), op(0x95, (0, 0), 0, 0)]
}

/// A load balancer's `connect4`: who dials `from` is sent to `to`.
pub fn redirect_connects(
    cgroup: &Path,
    from: SocketAddrV4,
    to: SocketAddrV4,
    sharing: Sharing,
) -> Result<Attached> {
    const USER_IP4: i16 = 4;
    const USER_PORT: i16 = 24;
    let address = |address: SocketAddrV4| i32::from_ne_bytes(address.ip().octets());
    let port = |address: SocketAddrV4| i32::from(address.port().to_be());
    let mut program = vec![
        // Unless the address and the port are those, nothing is done.
        op(0x61, (2, 1), USER_IP4, 0),
        op(0x56, (2, 0), 6, address(from)),
        op(0x61, (2, 1), USER_PORT, 0),
        op(0x56, (2, 0), 4, port(from)),
        op(0xb4, (2, 0), 0, address(to)),
        op(0x63, (1, 2), USER_IP4, 0),
        op(0xb4, (2, 0), 0, port(to)),
        op(0x63, (1, 2), USER_PORT, 0),
    ];
    program.extend(allow());
    let program = load("their_connect", CGROUP_SOCK_ADDR, AT_CONNECT4, &program)?;
    attach(program, open(cgroup)?, AT_CONNECT4, sharing)
}

/// Another owner of sockets: every connection of the cgroup's processes is put into its own map, whose
/// program lets all messages pass.
pub fn own_sockets(cgroup: &Path) -> Result<Attached> {
    const ESTABLISHED: [i32; 2] = [4, 5];
    const REMOTE_PORT: i16 = 64;
    const LOCAL_PORT: i16 = 68;
    const SOCK_HASH_UPDATE: i32 = 70;
    let map = create_sockhash("their_sockets")?;
    let verdict = load("their_verdict", SK_MSG, AT_SK_MSG, &allow())?;
    let program = [
        op(0xbf, (6, 1), 0, 0),
        op(0x61, (2, 1), 0, 0),
        op(0x15, (2, 0), 1, ESTABLISHED[0]),
        op(0x55, (2, 0), 11, ESTABLISHED[1]),
        op(0x61, (2, 6), REMOTE_PORT, 0),
        op(0x63, (10, 2), -8, 0),
        op(0x61, (2, 6), LOCAL_PORT, 0),
        op(0x63, (10, 2), -4, 0),
        op(0xbf, (1, 6), 0, 0),
        // The map, by its descriptor: two instructions.
        op(0x18, (2, 1), 0, map.as_raw_fd()),
        op(0, (0, 0), 0, 0),
        op(0xbf, (3, 10), 0, 0),
        op(0x07, (3, 0), 0, -8),
        op(0xb7, (4, 0), 0, 0),
        op(0x85, (0, 0), 0, SOCK_HASH_UPDATE),
    ];
    let program: Vec<_> = program.into_iter().chain(allow()).collect();
    let program = load("their_sock_ops", SOCK_OPS, AT_SOCK_OPS, &program)?;
    let on_map = attach(verdict, map, AT_SK_MSG, Sharing::Exclusive)?;
    let mut attached = attach(program, open(cgroup)?, AT_SOCK_OPS, Sharing::Multi)?;
    attached.with = Some(Box::new(on_map));
    Ok(attached)
}

fn open(cgroup: &Path) -> Result<OwnedFd> {
    let file = File::open(cgroup).with_context(|| cgroup.display().to_string())?;
    Ok(file.into())
}

/// At most 15 bytes of a name, as the kernel keeps it.
fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (place, byte) in name.iter_mut().take(15).zip(text.bytes()) {
        *place = byte;
    }
    name
}

fn create_sockhash(text: &str) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        numbers: [u32; 7],
        name: [u8; 16],
    }
    let attributes = Attributes {
        // Type, key, value, entries, flags, inner map, NUMA node.
        numbers: [SOCKHASH, 8, 4, 4096, 0, 0, 0],
        name: name(text),
    };
    let fd = bpf(BPF_MAP_CREATE, &attributes).with_context(|| format!("create map {text}"))?;
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn load(text: &str, kind: u32, hook: u32, program: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        hook: u32,
    }
    let mut log = vec![0u8; 1 << 16];
    let license = c"Dual MIT/GPL";
    let attributes = Attributes {
        kind,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: name(text),
        interface: 0,
        hook,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes).with_context(|| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
        format!("load {text}: {}", String::from_utf8_lossy(&log[..end]))
    })?;
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct Attachment {
    target: i32,
    program: i32,
    hook: u32,
    flags: u32,
    replaces: u32,
}

fn attach(program: OwnedFd, target: OwnedFd, hook: u32, sharing: Sharing) -> Result<Attached> {
    let attachment = Attachment {
        target: target.as_raw_fd(),
        program: program.as_raw_fd(),
        hook,
        flags: match sharing {
            Sharing::Exclusive => 0,
            Sharing::Override => 1,
            Sharing::Multi => 2,
        },
        replaces: 0,
    };
    bpf(BPF_PROG_ATTACH, &attachment).context("attach a foreign program")?;
    Ok(Attached {
        program,
        target,
        hook,
        with: None,
    })
}

impl Drop for Attached {
    fn drop(&mut self) {
        // No new socket comes to the map before its program goes.
        let with = self.with.take();
        let attachment = Attachment {
            target: self.target.as_raw_fd(),
            program: self.program.as_raw_fd(),
            hook: self.hook,
            flags: 0,
            replaces: 0,
        };
        if let Err(error) = bpf(BPF_PROG_DETACH, &attachment) {
            eprintln!("detach a foreign program: {error}");
        }
        drop(with);
    }
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<i64> {
    let (at, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: the attributes are those of the command, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
