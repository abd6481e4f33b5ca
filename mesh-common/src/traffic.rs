//! Counters: per pair of workloads, and of what the programs met.

/// Who talks to whom, by which way.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TrafficKey {
    /// The client's number in the names map; 0 where it is not enrolled.
    pub source: u32,
    /// The server's number in the names map; 0 where it is unknown.
    pub destination: u32,
    /// The service's number in the names map; 0 where none was dialled.
    pub service: u32,
    /// A [`crate::policy::Verdict`].
    pub way: u32,
}

/// Totals of the connections that a key stands for. Bytes are added when a connection closes; those of
/// open ones are in their records.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections established.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Payload bytes, client to server, both kinds.
    pub sent: u64,
    /// Payload bytes, server to client, both kinds.
    pub received: u64,
    /// Of `sent`, those that went from socket to socket.
    pub redirected_sent: u64,
    /// Of `received`, those that went from socket to socket.
    pub redirected_received: u64,
    /// Segments sent again, by the ends that have a record.
    pub retransmits: u64,
    /// Smallest round trip that a connection had when it closed, in microseconds; 0: none has.
    pub min_rtt_us: u64,
    /// Sum of the smoothed round trips of connections when they closed, in microseconds.
    pub rtt_sum_us: u64,
    /// How many of those were at most [`RTT_BOUNDS_US`]; the last slot has those above all bounds.
    pub rtt: [u64; RTT_SLOTS],
}

impl Traffic {
    /// Nothing yet.
    pub const NOTHING: Self = Self {
        opened: 0,
        closed: 0,
        sent: 0,
        received: 0,
        redirected_sent: 0,
        redirected_received: 0,
        retransmits: 0,
        min_rtt_us: 0,
        rtt_sum_us: 0,
        rtt: [0; RTT_SLOTS],
    };
}

/// Upper bounds of the round trips' histogram, in microseconds: from a veth pair to another continent.
pub const RTT_BOUNDS_US: [u32; 12] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000,
];

/// The bounds, and what lies above.
pub const RTT_SLOTS: usize = RTT_BOUNDS_US.len() + 1;

/// What the programs count, per CPU.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Connects sent to an endpoint.
    ConnectDirect = 0,
    /// Connects sent to the agent.
    ConnectAgent = 1,
    /// Connects refused by policy.
    ConnectDenied = 2,
    /// Connects refused because no endpoint is ready.
    ConnectNoEndpoint = 3,
    /// Connects that needed the agent while there was none, let through.
    AgentAbsentOpen = 4,
    /// Connects that needed the agent while there was none, refused.
    AgentAbsentClosed = 5,
    /// Connections paired.
    Paired = 6,
    /// Handshakes whose sequence numbers did not mirror each other.
    PairMismatch = 7,
    /// Directions that began as plain TCP because the peer was not there yet.
    PeerNotThere = 8,
    /// Sockets that the socket map refused.
    SocketRefused = 9,
    /// Counters that could not be written: the traffic map is full.
    TrafficLost = 10,
    /// Connects whose record could not be made; they went on untouched.
    RecordLost = 11,
    /// SYNs refused by policy.
    SynDenied = 12,
    /// Exchanges of datagrams with a service that began: an endpoint was chosen for a socket.
    DatagramDirect = 13,
    /// Exchanges that gave way, as their socket talks to too many services at a time.
    DatagramForgotten = 14,
    /// Events that did not fit into the ring.
    EventLost = 15,
}

impl Event {
    /// How many there are.
    pub const COUNT: u32 = 16;

    /// All of them with the name that they have in metrics.
    pub const ALL: [(Self, &'static str); Self::COUNT as usize] = [
        (Self::ConnectDirect, "connect_direct"),
        (Self::ConnectAgent, "connect_agent"),
        (Self::ConnectDenied, "connect_denied"),
        (Self::ConnectNoEndpoint, "connect_no_endpoint"),
        (Self::AgentAbsentOpen, "agent_absent_open"),
        (Self::AgentAbsentClosed, "agent_absent_closed"),
        (Self::Paired, "paired"),
        (Self::PairMismatch, "pair_mismatch"),
        (Self::PeerNotThere, "peer_not_there"),
        (Self::SocketRefused, "socket_refused"),
        (Self::TrafficLost, "traffic_lost"),
        (Self::RecordLost, "record_lost"),
        (Self::SynDenied, "syn_denied"),
        (Self::DatagramDirect, "datagram_direct"),
        (Self::DatagramForgotten, "datagram_forgotten"),
        (Self::EventLost, "event_lost"),
    ];
}

crate::assert_layout!(TrafficKey = 16, Traffic = 72 + 8 * RTT_SLOTS);
