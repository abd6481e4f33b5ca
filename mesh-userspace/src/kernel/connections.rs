//! Live connections and totals, read from the kernel: with an agent or without one.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use mesh_common::{
    IpBe, PortBe,
    connection::{Connection, ConnectionRecord, Plain, Role, Sending},
    policy::Verdict,
};

pub mod open;

use super::{caveats, sys};

/// A connection, both of its ends put together where both are on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConnection {
    /// Number of the client in the names map; 0 where it is not enrolled.
    pub source: u32,
    /// Number of the server in the names map; 0 where it is unknown.
    pub destination: u32,
    /// Number of the service in the names map; 0 where none was dialled.
    pub service: u32,
    /// A [`Verdict`].
    pub way: u32,
    /// Whether the client's bytes go, or will go, from socket to socket, and why not.
    pub request: Direction,
    /// The same for the server's bytes.
    pub response: Direction,
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end, as it is.
    pub server: SocketAddr,
    /// What the application dialled, where that is another address.
    pub dialled: Option<SocketAddr>,
    /// Payload bytes, client to server.
    pub sent: u64,
    /// Payload bytes, server to client.
    pub received: u64,
    /// Of both, those that went from socket to socket.
    pub redirected: u64,
    /// Since it was established.
    pub age: Duration,
    /// Smoothed, of the client's end (the server's where the client is not here).
    pub rtt: Duration,
    /// Of the same end, the smallest of the last minutes.
    pub min_rtt: Duration,
    /// Segments sent again, by the ends that are seen.
    pub retransmits: u64,
}

/// How the bytes of one direction travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Nothing was sent yet.
    Idle,
    /// From socket to socket.
    Redirected,
    /// As TCP.
    Plain(&'static str),
}

impl Direction {
    fn of(connection: &Connection) -> Self {
        match connection.sending {
            s if s == Sending::Redirect as u32 => Self::Redirected,
            s if s == Sending::Plain as u32 || s == Sending::Detour as u32 => {
                Self::Plain(caveats::why(connection))
            }
            _ => Self::Idle,
        }
    }
}

/// One line for people, for each [`Plain`].
pub fn why(plain: u32) -> &'static str {
    const REASONS: [(Plain, &str); 21] = [
        (Plain::No, "nothing was sent yet"),
        (
            Plain::Remote,
            "the other end is not an enrolled pod of this node",
        ),
        (Plain::SwitchedOff, "acceleration is off on this node"),
        (Plain::Workload, "annotation zerohop.dev/acceleration: off"),
        (
            Plain::Port,
            "annotation zerohop.dev/acceleration-exclude-ports",
        ),
        (
            Plain::Refused,
            "the socket map refused it: full, or another tool holds the socket",
        ),
        (
            Plain::PeerNotThere,
            "bytes were sent before the server's end was established",
        ),
        (
            Plain::SentBefore,
            "bytes were sent with the handshake (TCP_FASTOPEN)",
        ),
        (Plain::PeerGone, "the other end has closed"),
        (Plain::Agent, "it goes by the agent"),
        (
            Plain::Deferred,
            "the server\'s listener has TCP_DEFER_ACCEPT",
        ),
        (
            Plain::Blocking,
            "one end's socket blocks: annotation zerohop.dev/acceleration: on overrides",
        ),
        (
            Plain::ServerFirst,
            "the server spoke first: annotation zerohop.dev/acceleration: on overrides",
        ),
        (Plain::PeerPlain, "the other end's bytes are plain TCP"),
        (
            Plain::Queued,
            "the reader lags: TCP's flow control holds the sender back",
        ),
        (
            Plain::SmallMessages,
            "a stream of small messages, which TCP joins",
        ),
        (
            Plain::LargeMessage,
            "its first message is large: TCP carries such streams as fast",
        ),
        (
            Plain::Option,
            "an option was set that redirection could not honour",
        ),
        (
            Plain::Executable,
            "one end's executable is known to use splice or urgent data: annotation \
             zerohop.dev/acceleration: on overrides",
        ),
        (Plain::ShutDown, "its sending was shut down"),
        (
            Plain::Host,
            "the client is a pod in the host's network namespace",
        ),
    ];
    REASONS
        .iter()
        .find(|(reason, _)| *reason as u32 == plain)
        .map_or("unknown", |(_, line)| line)
}

/// Reads the pinned iterator.
pub fn read(iterator: &Path) -> io::Result<Vec<ConnectionRecord>> {
    let mut bytes = Vec::new();
    File::open(iterator)?.read_to_end(&mut bytes)?;
    let records = bytes.chunks_exact(size_of::<ConnectionRecord>());
    Ok(records
        .map(|chunk| {
            // SAFETY: a plain-old-data type (mesh_common's assert_layout), of exactly this many bytes.
            unsafe { chunk.as_ptr().cast::<ConnectionRecord>().read_unaligned() }
        })
        .collect())
}

