//! The listener and its limits: how many connections, how long, how large.

use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{self, JoinSet},
    time,
};

use super::{
    AdminState,
    answer::Answer,
    router::{self, Call},
};

/// More connections wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
/// Of a request, heads aside (hyper bounds those): an `explain` query is far below it.
const MAX_BODY: usize = 256 * 1024;
/// For a request's head; also how long a kept-alive connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For a request's body and the answer to it together.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After this a connection is asked to end; a client that reads nothing cannot hold it for ever.
const CONNECTION_AGE: Duration = Duration::from_mins(2);
/// What a connection that was asked to end still gets.
const DRAIN: Duration = Duration::from_secs(5);
/// After `accept()` failed, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody listens there.
    #[error(
        "--admin {address}: address in use (os error {}): another agent? \
         choose another with --admin or MESH_ADMIN",
        .source.raw_os_error().unwrap_or_default()
    )]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error(
        "--admin {address}: cannot listen there: {source}: \
         choose an address of this machine with --admin or MESH_ADMIN"
    )]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A bound server; [`Server::run`] makes it answer.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`. Within a tokio runtime with I/O and time.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => AdminError::InUse { address, source },
            _ => AdminError::Bind { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address: bound,
        })
    }

    /// Answers on a socket that listens already. Within a tokio runtime with I/O and time.
    pub fn adopt(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// One more descriptor of the socket.
    pub fn again(&self) -> io::Result<std::net::TcpListener> {
        Ok(self.listener.as_fd().try_clone_to_owned()?.into())
    }

    /// What was bound: with port 0, the one that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes; then open requests are finished and it returns.
    pub async fn run(self, state: Arc<dyn AdminState>, stop: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots)
                    .acquire_owned()
                    .await
                    .expect("invariant: the semaphore is never closed");
                (self.listener.accept().await, slot)
            };
            tokio::select! {
                () = &mut stop => break,
                (accepted, slot) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let state = Arc::clone(&state);
                        let stopped = stopped.clone();
                        let listens_on = self.address.ip();
                        connections.spawn(async move {
                            serve(stream, state, listens_on, stopped).await;
                            drop(slot);
                        });
                    }
                    Err(e) => {
                        tracing::warn!(address = %self.address, error = %e, "admin: accept failed");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(e) = ended {
                        tracing::error!(error = %e, "admin: a connection's task failed");
                    }
                }
            }
        }
        drop(self.listener);
        stopping.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

/// One connection, for at most `CONNECTION_AGE` and `DRAIN`.
async fn serve(
    stream: TcpStream,
    state: Arc<dyn AdminState>,
    listens_on: IpAddr,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, std::convert::Infallible>(respond(request, state, listens_on).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            tokio::select! {
                () = time::sleep(CONNECTION_AGE) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(e) = ended {
        // A client that went away or spoke no HTTP: worth a line to who looks for it, to nobody else.
        tracing::debug!(error = %e, "admin: connection ended early");
    }
}

/// One request: reads the body within its limits, then answers off the runtime's thread.
async fn respond(
    request: Request<Incoming>,
    state: Arc<dyn AdminState>,
    listens_on: IpAddr,
) -> Response<Full<Bytes>> {
    let answered = time::timeout(ANSWER_TIMEOUT, async {
        let (head, body) = request.into_parts();
        // Said beforehand: not a byte of it is read.
        if body.size_hint().lower() > MAX_BODY as u64 {
            return too_large();
        }
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return unreadable(&*e),
        };
        let call = Call::new(head, body, listens_on);
        task::spawn_blocking(move || router::answer(&*state, &call))
            .await
            .unwrap_or_else(|e| {
                tracing::error!(error = %e, "admin: answering failed");
                Answer::failure(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the agent failed while it made the answer",
                    "its log has the details; please report it",
                )
            })
    });
    answered.await.unwrap_or_else(|_| slow()).into()
}

fn unreadable(error: &(dyn Error + Send + Sync + 'static)) -> Answer {
    if error.is::<LengthLimitError>() {
        too_large()
    } else {
        Answer::failure(
            StatusCode::BAD_REQUEST,
            format!("reading the request's body: {error}"),
            "send the whole body",
        )
    }
}

fn too_large() -> Answer {
    Answer::failure(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the request's body is larger than {MAX_BODY} bytes"),
        "send less: a query of `explain` has a URL, a method and headers",
    )
}

fn slow() -> Answer {
    Answer::failure(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        "try again; if the body was sent slowly, send it at once",
    )
}
