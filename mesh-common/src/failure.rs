//! Connects of enrolled pods that came to nothing, and why.

/// Who could not reach whom.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FailureKey {
    /// The client's number in the names map.
    pub source: u32,
    /// The server's number in the names map; 0 where no endpoint was picked.
    pub destination: u32,
    /// The service's number in the names map; 0 where none was dialled.
    pub service: u32,
    /// A [`Cause`].
    pub cause: u32,
}

/// Why a connect failed.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server's kernel answered the SYN with a reset: nobody listens there.
    Refused = 1,
    /// No answer to any SYN.
    TimedOut = 2,
    /// The network said that it cannot be reached.
    Unreachable = 3,
    /// A policy refused it, at the client's connect().
    Denied = 4,
    /// The service has no ready endpoint.
    NoEndpoint = 5,
    /// It needed the agent, and there was none.
    AgentAbsent = 6,
    /// The application gave up before there was an answer: its own time-out, or its end.
    Abandoned = 7,
    /// Another error of the socket.
    Other = 8,
}

impl Cause {
    /// All of them with the name that they have in metrics.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Refused, "refused"),
        (Self::TimedOut, "timed_out"),
        (Self::Unreachable, "unreachable"),
        (Self::Denied, "denied"),
        (Self::NoEndpoint, "no_endpoint"),
        (Self::AgentAbsent, "agent_absent"),
        (Self::Abandoned, "abandoned"),
        (Self::Other, "other"),
    ];

    /// The cause behind a socket's error (`sk_err`, errno(3)) while it was connecting.
    #[inline(always)]
    pub const fn of_error(error: u32) -> Self {
        const ENETDOWN: u32 = 100;
        const ENETUNREACH: u32 = 101;
        const ETIMEDOUT: u32 = 110;
        const ECONNREFUSED: u32 = 111;
        const EHOSTDOWN: u32 = 112;
        const EHOSTUNREACH: u32 = 113;
        match error {
            0 => Self::Abandoned,
            ECONNREFUSED => Self::Refused,
            ETIMEDOUT => Self::TimedOut,
            ENETDOWN | ENETUNREACH | EHOSTDOWN | EHOSTUNREACH => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// The name that a number from the map has in metrics.
pub fn cause_name(cause: u32) -> &'static str {
    Cause::ALL
        .iter()
        .find(|(known, _)| *known as u32 == cause)
        .map_or("unknown", |(_, name)| name)
}

crate::assert_layout!(FailureKey = 16);
