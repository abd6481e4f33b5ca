//! System calls on sockets: one call each, and what it answered.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::IntoRawFd;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::names::{bytes, events, outcome};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

pub(super) fn thread_id() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

pub(super) fn socket() -> io::Result<i32> {
    // SAFETY: plain integers.
    check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

/// Listens on every address, on a port of the kernel's choice.
pub(super) fn bind_and_listen(fd: i32) -> io::Result<u16> {
    let any = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    // SAFETY: the address outlives the call, its length is its own.
    check(unsafe { libc::bind(fd, (&raw const any).cast(), length::<libc::sockaddr_in>()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::listen(fd, 16) })?;
    Ok(own_name(fd)?.port())
}

/// Listens at an address of either family; `[::]` takes both.
pub(super) fn listen_at(address: &str, reuse_port: bool) -> Result<i32> {
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("not an address: {address}"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into_raw_fd())
}

pub(super) fn set_nonblocking(fd: i32, on: bool) -> io::Result<()> {
    // SAFETY: plain integers.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        let flags = if on {
            flags | libc::O_NONBLOCK
        } else {
            flags & !libc::O_NONBLOCK
        };
        check(libc::fcntl(fd, libc::F_SETFL, flags)).map(drop)
    }
}

/// Connects, and waits until that has come to an end; says this end's address.
pub(super) fn connect(fd: i32, to: &str) -> Result<Value> {
    let to = sockaddr(
        to.parse()
            .with_context(|| format!("not an address: {to}"))?,
    );
    // SAFETY: the address outlives the call, its length is its own.
    let result =
        unsafe { libc::connect(fd, (&raw const to).cast(), length::<libc::sockaddr_in>()) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            bail!("connect: {error}");
        }
        poll(fd, libc::POLLOUT, 10_000);
        let pending = get_option(fd, libc::SOL_SOCKET, libc::SO_ERROR);
        if pending != json!(0) {
            bail!("connect: SO_ERROR is {pending}");
        }
    }
    Ok(json!({"local": own_name(fd)?.to_string()}))
}

pub(super) fn accept(fd: i32, nonblocking: bool) -> io::Result<i32> {
    poll(fd, libc::POLLIN, 10_000);
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: the kernel need not say the address.
    check(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}

pub(super) fn close(fd: i32) -> Value {
    // SAFETY: the descriptor is the puppet's own and was taken out of its table.
    outcome(unsafe { libc::close(fd) } as isize)
}

pub(super) fn pipe() -> io::Result<[i32; 2]> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok(ends)
}

pub(super) fn send(fd: i32, what: &[u8], flags: i32) -> Value {
    // SAFETY: the bytes outlive the call.
    outcome(unsafe {
        libc::send(
            fd,
            what.as_ptr().cast(),
            what.len(),
            flags | libc::MSG_NOSIGNAL,
        )
    })
}

pub(super) fn recv(fd: i32, size: usize, flags: i32) -> Value {
    let mut buffer = vec![0; size];
    // SAFETY: the buffer is as long as is said.
    let result = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), size, flags) };
    if result < 0 || flags & libc::MSG_TRUNC != 0 {
        return outcome(result);
    }
    buffer.truncate(result.cast_unsigned());
    bytes(&buffer)
}

/// recv(2) with `MSG_TRUNC`, which discards: no buffer.
pub(super) fn discard(fd: i32, size: usize) -> Value {
    // SAFETY: TCP writes nothing with this flag (tcp(7)).
    outcome(unsafe { libc::recv(fd, std::ptr::null_mut(), size, libc::MSG_TRUNC) })
}

pub(super) fn write(fd: i32, what: &[u8]) -> Value {
    // SAFETY: the bytes outlive the call.
    outcome(unsafe { libc::write(fd, what.as_ptr().cast(), what.len()) })
}

pub(super) fn shutdown(fd: i32, how: i32) -> Value {
    // SAFETY: plain integers.
    outcome(unsafe { libc::shutdown(fd, how) } as isize)
}

pub(super) fn poll(fd: i32, wanted: i16, within: i32) -> Value {
    let mut poll = libc::pollfd {
        fd,
        events: wanted,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, within) };
    if ready < 0 {
        return outcome(-1);
    }
    events(u32::from(poll.revents.cast_unsigned()))
}

/// An epoll instance that watches one descriptor.
pub(super) fn epoll(of: i32, wanted: u32) -> io::Result<i32> {
    // SAFETY: plain integers, and an event that outlives the call.
    unsafe {
        let epoll = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
        let mut event = libc::epoll_event {
            events: wanted,
            u64: 0,
        };
        check(libc::epoll_ctl(
            epoll,
            libc::EPOLL_CTL_ADD,
            of,
            &raw mut event,
        ))?;
        Ok(epoll)
    }
}

