//! What holds for the node as a whole, and what the programs must know of this kernel.

/// The one entry of the settings map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// `CLOCK_MONOTONIC` nanoseconds of the agent's last sign of life; 0: it has stopped.
    pub heartbeat_ns: u64,
    /// 1 where bytes may go from socket to socket; 0 sends every direction to TCP, live ones too.
    pub acceleration: u32,
    /// What is written to the ring of events: bits of [`crate::event::follow`].
    pub events: u32,
    /// Bits of [`guards`].
    pub guards: u32,
    /// Explicit.
    pub reserved: u32,
}

/// Bits of [`Settings::guards`]: whether there are policies at all.
pub mod guards {
    /// The access map has entries, or will have.
    pub const ANY: u32 = 1;
    /// Not every pod that is to be guarded fits into the access map: those that are not in it refuse everybody.
    pub const OVERFLOW: u32 = 2;
}

/// How old the heartbeat may be before the agent counts as gone, in nanoseconds.
pub const HEARTBEAT_LIMIT_NS: u64 = 3_000_000_000;

/// Byte offsets in the running kernel's structures, from its BTF.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `tcp_sock.write_seq`, u32.
    pub write_seq: u32,
    /// `tcp_sock.bytes_sent`, u64.
    pub bytes_sent: u32,
    /// `tcp_sock.bytes_retrans`, u64.
    pub bytes_retrans: u32,
    /// `tcp_sock.bytes_received`, u64.
    pub bytes_received: u32,
    /// `tcp_sock.srtt_us`, u32, shifted by 3.
    pub srtt_us: u32,
    /// `tcp_sock.rtt_min.s[0].v`, u32, microseconds.
    pub rtt_min: u32,
    /// `tcp_sock.total_retrans`, u32, segments.
    pub total_retrans: u32,
    /// `sock.sk_err`, int.
    pub sk_err: u32,
    /// `sock.sk_flags`, unsigned long: bit 1 (`SOCK_DONE`) says that a FIN was received.
    pub sk_flags: u32,
    /// `sock.__sk_common.skc_state`, u8.
    pub skc_state: u32,
    /// `sock.sk_write_pending`, int: senders that wait inside the kernel.
    pub sk_write_pending: u32,
    /// `sock.sk_socket`, pointer.
    pub sk_socket: u32,
    /// `socket.file`, pointer.
    pub socket_file: u32,
    /// `file.f_flags`, u32.
    pub f_flags: u32,
    /// `task_struct.signal`, pointer.
    pub task_signal: u32,
    /// `signal_struct.nr_threads`, int.
    pub nr_threads: u32,
    /// `sock.sk_backlog.rmem_alloc`, int: what is queued for the reader, redirected bytes included.
    pub sk_rmem_alloc: u32,
    /// `sock.sk_rcvbuf`, int.
    pub sk_rcvbuf: u32,
    /// `tcp_sock.copied_seq`, u32: where the reader is in what came by TCP.
    pub copied_seq: u32,
    /// `sock.sk_lock.owned`, int: a system call has the socket.
    pub sk_lock_owned: u32,
    /// `sock.sk_wq`, pointer.
    pub sk_wq: u32,
    /// `socket_wq.wait.head`, list: who sleeps on the socket, or polls it.
    pub wq_waiters: u32,
    /// `sock.sk_user_data`, pointer to the `sk_psock` of a socket in a socket map; three low bits are flags.
    pub sk_user_data: u32,
    /// `sk_psock.refcnt`, int: 1 and one more for each system call that uses it.
    pub psock_refcnt: u32,
    /// `sk_psock.ingress_msg`, list: what is queued for the reader.
    pub psock_messages: u32,
    /// `sk_psock.ingress_skb.qlen`, u32: what will be.
    pub psock_backlog: u32,
    /// `task_struct.group_leader`, pointer.
    pub task_group_leader: u32,
    /// `task_struct.comm`, 16 bytes.
    pub task_comm: u32,
    /// `sock.__sk_common.skc_net`, pointer.
    pub skc_net: u32,
    /// `net.net_cookie`, u64.
    pub net_cookie: u32,
}

crate::assert_layout!(Settings = 24, Offsets = 120);
