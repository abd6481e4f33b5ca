//! The ways in which two ends may meet, talk and part. Both sides know the table; a server knows a
//! connection's variant by the port.

use std::ops::RangeInclusive;

/// The first variant's port; the others follow.
pub(super) const FIRST_PORT: u16 = 7100;

const KIB: usize = 1024;

/// Who sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// The client, as soon as it is connected.
    Client,
    /// The server, as soon as it has accepted.
    Server,
    /// Both at the same time.
    Both,
}

/// How the client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opens {
    /// A connect that does not block.
    Plain,
    /// `MSG_FASTOPEN`, bytes with the SYN where a cookie is there.
    FastOpen,
    /// `TCP_FASTOPEN_CONNECT`: the first send connects.
    FastOpenConnect,
    /// From a small set of ports, each used again at once: the server has it in TIME_WAIT.
    Reused,
    /// A socket that blocks, from connect to the end.
    Blocking,
}

/// How the server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    /// At once.
    AtOnce,
    /// `TCP_DEFER_ACCEPT`.
    Deferred,
    /// After a pause: the client has sent by then.
    Late,
}

/// How a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// The client closes, the server reads the end.
    ClientCloses,
    /// The server closes, the client reads the end: `TIME_WAIT` at the server.
    ServerCloses,
    /// The client resets (`SO_LINGER` 0) when it has everything.
    ClientResets,
    /// The client ends its direction after its stream, the server answers then.
    HalfCloses,
    /// The client resets at any moment. What came until then must be right.
    ClientAborts,
    /// The server does.
    ServerAborts,
}

/// What one end sends, and how it reads.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// Length of the stream.
    pub bytes: RangeInclusive<usize>,
    /// Size of a write.
    pub write: RangeInclusive<usize>,
    /// Whether it reads in small steps with pauses.
    pub lags: bool,
}

/// One way to meet, talk and part.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    /// As reports name it.
    pub name: &'static str,
    /// How often, relative to the others.
    pub weight: u32,
    pub opens: Opens,
    pub accepts: Accepts,
    pub speaks: Speaks,
    pub ends: Ends,
    /// Into how many turns the streams are cut: a part there, a part back, and again.
    pub turns: u64,
    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
    pub client: Talk,
    pub server: Talk,
}

impl Variant {
    /// Whether a stream may end before its time.
    pub(super) fn aborts(&self) -> bool {
        matches!(self.ends, Ends::ClientAborts | Ends::ServerAborts)
    }
}

/// The port of the variant `index`.
pub(super) fn port(index: usize) -> u16 {
    FIRST_PORT + index as u16
}

/// Small streams both ways, the client first, nothing special: what the others differ from.
fn usual(name: &'static str, weight: u32) -> Variant {
    let few = || Talk {
        bytes: 0..=3000,
        write: 1..=1500,
        lags: false,
    };
    Variant {
        name,
        weight,
        opens: Opens::Plain,
        accepts: Accepts::AtOnce,
        speaks: Speaks::Client,
        ends: Ends::ClientCloses,
        turns: 1,
        no_delay: true,
        client: few(),
        server: few(),
    }
}

/// All variants, in the order of their ports.
pub(super) fn all() -> Vec<Variant> {
    let tiny = Talk {
        bytes: 200..=2000,
        write: 1..=60,
        lags: false,
    };
    let bulk = Talk {
        bytes: 100 * KIB..=600 * KIB,
        write: 1..=24 * KIB,
        lags: false,
    };
    let large = Talk {
        bytes: 70 * KIB..=300 * KIB,
        write: 66 * KIB..=200 * KIB,
        lags: false,
    };
    let lagging = |talk: Talk| Talk { lags: true, ..talk };
    let usual_talk = usual("", 0).client;
    let mut variants = vec![
        usual("client-first", 20),
        Variant {
            speaks: Speaks::Server,
            ..usual("server-first", 8)
        },
        Variant {
            speaks: Speaks::Both,
            ends: Ends::ServerCloses,
            ..usual("both", 10)
        },
        Variant {
            accepts: Accepts::Deferred,
            ..usual("defer-accept", 5)
        },
        Variant {
            opens: Opens::FastOpen,
            ..usual("fastopen", 5)
        },
        Variant {
            opens: Opens::FastOpenConnect,
            ..usual("fastopen-connect", 3)
        },
        Variant {
            accepts: Accepts::Late,
            client: tiny.clone(),
            ..usual("late-accept", 6)
        },
        Variant {
            accepts: Accepts::Late,
            speaks: Speaks::Both,
            ..usual("late-both", 4)
        },
        Variant {
            ends: Ends::HalfCloses,
            ..usual("half-close", 8)
        },
        Variant {
            turns: 20,
            ends: Ends::ClientResets,
            ..usual("turns", 10)
        },
        Variant {
            turns: 5,
            speaks: Speaks::Server,
            ..usual("turns-server-first", 3)
        },
        Variant {
            opens: Opens::Reused,
            ends: Ends::ServerCloses,
            turns: 2,
            ..usual("port-reuse", 8)
        },
        Variant {
            opens: Opens::Blocking,
            turns: 3,
            ..usual("blocking", 4)
        },
        Variant {
            no_delay: false,
            client: tiny.clone(),
            ..usual("tiny-writes", 5)
        },
        Variant {
            client: large,
            ..usual("large-first", 1)
        },
        Variant {
            ends: Ends::ClientAborts,
            turns: 4,
            ..usual("client-aborts", 6)
        },
        Variant {
            ends: Ends::ServerAborts,
            turns: 4,
            ..usual("server-aborts", 4)
        },
        Variant {
            speaks: Speaks::Both,
            client: bulk.clone(),
            server: bulk.clone(),
            ..usual("bulk-both", 1)
        },
    ];
    variants.push(Variant {
        client: bulk.clone(),
        server: lagging(usual_talk.clone()),
        ..usual("bulk-lagging-server", 1)
    });
    variants.push(Variant {
        client: lagging(tiny),
        server: bulk,
        ends: Ends::ServerCloses,
        ..usual("bulk-lagging-client", 1)
    });
    variants
}