pub(super) fn wait(epoll: i32, within: i32) -> Value {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    let ready = unsafe { libc::epoll_wait(epoll, &raw mut event, 1, within) };
    if ready < 0 {
        return outcome(-1);
    }
    events(event.events)
}

pub(super) fn ioctl(fd: i32, what: &str) -> Result<Value> {
    let request = match what {
        // SIOCINQ is the same number.
        "FIONREAD" => libc::FIONREAD,
        // SIOCOUTQ.
        "TIOCOUTQ" => libc::TIOCOUTQ,
        "SIOCATMARK" => 0x8905,
        _ => bail!("there is no ioctl {what} here"),
    };
    let mut value: libc::c_int = -1;
    // SAFETY: the three write an int.
    let result = unsafe { libc::ioctl(fd, request, &raw mut value) };
    Ok(if result < 0 {
        outcome(-1)
    } else {
        json!(value)
    })
}

pub(super) fn get_option(fd: i32, level: i32, name: i32) -> Value {
    let mut value: libc::c_int = 0;
    let mut size = length::<libc::c_int>();
    // SAFETY: room for as many bytes as is said.
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut size) };
    if result < 0 {
        outcome(-1)
    } else {
        json!(value)
    }
}

pub(super) fn set_option(fd: i32, level: i32, name: i32, value: i32) -> Value {
    set(fd, level, name, &value)
}

pub(super) fn set_text(fd: i32, level: i32, name: i32, text: &str) -> Value {
    // SAFETY: the text outlives the call, its length is its own.
    let result = unsafe {
        let length = text.len() as libc::socklen_t;
        libc::setsockopt(fd, level, name, text.as_ptr().cast(), length)
    };
    outcome(result as isize)
}

pub(super) fn set_timeout(fd: i32, name: i32, milliseconds: i64) -> Value {
    let value = libc::timeval {
        tv_sec: milliseconds / 1000,
        tv_usec: milliseconds % 1000 * 1000,
    };
    set(fd, libc::SOL_SOCKET, name, &value)
}

pub(super) fn set_linger(fd: i32, seconds: i32) -> Value {
    let value = libc::linger {
        l_onoff: 1,
        l_linger: seconds,
    };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value)
}

fn set<T>(fd: i32, level: i32, name: i32, value: &T) -> Value {
    // SAFETY: the value outlives the call, its length is its own.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length::<T>(),
        )
    };
    outcome(result as isize)
}

/// Both addresses. Ports are left out where they are the kernel's choice: a client's own.
pub(super) fn names(fd: i32) -> Result<Value> {
    let mut peer: libc::sockaddr_in = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut size = length::<libc::sockaddr_in>();
    // SAFETY: room for as many bytes as is said.
    let result = unsafe { libc::getpeername(fd, (&raw mut peer).cast(), &raw mut size) };
    let peer = if result < 0 {
        outcome(-1)
    } else {
        json!(address(&peer).to_string())
    };
    Ok(json!({"own": own_name(fd)?.to_string(), "peer": peer}))
}

/// connect(2) to `AF_UNSPEC`: the connection goes, the socket stays.
pub(super) fn disconnect(fd: i32) -> Value {
    // SAFETY: all zeroes is a socket address of the family AF_UNSPEC, which is 0.
    let nowhere: libc::sockaddr_in = unsafe { zeroed() };
    // SAFETY: the address outlives the call, its length is its own.
    let result = unsafe {
        libc::connect(
            fd,
            (&raw const nowhere).cast(),
            length::<libc::sockaddr_in>(),
        )
    };
    outcome(result as isize)
}

/// Gives the process another name, as /proc/PID/comm shows it.
pub(super) fn name_process(name: &str) -> Result<Value> {
    std::fs::write("/proc/self/comm", name).context("write /proc/self/comm")?;
    Ok(json!("named"))
}

pub(super) fn own_name(fd: i32) -> io::Result<SocketAddrV4> {
    let mut own: libc::sockaddr_in = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut size = length::<libc::sockaddr_in>();
    // SAFETY: room for as many bytes as is said.
    check(unsafe { libc::getsockname(fd, (&raw mut own).cast(), &raw mut size) })?;
    Ok(address(&own))
}

fn sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn address(address: &libc::sockaddr_in) -> SocketAddrV4 {
    let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
    SocketAddrV4::new(ip, u16::from_be(address.sin_port))
}

fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
