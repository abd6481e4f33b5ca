//! The new agent takes the node over.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::kernel::descriptors;

use super::{
    Challenge, HandoverError, Hello, Label, PROTOCOL, Parcel, PodListeners, Ready, Role, prepare,
    proof::{self, Proof},
    receive, send, talk,
};

/// What the agent before this one gave away. It goes on serving until [`Predecessor::release`], or for
/// good where this is dropped.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// The name that an agent of this node holds.
    pub claim: UnixListener,
    /// Where it answers.
    pub admin: Option<(SocketAddr, TcpListener)>,
    /// Its sockets in the pods, by the cookie of the namespace.
    pub pods: HashMap<u64, PodListeners>,
}

impl Predecessor {
    /// Asks the agent at the other end for the node. Blocks for as long as that takes.
    pub fn ask(stream: UnixStream, bpffs: &Path, layout: &str) -> Result<Self, HandoverError> {
        prepare(&stream).map_err(talk("preparing the socket"))?;
        let user = descriptors::peer_user(&stream).map_err(talk("asking who listens"))?;
        if user != descriptors::own_user() {
            return Err(HandoverError::Stranger("runs as another user"));
        }
        let word = proof::new_word().map_err(talk("reading /dev/urandom"))?;
        let hello = Hello {
            protocol: PROTOCOL,
            layout: layout.to_owned(),
            word: word.clone(),
        };
        send(&stream, &hello, &[]).map_err(talk("asking the agent that runs"))?;
        let (challenge, _): (Challenge, _) =
            receive(&stream).map_err(talk("waiting for the agent that runs"))?;
        if !Proof::is_there(bpffs, &word) {
            return Err(HandoverError::Stranger("cannot pin below bpffs"));
        }
        let proof = Proof::make(bpffs, &challenge.word)?;
        send(&stream, &Ready { ready: false }, &[]).map_err(talk("sending the proof"))?;
        let mut received = Received::default();
        loop {
            let (parcel, fds): (Parcel, _) =
                receive(&stream).map_err(talk("receiving the listeners"))?;
            for (label, fd) in parcel.labels.into_iter().zip(fds) {
                received.put(&label, fd);
            }
            if parcel.last {
                break;
            }
        }
        drop(proof);
        let claim = received
            .claim
            .ok_or(HandoverError::Stranger("keeps the node's name"))?;
        Ok(Self {
            stream,
            claim,
            admin: received.admin,
            pods: received.pods,
        })
    }

    /// Tells it that this agent serves: it ends.
    pub fn release(&self) -> Result<(), HandoverError> {
        send(&self.stream, &Ready { ready: true }, &[]).map_err(talk("telling the old agent"))
    }
}

#[derive(Default)]
struct Received {
    claim: Option<UnixListener>,
    admin: Option<(SocketAddr, TcpListener)>,
    pods: HashMap<u64, PodListeners>,
    /// A slot's datagram socket, until its listener comes.
    datagrams: Option<(u64, UdpSocket)>,
}

impl Received {
    fn put(&mut self, label: &Label, fd: OwnedFd) {
        match *label {
            Label::Claim => self.claim = Some(fd.into()),
            Label::Admin(address) => self.admin = Some((address, fd.into())),
            Label::Pod(pod, Role::Streams) => self.pod(pod).streams.push(fd.into()),
            Label::Pod(pod, Role::Streams6) => self.pod(pod).streams6.push(fd.into()),
            Label::Pod(pod, Role::NameDatagrams) => self.datagrams = Some((pod, fd.into())),
            Label::Pod(pod, Role::NameStreams) => {
                if let Some((of, datagrams)) = self.datagrams.take()
                    && of == pod
                {
                    let is_ipv6 = datagrams
                        .local_addr()
                        .is_ok_and(|address| address.is_ipv6());
                    let pod = self.pod(pod);
                    let names = if is_ipv6 {
                        &mut pod.names6
                    } else {
                        &mut pod.names
                    };
                    names.push((datagrams, fd.into()));
                }
            }
        }
    }

    fn pod(&mut self, cookie: u64) -> &mut PodListeners {
        self.pods.entry(cookie).or_default()
    }
}
