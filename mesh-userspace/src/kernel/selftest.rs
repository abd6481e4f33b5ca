//! What this kernel really does with sockets in a socket map: probed, never guessed from its version.
//!
//! Runs the very programs that redirect and join, on a socket map of their own, over loopback.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, SkStorage, SockHash},
    programs::{SkMsg, SkSkb},
};
use mesh_common::{
    connection::{Connection, Role, Sending},
    names,
    names::programs,
    settings::Settings,
};

use super::{btf, loader::OBJECT, sys};

/// One thing that was tried.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What, in a few words.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As needed.
    Ok,
    /// Not as it should be, but nothing depends on it.
    Warn,
    /// Acceleration stays off.
    Fail,
}

/// Why the probes could not be made.
#[derive(Debug, thiserror::Error)]
#[error("self-test, {operation}: {reason}")]
pub struct SelfTestError {
    operation: &'static str,
    reason: String,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl FnOnce(E) -> SelfTestError {
    move |error| SelfTestError {
        operation,
        reason: error.to_string(),
    }
}

/// How long a probe waits for bytes that should be there at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Probes this kernel. Acceleration is safe where every required probe passes.
pub fn run() -> Vec<Probe> {
    let mut bench = match Bench::new() {
        Ok(bench) => bench,
        Err(error) => {
            let name = "sockets can be put into a socket map".to_owned();
            return vec![Probe {
                name,
                outcome: Outcome::Fail,
                detail: error.to_string(),
            }];
        }
    };
    let mut probes = Vec::new();
    let mut probe = |name: &str, required, seen: io::Result<Result<String, String>>| {
        let otherwise = if required {
            Outcome::Fail
        } else {
            Outcome::Warn
        };
        let (outcome, detail) = match seen {
            Ok(Ok(detail)) => (Outcome::Ok, detail),
            Ok(Err(detail)) => (otherwise, detail),
            Err(error) => (otherwise, error.to_string()),
        };
        probes.push(Probe {
            name: name.to_owned(),
            outcome,
            detail,
        });
    };
    probe("bytes go from socket to socket", true, bench.redirects());
    probe(
        "FIONREAD counts redirected bytes",
        true,
        bench.readable(Sending::Redirect),
    );
    probe(
        "FIONREAD counts bytes that came by TCP",
        true,
        bench.readable(Sending::Plain),
    );
    probe(
        "what is queued for a reader is accounted",
        true,
        bench.accounts(),
    );
    probe(
        "redirected, then TCP, then out of the map: order is kept",
        true,
        bench.switches(),
    );
    probes
}

/// What keeps acceleration off, if anything does.
pub fn obstacle(probes: &[Probe]) -> Option<&Probe> {
    probes.iter().find(|probe| probe.outcome == Outcome::Fail)
}

/// A socket map of our own with the program on it.
struct Bench {
    // Holds the program: it goes when this does.
    _ebpf: Ebpf,
    sockets: SockHash<MapData, u64>,
    connections: SkStorage<MapData, Connection>,
}

impl Bench {
    fn new() -> Result<Self, SelfTestError> {
        let offsets = btf::offsets().map_err(failed("reading BTF"))?;
        let mut loader = EbpfLoader::new();
        loader.override_global("OFFSETS", &offsets, true);
        // Small ones: this bench has two sockets at a time.
        for name in [
            names::SOCKETS,
            names::PEERS,
            names::HANDSHAKES,
            names::ORIGINS,
        ] {
            loader.map_max_entries(name, 64);
        }
        let mut ebpf = loader.load(OBJECT).map_err(failed("creating maps"))?;
        let mut take = |name| ebpf.take_map(name).ok_or("not in the object");
        let settings = take(names::SETTINGS).map_err(failed("settings map"))?;
        let sockets = take(names::SOCKETS).map_err(failed("sockets map"))?;
        let connections = take(names::CONNECTIONS).map_err(failed("connections map"))?;
        let mut settings: Array<MapData, Settings> =
            settings.try_into().map_err(failed("settings map"))?;
        let sockets: SockHash<MapData, u64> = sockets.try_into().map_err(failed("sockets map"))?;
        let connections = connections.try_into().map_err(failed("connections map"))?;
        let on = Settings {
            acceleration: 1,
            ..Settings::default()
        };
        settings.set(0, on, 0).map_err(failed("settings map"))?;
        let program = ebpf
            .program_mut(programs::REDIRECT_MESSAGE)
            .ok_or("not in the object");
        let program: &mut SkMsg = program
            .map_err(failed("program"))?
            .try_into()
            .map_err(failed("program"))?;
        program.load().map_err(failed("loading the program"))?;
        program
            .attach(sockets.fd())
            .map_err(failed("attaching the program"))?;
        let program = ebpf
            .program_mut(programs::JOIN_QUEUES)
            .ok_or("not in the object");
        let program: &mut SkSkb = program
            .map_err(failed("program"))?
            .try_into()
            .map_err(failed("program"))?;
        program.load().map_err(failed("loading the program"))?;
        program
            .attach(sockets.fd())
            .map_err(failed("attaching the program"))?;
        Ok(Self {
            _ebpf: ebpf,
            sockets,
            connections,
        })
    }

