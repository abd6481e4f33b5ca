//! The helpers and kernel structures that aya-ebpf has no wrapper for.

use core::{
    ffi::c_void,
    ptr::{self, NonNull},
};

use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_TCP_CLOSING, BPF_TCP_FIN_WAIT1, BPF_TCP_FIN_WAIT2,
        BPF_TCP_LAST_ACK, bpf_sock,
    },
    helpers::generated::{
        bpf_get_current_task, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_probe_read_kernel,
        bpf_sk_storage_get, bpf_skc_to_tcp_sock,
    },
};
use mesh_common::{connection::Connection, settings::Offsets};

use crate::maps::CONNECTIONS;

/// `BPF_MAP_UPDATE` flags: create or replace.
pub const ANY: u64 = 0;

/// `BPF_MAP_UPDATE` flags: create, and fail where the key is there.
pub const NOEXIST: u64 = 1;

/// `IPPROTO_TCP`.
pub const TCP: u16 = 6;

/// `IPPROTO_UDP`.
pub const UDP: u16 = 17;

/// `AF_INET`.
pub const AF_INET: u32 = 2;

/// `AF_INET6`.
pub const AF_INET6: u32 = 10;

/// Bit of `sock.sk_flags`: `tcp_fin` sets it when the peer's FIN arrives.
/// <https://github.com/torvalds/linux/blob/v6.18/include/net/sock.h> `enum sock_flags`.
const SOCK_DONE: u64 = 1 << 1;

/// Where the running kernel keeps what is read; written by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    write_seq: 0,
    bytes_sent: 0,
    bytes_retrans: 0,
    bytes_received: 0,
    srtt_us: 0,
    rtt_min: 0,
    total_retrans: 0,
    sk_err: 0,
    sk_flags: 0,
    skc_state: 0,
    sk_write_pending: 0,
    sk_socket: 0,
    socket_file: 0,
    f_flags: 0,
    task_signal: 0,
    nr_threads: 0,
    sk_rmem_alloc: 0,
    sk_rcvbuf: 0,
    copied_seq: 0,
    sk_lock_owned: 0,
    sk_wq: 0,
    wq_waiters: 0,
    sk_user_data: 0,
    psock_refcnt: 0,
    psock_messages: 0,
    psock_backlog: 0,
    task_group_leader: 0,
    task_comm: 0,
    skc_net: 0,
    net_cookie: 0,
};

/// One of [`OFFSETS`]. Volatile, or the compiler would put the zeros of above in its place.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static, always readable.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::OFFSETS.$field) }
    };
}
pub(crate) use offset;

/// The record in a socket's storage, where it has one.
///
/// # Safety
/// `sk` is a socket pointer that the verifier knows: from a program's context.
#[inline(always)]
pub unsafe fn connection(sk: *mut bpf_sock) -> Option<NonNull<Connection>> {
    // SAFETY: as the caller says; no value is inserted.
    let record = unsafe { bpf_sk_storage_get(storage(), sk.cast(), ptr::null_mut(), 0) };
    NonNull::new(record.cast())
}

/// The record in a socket's storage, made of zeros where it has none. None: no memory.
///
/// # Safety
/// As [`connection`].
#[inline(always)]
pub unsafe fn connection_or_new(sk: *mut bpf_sock) -> Option<NonNull<Connection>> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as the caller says; a null value means zeros.
    let record = unsafe { bpf_sk_storage_get(storage(), sk.cast(), ptr::null_mut(), create) };
    NonNull::new(record.cast())
}

#[inline(always)]
fn storage() -> *mut c_void {
    (&raw const CONNECTIONS).cast_mut().cast()
}

/// Cookie of the network namespace of the socket that a context is about.
#[inline(always)]
pub fn netns_cookie(ctx: *mut c_void) -> u64 {
    // SAFETY: the verifier checks that the program type may call it with this context.
    unsafe { bpf_get_netns_cookie(ctx) }
}

/// Cookie of the socket that a context is about: unique on the machine, never used again.
#[inline(always)]
pub fn socket_cookie(ctx: *mut c_void) -> u64 {
    // SAFETY: as above.
    unsafe { bpf_get_socket_cookie(ctx) }
}

/// A `struct tcp_sock` of the kernel.
#[derive(Clone, Copy)]
pub struct TcpSock(*const u8);

/// Payload that a socket exchanged by TCP, in bytes.
pub struct TcpBytes {
    /// Sent, each byte once.
    pub sent: u64,
    /// Received in order.
    pub received: u64,
}

impl TcpSock {
    /// The full TCP socket behind a context's socket; None for request and time-wait sockets.
    ///
    /// # Safety
    /// As [`connection`].
    #[inline(always)]
    pub unsafe fn of(sk: *mut c_void) -> Option<Self> {
        // SAFETY: as the caller says.
        let sock = unsafe { bpf_skc_to_tcp_sock(sk) };
        if sock.is_null() {
            None
        } else {
            Some(Self(sock.cast()))
        }
    }

