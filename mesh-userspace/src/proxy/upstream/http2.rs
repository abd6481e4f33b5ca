//! HTTP/2 connections to one server: requests share them.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use hyper::client::conn::http2;

use super::super::{
    body::RequestBody,
    runtime::{LocalExecutor, WorkerTimer},
    socket::Socket,
};

/// Streams per connection before another is opened. Most servers allow 100 or more.
const STREAMS: u32 = 100;

/// The server is asked whether it is alive when nothing came for this long.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest head of a response.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// The connections to one server.
#[derive(Default)]
pub struct Http2Connections {
    open: RefCell<Vec<Http2Connection>>,
    /// One connects at a time; the others find its connection.
    pub(super) connecting: tokio::sync::Mutex<()>,
}

struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    streams: Rc<Cell<u32>>,
    idle_sweeps: u32,
}

/// A place on a connection, given back when it is dropped.
pub struct Http2Stream {
    /// Sends on the connection.
    pub sender: http2::SendRequest<RequestBody>,
    place: StreamPlace,
}

impl Http2Stream {
    /// Keeps only the place.
    pub fn into_place(self) -> StreamPlace {
        self.place
    }
}

/// Counts a stream until it is dropped.
pub struct StreamPlace(Rc<Cell<u32>>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Http2Connections {
    /// A place on a connection that is open and has one.
    pub fn stream(&self) -> Option<Http2Stream> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.sender.is_closed());
        let connection = open.iter_mut().find(|c| c.streams.get() < STREAMS)?;
        Some(connection.stream())
    }

    /// Takes over a connected socket.
    pub async fn add(&self, socket: Socket) -> Result<Http2Stream, hyper::Error> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(WorkerTimer)
            .adaptive_window(true)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(socket)
            .await?;
        tokio::task::spawn_local(async move {
            // Its requests are told how it ended.
            let _ = connection.await;
        });
        let mut connection = Http2Connection {
            sender,
            streams: Rc::default(),
            idle_sweeps: 0,
        };
        let stream = connection.stream();
        self.open.borrow_mut().push(connection);
        Ok(stream)
    }

    /// Closes what had no stream for `limit` sweeps (hyper closes a connection whose last sender is gone).
    pub fn sweep(&self, limit: u32) {
        self.open.borrow_mut().retain_mut(|connection| {
            connection.idle_sweeps = if connection.streams.get() == 0 {
                connection.idle_sweeps + 1
            } else {
                0
            };
            connection.idle_sweeps <= limit && !connection.sender.is_closed()
        });
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

impl Http2Connection {
    fn stream(&mut self) -> Http2Stream {
        self.idle_sweeps = 0;
        self.streams.set(self.streams.get() + 1);
        Http2Stream {
            sender: self.sender.clone(),
            place: StreamPlace(self.streams.clone()),
        }
    }
}