    /// Two ends of a loopback connection, both in the socket map and each the other's peer.
    fn pair(&mut self, sending: Sending) -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        let cookies = [cookie(&client)?, cookie(&server)?];
        for (end, own, peer) in [
            (&client, cookies[0], cookies[1]),
            (&server, cookies[1], cookies[0]),
        ] {
            let record = Connection {
                cookie: own,
                peer,
                role: Role::Client as u32,
                sending: sending as u32,
                ..Connection::default()
            };
            self.connections
                .insert(end, record, 0)
                .map_err(io::Error::other)?;
            self.sockets
                .insert(own, end.as_raw_fd(), 0)
                .map_err(io::Error::other)?;
        }
        Ok((client, server))
    }

    fn redirects(&mut self) -> io::Result<Result<String, String>> {
        let (mut client, mut server) = self.pair(Sending::Redirect)?;
        client.write_all(b"from socket to socket")?;
        let mut seen = [0; 21];
        server.read_exact(&mut seen)?;
        let redirected = self
            .connections
            .get(&client, 0)
            .map_err(io::Error::other)?
            .redirected_bytes;
        Ok(if &seen == b"from socket to socket" && redirected == 21 {
            Ok("21 of 21 bytes".into())
        } else {
            Err(format!(
                "{redirected} of 21 bytes were redirected, {:?} was read",
                seen.escape_ascii()
            ))
        })
    }

    fn readable(&mut self, sending: Sending) -> io::Result<Result<String, String>> {
        let (mut client, mut server) = self.pair(sending)?;
        client.write_all(b"12345")?;
        // A peek waits until the bytes are there, however they came.
        server.peek(&mut [0; 5])?;
        let readable = sys::readable_bytes(server.as_fd())?;
        server.read_exact(&mut [0; 5])?;
        Ok(if readable == 5 {
            Ok("5 of 5 bytes".into())
        } else {
            let commit = match sending {
                Sending::Redirect => "929e30f93125",
                _ => "04af4efde58a",
            };
            Err(format!(
                "{readable} of 5 bytes (fixed by Linux commit {commit})"
            ))
        })
    }

    /// Without this, nothing would bound the queue of a reader that lags.
    fn accounts(&mut self) -> io::Result<Result<String, String>> {
        const SIZE: usize = 32 * 1024;
        let (mut client, mut server) = self.pair(Sending::Redirect)?;
        let mut bytes = vec![0; SIZE];
        client.write_all(&bytes)?;
        let queued = sys::receive_memory(server.as_fd())?;
        server.read_exact(&mut bytes)?;
        let rest = sys::receive_memory(server.as_fd())?;
        Ok(if queued as usize >= SIZE && rest == 0 {
            Ok(format!(
                "{queued} bytes for {SIZE}, {rest} when they are read"
            ))
        } else {
            Err(format!(
                "{queued} bytes for {SIZE}, {rest} when they are read"
            ))
        })
    }

    /// The life of a connection whose reader lags: redirected, then TCP from the same queue, then plain.
    fn switches(&mut self) -> io::Result<Result<String, String>> {
        let (mut client, mut server) = self.pair(Sending::Redirect)?;
        client.write_all(b"first")?;
        let mut record = self.connections.get(&client, 0).map_err(io::Error::other)?;
        record.sending = Sending::Plain as u32;
        self.connections
            .insert(&client, record, 0)
            .map_err(io::Error::other)?;
        client.write_all(b"second")?;
        let mut seen = vec![0; 11];
        server.read_exact(&mut seen)?;
        self.sockets
            .remove(&cookie(&server)?)
            .map_err(io::Error::other)?;
        client.write_all(b"third")?;
        client.shutdown(std::net::Shutdown::Write)?;
        server.read_to_end(&mut seen)?;
        Ok(if seen == b"firstsecondthird" {
            Ok("in order".into())
        } else {
            Err(format!("{:?} was read", seen.escape_ascii().to_string()))
        })
    }
}

fn cookie(socket: &TcpStream) -> io::Result<u64> {
    sys::socket_u64(socket.as_fd(), sys::SO_COOKIE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_probed() {
        let probes = run();
        assert_eq!(probes.len(), 5, "{probes:?} (run as root)");
        assert!(obstacle(&probes).is_none(), "{probes:?}");
    }
}
