//! Names of maps and programs, and the table that turns numbers back into names.

/// netns cookie → [`crate::policy::Workload`].
pub const WORKLOADS: &str = "workloads";
/// cgroup id → [`crate::policy::Workload`].
pub const CGROUP_PODS: &str = "cgroup_pods";
/// [`crate::policy::FrontendKey`] → [`crate::policy::Frontend`].
pub const FRONTENDS: &str = "frontends";
/// [`crate::policy::EndpointKey`] → [`crate::policy::Endpoint`].
pub const ENDPOINTS: &str = "endpoints";
/// [`crate::IpBe`] → [`crate::policy::LocalPod`].
pub const LOCAL_PODS: &str = "local_pods";
/// [`crate::policy::ExcludedPort`] → 1.
pub const EXCLUDED_PORTS: &str = "excluded_ports";
/// [`crate::executable::Executable`] → 1.
pub const EXECUTABLES: &str = "executables";
/// netns cookie → [`crate::access::Access`].
pub const ACCESS: &str = "access";
/// Prefix of [`crate::access::SourceKey`] → [`crate::access::SourceAccess`].
pub const ACCESS_SOURCES: &str = "access_sources";
/// [`crate::access::PortKey`] → [`crate::access::PortAccess`].
pub const ACCESS_PORTS: &str = "access_ports";
/// [`crate::access::AnnouncedKey`] → `CLOCK_MONOTONIC` nanoseconds.
pub const ANNOUNCED: &str = "announced";
/// [`crate::access::DenialKey`] → count.
pub const DENIALS: &str = "denials";
/// [`crate::failure::FailureKey`] → count.
pub const FAILURES: &str = "failures";
/// Socket → [`crate::connection::Connection`].
pub const CONNECTIONS: &str = "connections";
/// Socket → [`crate::datagram::Exchanges`].
pub const EXCHANGES: &str = "exchanges";
/// Socket cookie → socket.
pub const SOCKETS: &str = "sockets";
/// [`crate::connection::HandshakeKey`] → [`crate::connection::Handshake`].
pub const HANDSHAKES: &str = "handshakes";
/// Socket cookie → the peer's socket cookie.
pub const PEERS: &str = "peers";
/// [`crate::connection::ListenerKey`] → bits of [`crate::connection::listener`].
pub const LISTENERS: &str = "listeners";
/// [`crate::connection::OriginKey`] → [`crate::connection::Origin`].
pub const ORIGINS: &str = "origins";
/// [`crate::traffic::TrafficKey`] → [`crate::traffic::Traffic`].
pub const TRAFFIC: &str = "traffic";
/// [`crate::traffic::Event`] → count, per CPU.
pub const EVENTS: &str = "events";
/// A ring buffer of [`crate::event::Record`].
pub const EVENT_RING: &str = "event_ring";
/// A client's socket cookie → bytes that its peer had redirected when it closed.
pub const FINISHED: &str = "finished";
/// 0 → [`crate::settings::Settings`].
pub const SETTINGS: &str = "settings";
/// [`crate::dns::NameserverKey`] → [`crate::IpBe`].
pub const NAMESERVERS: &str = "nameservers";
/// [`crate::balance::AffinityKey`] → [`crate::balance::Affinity`].
pub const AFFINITY: &str = "affinity";
/// [`crate::policy::FrontendKey`] → how many connections it had.
pub const TURNS: &str = "turns";
/// An endpoint, as [`crate::policy::FrontendKey`] → its open connections.
pub const LOADS: &str = "loads";
/// [`crate::balance::ServedKey`] → how many listening sockets there are, of those whose beginning was seen.
pub const SERVED: &str = "served";
/// [`crate::balance::ServedKey`] → 1 where there are others.
pub const UNSEEN: &str = "unseen";
/// Cookie of a listening socket → [`crate::balance::Listening`].
pub const LISTENING: &str = "listening";
/// [`NameKey`] → [`PartOfName`].
pub const NAMES: &str = "names";

/// Program names, and the names of their pinned links.
pub mod programs {
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "connect6";
    /// `cgroup_skb/ingress`.
    pub const JUDGE_SYN: &str = "judge_syn";
    /// `cgroup/getpeername4`.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `cgroup/getpeername6`.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// `cgroup/sendmsg4`.
    pub const SENDMSG4: &str = "sendmsg4";
    /// `cgroup/sendmsg6`.
    pub const SENDMSG6: &str = "sendmsg6";
    /// `cgroup/recvmsg4`.
    pub const RECVMSG4: &str = "recvmsg4";
    /// `cgroup/recvmsg6`.
    pub const RECVMSG6: &str = "recvmsg6";
    /// `cgroup/setsockopt`.
    pub const SETSOCKOPT: &str = "setsockopt";
    /// `sockops`.
    pub const SOCK_OPS: &str = "sock_ops";
    /// `sk_msg`.
    pub const REDIRECT_MESSAGE: &str = "redirect_message";
    /// `sk_skb/stream_verdict`.
    pub const JOIN_QUEUES: &str = "join_queues";
    /// `iter/bpf_sk_storage_map`.
    pub const DUMP_CONNECTIONS: &str = "dump_connections";
    /// `iter/bpf_sk_storage_map`.
    pub const DUMP_EXCHANGES: &str = "dump_exchanges";
}

/// What a number in a map stands for.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A workload: `namespace/pod`.
    Workload = 1,
    /// A service: its full host.
    Service = 2,
    /// Who decides about access: `AuthorizationPolicy default/name` and the like.
    Policy = 3,
}

/// Key of the names map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// A [`NameKind`].
    pub kind: u16,
    /// Which [`PartOfName`], from 0 on.
    pub part: u16,
    /// The number; 0 is never given out.
    pub id: u32,
}

/// 64 bytes of a name, padded with zero bytes. Most names are one: a longer one has several, instead of
/// every name having room for the longest (63 (namespace) + 1 + 253 (pod)).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOfName(pub [u8; 64]);

impl PartOfName {
    /// Bytes in one part.
    pub const SIZE: usize = 64;

    /// The first 64 of some bytes.
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = [0; Self::SIZE];
        let len = text.len().min(Self::SIZE);
        bytes[..len].copy_from_slice(&text[..len]);
        Self(bytes)
    }

    /// The bytes without the padding.
    pub fn text(&self) -> &[u8] {
        let len = self.0.iter().position(|&byte| byte == 0);
        &self.0[..len.unwrap_or(Self::SIZE)]
    }
}

crate::assert_layout!(NameKey = 8, PartOfName = 64);
