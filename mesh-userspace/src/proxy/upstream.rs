//! Connections from one pod to servers, kept by one worker: no locks, no sharing between threads.
//!
//! They are kept per pod, not per node, because each is made in the pod's own network namespace.

mod http1;
mod http2;
mod probe;
mod resend;
mod wake;

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use self::http2::Http2Connections;
pub use self::{
    http1::{Http1Connection, Settled},
    http2::{Http2Stream, StreamPlace},
};
use super::{
    interception::{Interception, PodSockets},
    socket::Socket,
};
use crate::{mesh::model::Destination, telemetry::hash::FastMap};

/// Idle HTTP/1.1 connections per server.
const IDLE_LIMIT: usize = 512;

/// Sweeps after which an idle connection is closed, and a server that nobody asks is forgotten.
const IDLE_SWEEPS: u32 = 12;

/// A server's address as one pod sees it.
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// Requests and connections that this worker has with it now.
    in_flight: Cell<u32>,
    #[expect(
        clippy::vec_box,
        reason = "a connection is large and moves for each request: by its pointer"
    )]
    idle: RefCell<Vec<Box<Http1Connection>>>,
    http2: Http2Connections,
    /// It was asked for HTTP/2, which nobody declared, and does not speak it.
    http1_only: Cell<bool>,
    unused_sweeps: Cell<u32>,
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: Cell::new(0),
            idle: RefCell::default(),
            http2: Http2Connections::default(),
            http1_only: Cell::new(false),
            unused_sweeps: Cell::new(0),
        }
    }

    /// What this worker has under way with it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Counts a request or connection until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.unused_sweeps.set(0);
        InFlight(self.clone())
    }

    /// An idle connection that is still good. The one used last comes first: the others can grow old.
    pub fn take_idle(&self) -> Option<Box<Http1Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, if it can take one.
    pub fn put_idle(&self, mut connection: Box<Http1Connection>) {
        if connection.settle() != Settled::Ended {
            connection.idle_sweeps = 0;
            let mut idle = self.idle.borrow_mut();
            if idle.len() < IDLE_LIMIT {
                idle.push(connection);
            }
        }
    }

    /// A place on an HTTP/2 connection, a new one if need be. `None`: it was not `declared` that the server
    /// speaks HTTP/2, and it does not.
    pub async fn http2_stream(
        &self,
        declared: bool,
        connect: impl AsyncFnOnce() -> io::Result<Socket>,
    ) -> io::Result<Option<Http2Stream>> {
        if let Some(stream) = self.http2.stream() {
            return Ok(Some(stream));
        }
        let _turn = self.http2.connecting.lock().await;
        if let Some(stream) = self.http2.stream() {
            return Ok(Some(stream));
        }
        if !declared && self.http1_only.get() {
            return Ok(None);
        }
        let mut socket = connect().await?;
        if !declared && !probe::speaks_http2(&mut socket).await? {
            self.http1_only.set(true);
            return Ok(None);
        }
        let stream = self.http2.add(socket).await;
        stream.map(Some).map_err(io::Error::other)
    }

    fn sweep(&self) {
        self.idle.borrow_mut().retain_mut(|connection| {
            connection.idle_sweeps += 1;
            connection.idle_sweeps <= IDLE_SWEEPS && connection.is_usable()
        });
        self.http2.sweep(IDLE_SWEEPS);
        self.unused_sweeps.set(self.unused_sweeps.get() + 1);
    }

    fn is_forgotten(&self) -> bool {
        self.in_flight.get() == 0
            && self.unused_sweeps.get() > IDLE_SWEEPS
            && self.idle.borrow().is_empty()
            && self.http2.is_empty()
    }
}

/// Something under way with a server.
pub struct InFlight(Rc<Server>);

impl InFlight {
    /// With whom.
    pub fn server(&self) -> &Rc<Server> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// A destination with the servers behind its endpoints, in the same order.
pub struct Choices {
    /// What the snapshot says.
    pub destination: Arc<Destination>,
    /// One per endpoint.
    pub servers: Vec<Rc<Server>>,
    /// Whether all endpoints weigh the same.
    pub even: bool,
    /// Where round robin stands.
    pub next: Cell<usize>,
}

/// All servers that a pod talks to.
pub struct Upstreams {
    pod: PodSockets,
    interception: Arc<dyn Interception>,
    servers: RefCell<FastMap<SocketAddr, Rc<Server>>>,
    /// By the destination's address in memory, which the choices keep alive.
    choices: RefCell<FastMap<usize, Rc<Choices>>>,
}

impl Upstreams {
    /// No connections yet.
    pub fn new(pod: PodSockets, interception: Arc<dyn Interception>) -> Self {
        Self {
            pod,
            interception,
            servers: RefCell::default(),
            choices: RefCell::default(),
        }
    }

    /// The server at an address.
    pub fn server(&self, address: SocketAddr) -> Rc<Server> {
        self.servers
            .borrow_mut()
            .entry(address)
            .or_insert_with(|| Rc::new(Server::new(address)))
            .clone()
    }

    /// The servers of a destination. `start` is where round robin begins: random, so that the workers do
    /// not march in step.
    pub fn choices(
        &self,
        destination: &Arc<Destination>,
        start: impl FnOnce() -> usize,
    ) -> Rc<Choices> {
        let key = Arc::as_ptr(destination).addr();
        if let Some(choices) = self.choices.borrow().get(&key) {
            return choices.clone();
        }
        let endpoints = &destination.endpoints;
        let choices = Rc::new(Choices {
            destination: destination.clone(),
            servers: endpoints.iter().map(|e| self.server(e.address)).collect(),
            even: endpoints
                .windows(2)
                .all(|pair| pair[0].weight == pair[1].weight),
            next: Cell::new(start()),
        });
        self.choices.borrow_mut().insert(key, choices.clone());
        choices
    }

    /// Lets go of an older snapshot's destinations. Connections are kept.
    pub fn forget_destinations(&self) {
        self.choices.borrow_mut().clear();
    }

    /// Opens a connection from the pod's namespace.
    pub async fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Socket> {
        let socket = self.interception.upstream_socket(&self.pod, &address)?;
        let connecting = tokio::net::TcpSocket::from_std_stream(socket.into()).connect(address);
        match tokio::time::timeout(timeout, connecting).await {
            Ok(stream) => Ok(Socket::new(stream?)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer to connect within {timeout:?}"),
            )),
        }
    }

    /// Closes what was idle for too long or was closed by its server. Called at a steady beat.
    pub fn sweep(&self) {
        self.servers.borrow_mut().retain(|_, server| {
            server.sweep();
            !server.is_forgotten() || Rc::strong_count(server) > 1
        });
    }
}