    #[inline(always)]
    fn read<T: Default>(self, offset: u32) -> T {
        read_at(self.0 as u64, offset)
    }

    /// Its address.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Cookie of its network namespace, where the context's own helper is too new to rely on (cgroup_skb has
    /// it since 6.16); 0 where it cannot be read.
    #[inline(always)]
    pub fn netns_cookie(self) -> u64 {
        let net: u64 = self.read(offset!(skc_net));
        read_at(net, offset!(net_cookie))
    }

    /// Sequence number of the next byte that the application writes.
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        self.read(offset!(write_seq))
    }

    /// Whether a read of this socket blocks. `tcp_bpf_recvmsg` waits once only: whatever wakes it without
    /// data (the peer's ACK of our FIN, another thread's shutdown or write) makes it return EAGAIN, on a
    /// blocking socket too. Whoever set O_NONBLOCK expects that.
    #[inline(always)]
    pub fn blocks(self) -> bool {
        const O_NONBLOCK: u32 = 0o4000;
        let socket: u64 = self.read(offset!(sk_socket));
        let file: u64 = read_at(socket, offset!(socket_file));
        let flags: u32 = read_at(file, offset!(f_flags));
        flags & O_NONBLOCK == 0
    }

    /// Whether a sender already waits inside `tcp_sendmsg`, past every program: MSG_FASTOPEN, or a send on
    /// a socket that is still connecting.
    #[inline(always)]
    pub fn has_waiting_sender(self) -> bool {
        self.read::<u32>(offset!(sk_write_pending)) != 0
    }

    /// Smoothed round trip in microseconds.
    #[inline(always)]
    pub fn smoothed_rtt_us(self) -> u32 {
        self.read::<u32>(offset!(srtt_us)) >> 3
    }

    /// Smallest round trip of the last minutes in microseconds; 0 where there was none.
    #[inline(always)]
    pub fn min_rtt_us(self) -> u32 {
        match self.read(offset!(rtt_min)) {
            u32::MAX => 0,
            measured => measured,
        }
    }

    /// Segments that were sent again.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        self.read(offset!(total_retrans))
    }

    /// The socket's error (errno); 0: none.
    #[inline(always)]
    pub fn error(self) -> u32 {
        self.read(offset!(sk_err))
    }

    /// TCP state.
    #[inline(always)]
    pub fn state(self) -> u32 {
        u32::from(self.read::<u8>(offset!(skc_state)))
    }

    /// Whether the application has shut its sending down: TCP refuses what it sends all the same.
    #[inline(always)]
    pub fn sending_is_shut(self) -> bool {
        matches!(
            self.state(),
            BPF_TCP_FIN_WAIT1 | BPF_TCP_FIN_WAIT2 | BPF_TCP_CLOSING | BPF_TCP_LAST_ACK
        )
    }

    /// What was sent and received so far.
    ///
    /// `bytes_acked` would count the SYN and the FIN; `bytes_sent` counts payload, again for each
    /// retransmission. `bytes_received` counts the FIN.
    #[inline(always)]
    pub fn bytes(self) -> TcpBytes {
        let sent: u64 = self.read(offset!(bytes_sent));
        let again: u64 = self.read(offset!(bytes_retrans));
        let received: u64 = self.read(offset!(bytes_received));
        let flags: u64 = self.read(offset!(sk_flags));
        let fin = u64::from(flags & SOCK_DONE != 0);
        TcpBytes {
            sent: sent.saturating_sub(again),
            received: received.saturating_sub(fin),
        }
    }
}

/// A field of a kernel structure; zero where it cannot be read.
#[inline(always)]
pub fn read_at<T: Default>(structure: u64, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the destination is ours and of this size; the helper checks the source, and fills the
    // destination with zeros where it cannot be read.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            (structure as *const u8)
                .wrapping_add(offset as usize)
                .cast(),
        )
    };
    value
}

/// The same number, of which the verifier knows nothing any more. A search that narrows two bounds has as many
/// states for it as there are ways through; Linux 6.1 follows each.
#[inline(always)]
pub fn opaque(number: u32) -> u32 {
    let mut cell = 0;
    // SAFETY: two halves of what is read as a whole.
    unsafe {
        let cell: *mut u32 = &raw mut cell;
        ptr::write_volatile(cell.cast::<u16>(), number as u16);
        ptr::write_volatile(cell.cast::<u16>().add(1), (number >> 16) as u16);
        ptr::read_volatile(cell)
    }
}

/// Whether the current process has more than one thread.
#[inline(always)]
pub fn current_has_threads() -> bool {
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let signal: u64 = read_at(task, offset!(task_signal));
    let threads: u32 = read_at(signal, offset!(nr_threads));
    threads != 1
}

/// Name of the current process, as /proc/PID/comm shows it: its first thread's.
#[inline(always)]
pub fn current_process_name() -> [u8; 16] {
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let leader: u64 = read_at(task, offset!(task_group_leader));
    read_at(leader, offset!(task_comm))
}
