//! recvmsg(2) with what comes beside the bytes, descriptors that go from process to process, tcp_info.

use std::io::{Read, Write};
use std::mem::zeroed;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::names::{bytes, outcome};

/// Room for control messages, aligned as they need it.
type Control = [u64; 64];

/// The bytes, the flags that came with them, and the kind of each control message.
pub(super) fn receive(fd: i32, size: usize, flags: i32) -> Value {
    let mut buffer = vec![0_u8; size];
    let mut control: Control = [0; 64];
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: size,
    };
    // SAFETY: all zeroes is a message; the buffers outlive the call and are as long as is said.
    let (result, kinds, message_flags) = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>();
        let result = libc::recvmsg(fd, &raw mut message, flags);
        if result < 0 {
            return outcome(result);
        }
        let mut kinds = Vec::new();
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            kinds.push(control_message(header));
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        (result, kinds, message.msg_flags)
    };
    buffer.truncate(result.cast_unsigned());
    json!({"read": bytes(&buffer), "control": kinds, "flags": message_flags & !libc::MSG_CMSG_CLOEXEC})
}

/// # Safety
/// `header` points to a whole control message.
unsafe fn control_message(header: *const libc::cmsghdr) -> Value {
    const TCP_CM_INQ: i32 = 36;
    // SAFETY: as the caller says; TCP_CM_INQ's payload is an int.
    unsafe {
        match ((*header).cmsg_level, (*header).cmsg_type) {
            (libc::IPPROTO_TCP, TCP_CM_INQ) => {
                let value = libc::CMSG_DATA(header)
                    .cast::<libc::c_int>()
                    .read_unaligned();
                json!(format!("TCP_CM_INQ {value}"))
            }
            (libc::SOL_SOCKET, kind) => json!(format!("SOL_SOCKET {kind}")),
            (libc::SOL_IP, libc::IP_RECVERR) => json!("IP_RECVERR"),
            (level, kind) => json!(format!("{level} {kind}")),
        }
    }
}

/// What tcp_info says of the state and of the bytes.
pub(super) fn tcp_info(fd: i32) -> Value {
    // SAFETY: all zeroes is a tcp_info; there is room for as many bytes as is said.
    unsafe {
        let mut info: libc::tcp_info = zeroed();
        let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
        let result = libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        );
        if result < 0 {
            return outcome(-1);
        }
        json!({
            "state": info.tcpi_state,
            "unacked": info.tcpi_unacked,
            "received something lately": info.tcpi_last_data_recv < 60_000,
        })
    }
}

/// Gives a descriptor to the process that takes it at this abstract address of the namespace.
pub(super) fn send_descriptor(fd: i32, at: &str) -> Result<Value> {
    let address = SocketAddr::from_abstract_name(at)?;
    let listener = UnixListener::bind_addr(&address).context("listen on a unix socket")?;
    let (mut stream, _) = listener.accept().context("accept on a unix socket")?;
    let mut control: Control = [0; 64];
    let mut byte = [1_u8];
    let mut vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: the buffers outlive the call; the control message has room for one descriptor.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(
            std::os::fd::AsRawFd::as_raw_fd(&stream),
            &raw const message,
            0,
        )
    };
    ensure!(sent == 1, "SCM_RIGHTS: {}", std::io::Error::last_os_error());
    // The other has it.
    stream.read_exact(&mut byte)?;
    Ok(json!("given"))
}

/// Takes the descriptor that is given there.
pub(super) fn receive_descriptor(at: &str) -> Result<i32> {
    let address = SocketAddr::from_abstract_name(at)?;
    let mut stream = crate::poll::eventually_some(Duration::from_secs(10), || {
        UnixStream::connect_addr(&address).ok()
    })
    .context("nobody gives a descriptor")?;
    let mut control: Control = [0; 64];
    let mut byte = [0_u8];
    let mut vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: the buffers outlive the call; the one control message that is sent here is a descriptor.
    let fd = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>();
        let got = libc::recvmsg(
            std::os::fd::AsRawFd::as_raw_fd(&stream),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        );
        ensure!(got == 1, "SCM_RIGHTS: {}", std::io::Error::last_os_error());
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        ensure!(!header.is_null(), "no descriptor came");
        libc::CMSG_DATA(header).cast::<i32>().read_unaligned()
    };
    stream.write_all(&[1])?;
    Ok(fd)
}
