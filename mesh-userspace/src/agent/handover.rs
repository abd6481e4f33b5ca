//! An agent takes a node over from the one that runs: it is given the listening sockets, so no connection
//! ever meets a closed port, and whatever waits in their queues is accepted by one of the two.
//!
//! | who | says | and |
//! |---|---|---|
//! | new | hello, its layout, a word | connects to the name that the old one holds ([`super::only_one`]) |
//! | old | a word of its own | proves that it may pin below this bpffs |
//! | new | nothing more | proves the same |
//! | old | parcels: labels and descriptors | leaves the maps alone from here on, still serves |
//! | new | ready | has its programs, maps and workers in force |
//! | old | | accepts no more, finishes what it has begun, ends |
//!
//! Where the new one ends before it is ready, the old one goes on as if nothing had been.

pub mod give;
pub mod proof;
pub mod take;

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::kernel::descriptors;

/// The version of what is said here.
const PROTOCOL: u32 = 1;

/// How long the other end may take for one message, a busy machine included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a new agent may take to have everything in force.
const READY: Duration = Duration::from_mins(2);

/// No message is larger: a parcel has a label for each of its descriptors.
const MOST_BYTES: usize = 1 << 20;

/// Why a node was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The other end does not answer, or says what nobody expects.
    #[error("{operation}: {source}")]
    Talk {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is of another user, or may not pin.
    #[error("the process at the other end {0}: it is not a node's agent")]
    Stranger(&'static str),
    /// It speaks another protocol.
    #[error("the other agent's protocol is {theirs}, this one's {PROTOCOL}: stop it first")]
    Protocol {
        /// Its version.
        theirs: u32,
    },
    /// It ended, or gave up.
    #[error("the new agent was not ready: {0}")]
    NotReady(String),
}

fn talk(operation: &'static str) -> impl FnOnce(io::Error) -> HandoverError {
    move |source| HandoverError::Talk { operation, source }
}

/// The new agent's first word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    protocol: u32,
    /// The folder that its layout is pinned below: `v2`. With another one, listeners are of no use to it.
    layout: String,
    word: String,
}

/// The old agent's.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Challenge {
    word: String,
}

/// Descriptors are on their way: one for each label.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Parcel {
    labels: Vec<Label>,
    last: bool,
}

/// The new agent serves.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    ready: bool,
}

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// The name that an agent of this node holds.
    Claim,
    /// The admin address.
    Admin(SocketAddr),
    /// A listener of the agent's in a pod, by the cookie of the pod's network namespace.
    Pod(u64, Role),
}

/// What a listener in a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Connections, IPv4.
    Streams,
    /// Connections, IPv6.
    Streams6,
    /// Queries for names, by slot.
    NameDatagrams,
    /// The same by TCP.
    NameStreams,
}

/// The agent's sockets in one pod.
#[derive(Debug, Default)]
pub struct PodListeners {
    /// For IPv4, on one port.
    pub streams: Vec<TcpListener>,
    /// For IPv6, on one port.
    pub streams6: Vec<TcpListener>,
    /// For names over IPv4, by slot.
    pub names: NameListeners,
    /// The same over IPv6.
    pub names6: NameListeners,
}

/// Listeners for names, by slot.
pub type NameListeners = Vec<(UdpSocket, TcpListener)>;

impl PodListeners {
    /// More descriptors of the same sockets.
    pub fn again(&self) -> io::Result<Self> {
        let both = |(datagrams, streams): &(UdpSocket, TcpListener)| {
            Ok::<_, io::Error>((datagrams.try_clone()?, streams.try_clone()?))
        };
        Ok(Self {
            streams: again(&self.streams)?,
            streams6: again(&self.streams6)?,
            names: self.names.iter().map(both).collect::<Result<_, _>>()?,
            names6: self.names6.iter().map(both).collect::<Result<_, _>>()?,
        })
    }

    /// Descriptors to give away, with what they are.
    pub fn labelled(&self, cookie: u64) -> io::Result<Vec<(Label, OwnedFd)>> {
        let sockets = self.again()?;
        let named = |role| move |fd: OwnedFd| (Label::Pod(cookie, role), fd);
        let mut all: Vec<(Label, OwnedFd)> = Vec::new();
        let streams = sockets.streams.into_iter().map(OwnedFd::from);
        all.extend(streams.map(named(Role::Streams)));
        let streams = sockets.streams6.into_iter().map(OwnedFd::from);
        all.extend(streams.map(named(Role::Streams6)));
        for (datagrams, streams) in sockets.names.into_iter().chain(sockets.names6) {
            all.push(named(Role::NameDatagrams)(datagrams.into()));
            all.push(named(Role::NameStreams)(streams.into()));
        }
        Ok(all)
    }
}

fn again(listeners: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    listeners.iter().map(TcpListener::try_clone).collect()
}

/// Both ends wait so long for each other, not for ever.
fn prepare(stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A length, with the descriptors, and a JSON object.
fn send(stream: &UnixStream, message: &impl Serialize, fds: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    let length = length.to_le_bytes();
    let sent = descriptors::send(stream, &length, &fds)?;
    let mut stream = stream;
    stream.write_all(&length[sent..])?;
    stream.write_all(&text)
}

fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let (read, fds) = descriptors::receive(stream, &mut length)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut stream = stream;
    stream.read_exact(&mut length[read..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, fds))
}

#[cfg(test)]
mod tests;