/// Puts the ends of each connection together. `finished`: what the other end of this client's, which has closed
/// already, had redirected to it.
pub fn pair(
    records: &[ConnectionRecord],
    finished: impl Fn(u64) -> Option<u64>,
) -> Vec<LiveConnection> {
    let now = sys::monotonic_ns();
    let servers: HashMap<_, &ConnectionRecord> = records
        .iter()
        .filter(|record| record.connection.role == Role::Server as u32)
        .map(|record| (tuple_of_server(&record.connection), record))
        .collect();
    let mut paired = Vec::new();
    for record in records {
        let connection = &record.connection;
        if connection.role == Role::Client as u32 {
            let key = tuple_of_client(connection);
            let server = servers
                .get(&key)
                .filter(|server| is_pair(connection, &server.connection));
            let server = match server {
                Some(server) => Server::Open(server),
                None if connection.peer != 0 => {
                    Server::Closed(finished(connection.cookie).unwrap_or_default())
                }
                None => Server::Unseen,
            };
            paired.push(seen_by_client(record, &server, now));
        } else if connection.role == Role::Server as u32 && connection.source == 0 {
            paired.push(seen_by_server(record, now));
        }
    }
    paired.sort_by_key(|connection| (connection.client, connection.server, connection.source));
    paired
}

type Tuple = (IpBe, PortBe, IpBe, PortBe, u32, u32);

fn tuple_of_client(c: &Connection) -> Tuple {
    (
        c.local_address,
        c.local_port,
        c.remote_address,
        c.remote_port,
        c.source,
        c.destination,
    )
}

fn tuple_of_server(c: &Connection) -> Tuple {
    (
        c.remote_address,
        c.remote_port,
        c.local_address,
        c.local_port,
        c.source,
        c.destination,
    )
}

/// Two records with one tuple: of one connection unless a port was used again meanwhile.
fn is_pair(client: &Connection, server: &Connection) -> bool {
    server.peer == 0 || server.peer == client.cookie
}

/// The other end of a client's.
enum Server<'a> {
    /// It has a record.
    Open(&'a ConnectionRecord),
    /// It had one, and had redirected so many bytes.
    Closed(u64),
    /// It never had one.
    Unseen,
}

fn seen_by_client(record: &ConnectionRecord, server: &Server<'_>, now: u64) -> LiveConnection {
    let connection = &record.connection;
    let (from_server, retransmits) = match server {
        Server::Open(server) => (server.connection.redirected_bytes, server.retransmits),
        Server::Closed(bytes) => (*bytes, 0),
        Server::Unseen => (0, 0),
    };
    LiveConnection {
        source: connection.source,
        destination: connection.destination,
        service: connection.service,
        way: connection.way,
        request: Direction::of(connection),
        response: match server {
            Server::Open(server) => Direction::of(&server.connection),
            Server::Closed(0) => Direction::Plain(why(Plain::PeerGone as u32)),
            Server::Closed(_) => Direction::Redirected,
            Server::Unseen if connection.plain == 0 => {
                Direction::Plain(why(Plain::PeerNotThere as u32))
            }
            Server::Unseen => Direction::Plain(caveats::why(connection)),
        },
        client: address(connection.local_address, connection.local_port),
        server: address(connection.remote_address, connection.remote_port),
        dialled: (connection.dialled_port.0 != 0)
            .then(|| address(connection.dialled_address, connection.dialled_port)),
        sent: record.tcp_sent + connection.redirected_bytes,
        received: record.tcp_received + from_server,
        redirected: connection.redirected_bytes + from_server,
        age: Duration::from_nanos(now.saturating_sub(connection.opened_ns)),
        rtt: Duration::from_micros(record.rtt_us.into()),
        min_rtt: Duration::from_micros(record.min_rtt_us.into()),
        retransmits: u64::from(record.retransmits) + u64::from(retransmits),
    }
}

fn seen_by_server(record: &ConnectionRecord, now: u64) -> LiveConnection {
    let connection = &record.connection;
    LiveConnection {
        source: 0,
        destination: connection.destination,
        service: 0,
        way: Verdict::Pass as u32,
        request: Direction::Plain(why(Plain::Remote as u32)),
        response: Direction::of(connection),
        client: address(connection.remote_address, connection.remote_port),
        server: address(connection.local_address, connection.local_port),
        dialled: None,
        sent: record.tcp_received,
        received: record.tcp_sent,
        redirected: 0,
        age: Duration::from_nanos(now.saturating_sub(connection.opened_ns)),
        rtt: Duration::from_micros(record.rtt_us.into()),
        min_rtt: Duration::from_micros(record.min_rtt_us.into()),
        retransmits: record.retransmits.into(),
    }
}

fn address(address: IpBe, port: PortBe) -> SocketAddr {
    SocketAddr::new(address.into(), port.get())
}
