//! What is measured: traffic, size of a message, and on which cores.

use crate::peer::Traffic;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// Bytes of a message.
    pub size: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Where the two ends run.
    pub cores: Cores,
}

/// Where the two ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Both on one core: what a message costs.
    One,
    /// A core each: mostly, for a single ping-pong, what waking the other core costs.
    Two,
}

impl Case {
    /// Its name in tables: `stream 16 KiB, one core`.
    pub fn name(&self) -> String {
        let size = match self.size {
            size if size < 1024 => format!("{size} B"),
            size => format!("{} KiB", size / 1024),
        };
        let cores = match self.cores {
            Cores::One => "one core",
            Cores::Two => "two cores",
        };
        match self.traffic {
            Traffic::Ping => format!("ping {size}, {cores}"),
            Traffic::Stream => format!("stream {size}, {cores}"),
            Traffic::Parallel => format!("{} x ping {size}, {cores}", self.connections),
            Traffic::Connect => format!("connect, ping {size}, close, {cores}"),
        }
    }

    /// What its rate counts.
    pub fn unit(&self) -> &'static str {
        match self.traffic {
            Traffic::Ping | Traffic::Parallel => "round trips/s",
            Traffic::Stream => "MB/s",
            Traffic::Connect => "connections/s",
        }
    }

    /// The cores of client and server.
    pub fn pinned(&self) -> (usize, usize) {
        match self.cores {
            Cores::One => (0, 0),
            Cores::Two => (0, 1),
        }
    }
}

/// All cases; those on two cores only where there are two.
pub fn all() -> Vec<Case> {
    const KIB: usize = 1024;
    let sizes: [(Traffic, &[usize]); 4] = [
        (Traffic::Ping, &[64, KIB, 16 * KIB, 64 * KIB]),
        (
            Traffic::Stream,
            &[64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB],
        ),
        (Traffic::Parallel, &[KIB]),
        (Traffic::Connect, &[64]),
    ];
    let places: &[Cores] = if crate::sys::cores() > 1 {
        &[Cores::One, Cores::Two]
    } else {
        &[Cores::One]
    };
    let mut cases = Vec::new();
    for cores in places {
        for (traffic, sizes) in sizes {
            cases.extend(sizes.iter().map(|size| Case {
                traffic,
                size: *size,
                connections: 100,
                cores: *cores,
            }));
        }
    }
    cases
}
