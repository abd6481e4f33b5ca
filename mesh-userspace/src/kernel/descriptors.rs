//! Descriptors sent from process to process over a unix socket, and who is at its other end.

use std::{
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
};

/// How many go with one message; the kernel takes 253 (`SCM_MAX_FD`).
pub const MOST: usize = 200;

/// Room for [`MOST`] descriptors and their header, aligned as `struct cmsghdr` wants it.
type Control = [u64; (MOST * size_of::<RawFd>()) / 8 + 4];

/// Sends bytes, at least one, with descriptors, at most [`MOST`]. Fewer bytes than given may go; the
/// descriptors go with the first.
pub fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MOST {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control: Control = [0; _];
    let mut slice = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: plain data, for which zeros are a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let size = size_of_val(fds.as_slice());
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: arithmetic on a length; `control` has room for `MOST` descriptors.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), size);
        }
    }
    // SAFETY: every pointer in the message outlives the call.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes and the descriptors that came with them; 0 bytes: the other end is closed.
pub fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control: Control = [0; _];
    let mut slice = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: plain data, for which zeros are a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in the message outlives the call.
    let read =
        unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel wrote whole headers, and descriptors that are this process's now.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let size = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for place in 0..size / size_of::<RawFd>() {
                    let mut fd: RawFd = -1;
                    let at = libc::CMSG_DATA(header).add(place * size_of::<RawFd>());
                    ptr::copy_nonoverlapping(at, (&raw mut fd).cast(), size_of::<RawFd>());
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other(
            "descriptors were lost: is the limit on open files too low?",
        ));
    }
    Ok((read, fds))
}

/// The user that the other end ran as when it connected, or listened (`SO_PEERCRED`).
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: a value of ours and its length.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(credentials.uid)
}

/// The user that this process runs as.
pub fn own_user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use super::*;

    #[test]
    fn a_listener_that_was_sent_accepts_what_was_queued_before() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut queued = TcpStream::connect(address).expect("connect");
        assert_eq!(send(&here, b"x", &[listener.as_fd()]).expect("send"), 1);
        drop(listener);
        let mut byte = [0];
        let (read, mut fds) = receive(&there, &mut byte).expect("receive");
        assert_eq!((read, byte, fds.len()), (1, *b"x", 1));
        let listener = TcpListener::from(fds.remove(0));
        let (mut accepted, _) = listener.accept().expect("accept");
        accepted.write_all(b"hello").expect("write");
        drop(accepted);
        let mut text = String::new();
        queued.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn as_many_go_as_are_promised_and_the_other_end_is_known() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let fds = vec![here.as_fd(); MOST];
        send(&here, b"x", &fds).expect("send");
        let (_, received) = receive(&there, &mut [0]).expect("receive");
        assert_eq!(received.len(), MOST);
        assert!(send(&here, b"x", &vec![here.as_fd(); MOST + 1]).is_err());
        assert_eq!(peer_user(&here).expect("credentials"), own_user());
    }
}
