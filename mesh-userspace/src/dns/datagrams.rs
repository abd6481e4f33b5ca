//! Queries over UDP.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{io::Interest, net::UdpSocket, sync::OwnedSemaphorePermit};

use super::{
    Shared,
    pod::{PAUSE, Pod},
};
use crate::mesh::dns::{self, Decision, Transport};

/// How long an answer is waited for: longer than resolvers' clients do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest datagram, in bytes.
const LARGEST: usize = 65535;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into());
}

/// Serves what comes to a pod's slot, until it is aborted.
pub async fn serve(pod: Rc<Pod>, slot: u32, socket: Rc<UdpSocket>) {
    loop {
        let received = match socket.readable().await {
            Ok(()) => BUFFER.with_borrow_mut(|buffer| {
                let (length, client) = socket.try_recv_from(buffer)?;
                take(&pod, slot, &socket, &buffer[..length], client);
                Ok(())
            }),
            Err(error) => Err(error),
        };
        match received {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                tracing::warn!(pod = %pod.sockets.pod, %error, "receiving queries, trying again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => {}
        }
    }
}

fn take(pod: &Rc<Pod>, slot: u32, socket: &Rc<UdpSocket>, query: &[u8], client: SocketAddr) {
    let counters = &pod.shared.counters;
    match pod.decide(query, Transport::Udp) {
        Decision::Answer(answer) => match socket.try_send_to(&answer, client) {
            Ok(_) => counters.answered(),
            // The client's queue is full, or it is gone: a datagram may be lost.
            Err(_) => counters.failed(),
        },
        Decision::Forward => match pod.datagrams.clone().try_acquire_owned() {
            Ok(permit) => {
                let place = Place::new(pod.shared.clone(), permit);
                let passing = pass_on(pod.clone(), slot, socket.clone(), query.to_vec(), client);
                tokio::task::spawn_local(async move {
                    passing.await;
                    drop(place);
                });
            }
            Err(_) => counters.failed(),
        },
    }
}

async fn pass_on(
    pod: Rc<Pod>,
    slot: u32,
    socket: Rc<UdpSocket>,
    query: Vec<u8>,
    client: SocketAddr,
) {
    let counters = &pod.shared.counters;
    let answer = match tokio::time::timeout(PATIENCE, exchange(&pod, slot, &query)).await {
        Ok(Ok(answer)) => {
            counters.forwarded();
            Some(answer)
        }
        Ok(Err(error)) => {
            // Nobody listens there, or there is no way: the client hears of it, as it would have.
            tracing::debug!(pod = %pod.sockets.pod, slot, %error, "a query has no resolver");
            counters.failed();
            dns::failure(&query)
        }
        Err(_) => {
            counters.failed();
            None
        }
    };
    if let Some(answer) = answer {
        // A client that is gone does not wait for it.
        let _ = socket.send_to(&answer, client).await;
    }
}

/// Asks the name server, with a socket and so a source port of its own.
async fn exchange(pod: &Pod, slot: u32, query: &[u8]) -> io::Result<Vec<u8>> {
    let resolver = pod.resolver(slot, Transport::Udp)?;
    let network = &pod.shared.network;
    let socket = network.datagram_socket(&pod.sockets, &resolver)?;
    socket.connect(&resolver.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(query).await?;
    let id = &query[..query.len().min(2)];
    loop {
        // That nobody listens there comes as an error alone.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            let error =
                || Err::<(), _>(socket.take_error()?.unwrap_or(ErrorKind::WouldBlock.into()));
            match socket.try_io(Interest::ERROR, error) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        let received: io::Result<_> = BUFFER.with_borrow_mut(|buffer| {
            let length = socket.try_recv(buffer)?;
            let answer = &buffer[..length];
            Ok(answer.starts_with(id).then(|| answer.to_vec()))
        });
        match received {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A query's place among those that wait, until it is dropped.
struct Place {
    shared: Rc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(shared: Rc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        shared.passed_on.set(shared.passed_on.get() + 1);
        Self {
            shared,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.passed_on.set(self.shared.passed_on.get() - 1);
        self.shared.came_back.notify_one();
    }
}
