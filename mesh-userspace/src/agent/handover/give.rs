//! The agent that runs gives the node away.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use crate::kernel::descriptors;

use super::{
    Challenge, HandoverError, Hello, Label, PROTOCOL, Parcel, READY, Ready, prepare,
    proof::{self, Proof},
    receive, send, talk,
};

/// A new agent that may take the node over.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    layout: String,
}

impl Successor {
    /// Hears who it is, and has it proved. Blocks for as long as that takes.
    pub fn meet(stream: UnixStream, bpffs: &Path) -> Result<Self, HandoverError> {
        prepare(&stream).map_err(talk("preparing the socket"))?;
        let user = descriptors::peer_user(&stream).map_err(talk("asking who connects"))?;
        if user != descriptors::own_user() {
            return Err(HandoverError::Stranger("runs as another user"));
        }
        let (hello, _): (Hello, _) = receive(&stream).map_err(talk("hearing the new agent"))?;
        if hello.protocol != PROTOCOL {
            return Err(HandoverError::Protocol {
                theirs: hello.protocol,
            });
        }
        let own = Proof::make(bpffs, &hello.word)?;
        let word = proof::new_word().map_err(talk("reading /dev/urandom"))?;
        let challenge = Challenge { word: word.clone() };
        send(&stream, &challenge, &[]).map_err(talk("answering the new agent"))?;
        let (_, _): (Ready, _) = receive(&stream).map_err(talk("waiting for its proof"))?;
        if !Proof::is_there(bpffs, &word) {
            return Err(HandoverError::Stranger("cannot pin below bpffs"));
        }
        drop(own);
        Ok(Self {
            stream,
            layout: hello.layout,
        })
    }

    /// The folder that its layout is pinned below.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Gives it the descriptors, and returns when it serves. Blocks.
    pub fn give(&self, all: Vec<(Label, OwnedFd)>) -> Result<(), HandoverError> {
        let mut rest = all.into_iter();
        loop {
            let (labels, fds): (Vec<_>, Vec<_>) = rest.by_ref().take(descriptors::MOST).unzip();
            let last = labels.len() < descriptors::MOST;
            send(&self.stream, &Parcel { labels, last }, &fds)
                .map_err(talk("sending the listeners"))?;
            if last {
                break;
            }
        }
        self.stream
            .set_read_timeout(Some(READY))
            .map_err(talk("preparing the socket"))?;
        match receive::<Ready>(&self.stream) {
            Ok((Ready { ready: true }, _)) => Ok(()),
            Ok(_) => Err(HandoverError::NotReady("it says so".into())),
            Err(error) => Err(HandoverError::NotReady(error.to_string())),
        }
    }
}
