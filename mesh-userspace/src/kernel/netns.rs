//! Network namespaces of pods: their cookies, and sockets made inside them.

pub mod dns;

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{sock_diag::SockDiag, sys};

/// The port that the agent's listeners take in a pod where it is free, so that `ss` shows what
/// engineers know.
const LISTENER_PORT: u16 = 15001;

/// How many connections may wait for the agent in one pod.
const BACKLOG: i32 = 4096;

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It cannot be opened.
    #[error(
        "network namespace {path}: {source}: check the pod's zerohop.dev/netns annotation against \
         `ip netns list`; enrolment is tried again every second"
    )]
    Open {
        /// As the annotation says.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is open, but does not do what is needed.
    #[error("{operation} in network namespace {path}: {source}")]
    Use {
        /// What was tried.
        operation: &'static str,
        /// As the annotation says.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A pod's network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    cookie: u64,
}

impl Netns {
    /// Opens it and reads its cookie.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let socket =
            within(&file, || Socket::new(Domain::IPV4, Type::STREAM, None)).map_err(failed)?;
        let cookie = sys::socket_u64(socket.as_fd(), sys::SO_NETNS_COOKIE).map_err(|source| {
            let operation = "reading SO_NETNS_COOKIE (Linux 5.14)";
            NetnsError::Use {
                operation,
                path: path.to_owned(),
                source,
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            cookie,
        })
    }

    /// The kernel's number for it, unique on the machine until the next boot.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its inode, as `ls -i /proc/PID/ns/net` shows it.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Whether the path still leads to it: a pod that restarts gets a new one under the same name.
    pub fn is_current(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// A non-blocking TCP socket inside.
    pub fn socket(&self, domain: Domain) -> io::Result<Socket> {
        within(&self.file, || {
            Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
        })
    }

    /// What lists and closes the sockets inside.
    pub(super) fn sock_diag(&self) -> io::Result<SockDiag> {
        within(&self.file, SockDiag::open)
    }

    /// `count` non-blocking listeners on one port of 127.0.0.1 inside, among which the kernel shares
    /// connections out. Nobody outside the pod reaches them.
    pub fn listeners(&self, count: usize) -> Result<Vec<TcpListener>, NetnsError> {
        self.listeners_on(Ipv4Addr::LOCALHOST.into(), count)
    }

    /// The same on `::1`, for IPv6 sockets that dial IPv6.
    pub fn listeners6(&self, count: usize) -> Result<Vec<TcpListener>, NetnsError> {
        self.listeners_on(Ipv6Addr::LOCALHOST.into(), count)
    }

    /// `count` more beside listeners that are there already, on their port.
    pub fn more_listeners(
        &self,
        beside: &TcpListener,
        count: usize,
    ) -> io::Result<Vec<TcpListener>> {
        let address = beside.local_addr()?;
        (0..count)
            .map(|_| {
                let socket = self.socket(Domain::for_address(address))?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                Ok(socket.into())
            })
            .collect()
    }

    fn listeners_on(&self, loopback: IpAddr, count: usize) -> Result<Vec<TcpListener>, NetnsError> {
        self.listen(SocketAddr::new(loopback, LISTENER_PORT), count)
            .or_else(|_| self.listen(SocketAddr::new(loopback, 0), count))
            .map_err(|source| NetnsError::Use {
                operation: "listening",
                path: self.path.clone(),
                source,
            })
    }

    fn listen(&self, address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
        let mut address = address;
        let mut listeners = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = self.socket(Domain::for_address(address))?;
            // The port of a stopped agent is in TIME_WAIT for a minute.
            socket.set_reuse_address(true)?;
            // The first one finds out whether the port is free of others' listeners.
            if listeners.is_empty() {
                socket.bind(&address.into())?;
                socket.set_reuse_port(true)?;
            } else {
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
            }
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from(socket);
            address = listener.local_addr()?;
            listeners.push(listener);
        }
        Ok(listeners)
    }
}

/// Runs `make` with the calling thread in a namespace, and brings the thread back.
fn within<T>(netns: &File, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    thread_local! {
        static HOME: io::Result<File> = File::open("/proc/thread-self/ns/net");
    }
    HOME.with(|home| {
        let home = home.as_ref().map_err(|error| io::Error::from(error.kind()))?;
        sys::enter_netns(netns.as_fd())?;
        let made = make();
        if let Err(error) = sys::enter_netns(home.as_fd()) {
            // Everything that this thread did next would happen in the wrong pod.
            tracing::error!(%error, fd = home.as_raw_fd(), "cannot leave a pod's network namespace");
            std::process::abort();
        }
        made
    })
}
