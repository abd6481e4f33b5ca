//! UDP sockets: the orders that begin with `udp`.

use std::io;
use std::mem::{ManuallyDrop, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Order, Puppet};

impl Puppet {
    /// What came of an order: an error of the kernel is an answer.
    pub(super) fn datagrams(&self, op: &str, order: &Order) -> Result<Value> {
        if op == "udp socket" {
            let domain = match order.text("family")? {
                "ipv4" => Domain::IPV4,
                "ipv6" => Domain::IPV6,
                other => bail!("there is no family {other}"),
            };
            let socket = Socket::new(domain, Type::DGRAM, None)?;
            if domain == Domain::IPV6 {
                socket.set_only_v6(order.flag("only"))?;
            }
            self.put(order.text("on")?, socket.into_raw_fd());
            return Ok(json!("made"));
        }
        // SAFETY: a socket that is open for as long as the puppet holds it; not closed here.
        let socket = ManuallyDrop::new(unsafe { UdpSocket::from_raw_fd(self.fd(order)?) });
        let outcome = match op {
            "udp connect" => socket.connect(to(order)?).map(|()| json!("connected")),
            "udp send" => socket.send(&order.bytes()?).map(|sent| json!(sent)),
            "udp send to" => socket
                .send_to(&order.bytes()?, to(order)?)
                .map(|sent| json!(sent)),
            "udp send several" => send_several(&socket, order)?,
            "udp receive" => receive(&socket, order)?,
            "udp names" => names(&socket),
            _ => bail!("there is no order {op}"),
        };
        Ok(outcome.unwrap_or_else(|error| json!({"error": spelled(&error)})))
    }
}

fn to(order: &Order) -> Result<SocketAddr> {
    let text = order.text("to")?;
    text.parse()
        .with_context(|| format!("not an address: {text}"))
}

/// sendmmsg(2): the same text to each of `to`; how many went.
fn send_several(socket: &UdpSocket, order: &Order) -> Result<io::Result<Value>> {
    let list = order.0["to"].as_array().context("to is no list")?;
    let addresses = list
        .iter()
        .map(|to| {
            Ok(SockAddr::from(
                to.as_str().context("no text")?.parse::<SocketAddr>()?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut bytes = order.bytes()?;
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut messages: Vec<libc::mmsghdr> = addresses
        .iter()
        .map(|address| {
            // SAFETY: plain data, for which zeros are a value.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = address.len();
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = messages.len() as libc::c_uint;
    // SAFETY: the messages, addresses and bytes outlive the call.
    let sent = unsafe {
        libc::sendmmsg(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            messages.as_mut_ptr(),
            count,
            0,
        )
    };
    Ok(if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(json!(sent))
    })
}

/// recvfrom(2): the text, and who sent it.
fn receive(socket: &UdpSocket, order: &Order) -> Result<io::Result<Value>> {
    let within = Duration::from_millis(order.unsigned("within")?);
    socket.set_read_timeout(Some(within))?;
    let mut buffer = [0; 2048];
    Ok(socket.recv_from(&mut buffer).map(|(length, from)| {
        let text = String::from_utf8_lossy(&buffer[..length]);
        json!({"text": text, "from": from.to_string()})
    }))
}

/// Both addresses, as the kernel says them.
fn names(socket: &UdpSocket) -> io::Result<Value> {
    let peer = match socket.peer_addr() {
        Ok(peer) => json!(peer.to_string()),
        Err(error) => json!(spelled(&error)),
    };
    Ok(json!({"own": socket.local_addr()?.to_string(), "peer": peer}))
}

fn spelled(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(libc::EDESTADDRREQ) => "EDESTADDRREQ",
        Some(libc::ENOTCONN) => "ENOTCONN",
        _ => return error.to_string(),
    };
    name.to_owned()
}
