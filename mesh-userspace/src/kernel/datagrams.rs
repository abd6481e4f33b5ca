//! UDP sockets that talk to services, read from the kernel; and the end of those that are connected to an
//! endpoint which has gone. A connected UDP socket hears nothing of that by itself: it would go on sending to
//! an address where nobody is, or somebody else.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use mesh_common::{
    IpBe, PortBe,
    datagram::{CONNECTED, Exchange, Exchanges},
    policy::FrontendKey,
};

use super::{compile::Tables, netns::Netns};

const UDP: u16 = 17;

/// How often the sockets are looked at after a change: a connect(2) that ran meanwhile may have chosen by the
/// endpoints from before it, and be written down after the first look.
const LOOKS: u8 = 2;

/// What stands at the UDP ports of services.
#[derive(Debug, Default)]
pub struct Datagrams {
    endpoints: HashMap<FrontendKey, HashSet<(IpBe, PortBe)>>,
    due: u8,
}

impl Datagrams {
    /// These tables are in force now.
    pub(super) fn in_force(&mut self, tables: &Tables) {
        let udp = tables.frontends.iter();
        let endpoints: HashMap<_, _> = udp
            .filter(|(key, _)| key.protocol == UDP)
            .map(|(key, frontend)| {
                let ends = frontend.endpoints.iter();
                (*key, ends.map(|end| (end.address, end.port)).collect())
            })
            .collect();
        if endpoints != self.endpoints {
            self.endpoints = endpoints;
            self.due = LOOKS;
        }
    }

    /// Ends the sockets of `pods` that are connected to what has gone, if something may have. `exchanges`: the
    /// pinned iterator. Gives how many it ended; the first error where one could not be.
    pub(super) fn end_stale(&mut self, exchanges: &Path, pods: &[&Netns]) -> io::Result<usize> {
        if self.due == 0 {
            return Ok(0);
        }
        let mut stale: HashMap<u64, HashMap<u64, Exchange>> = HashMap::new();
        for socket in read(exchanges)? {
            let connected = socket.entries.iter().find(|entry| self.is_stale(entry));
            if let Some(entry) = connected {
                let of_pod = stale.entry(socket.netns).or_default();
                of_pod.insert(socket.cookie, *entry);
            }
        }
        let mut ended = 0;
        let mut outcome = Ok(());
        for pod in pods {
            if let Some(stale) = stale.get(&pod.cookie()) {
                match end(pod, stale) {
                    Ok(count) => ended += count,
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        self.due -= 1;
        outcome.map(|()| ended)
    }

    /// Whether somebody is connected to an endpoint that the service does not have, or to no service.
    fn is_stale(&self, entry: &Exchange) -> bool {
        let key = FrontendKey {
            address: entry.service_address,
            port: entry.service_port,
            protocol: UDP,
        };
        let end = (entry.endpoint_address, entry.endpoint_port);
        entry.used == CONNECTED
            && self
                .endpoints
                .get(&key)
                .is_none_or(|ends| !ends.contains(&end))
    }
}

/// Ends sockets of a pod, by cookie: those that are still connected to where they were.
fn end(pod: &Netns, stale: &HashMap<u64, Exchange>) -> io::Result<usize> {
    let diag = pod.sock_diag()?;
    let mut ended = 0;
    for socket in diag.connected_datagram_sockets()? {
        let is_it = stale.get(&socket.cookie).is_some_and(|entry| {
            IpBe::from(socket.remote.ip()) == entry.endpoint_address
                && socket.remote.port() == entry.endpoint_port.get()
        });
        if is_it {
            ended += usize::from(diag.destroy_datagram_socket(&socket)?);
        }
    }
    Ok(ended)
}

/// The UDP sockets that talk to services. `iterator`: the pinned one.
pub fn read(iterator: &Path) -> io::Result<Vec<Exchanges>> {
    let mut bytes = Vec::new();
    File::open(iterator)?.read_to_end(&mut bytes)?;
    let records = bytes.chunks_exact(size_of::<Exchanges>());
    Ok(records
        .map(|chunk| {
            // SAFETY: a plain-old-data type (mesh_common's assert_layout), of exactly this many bytes.
            unsafe { chunk.as_ptr().cast::<Exchanges>().read_unaligned() }
        })
        .collect())
}

/// The exchanges of a socket: entries that are not free.
pub fn taken(socket: &Exchanges) -> impl Iterator<Item = &Exchange> {
    socket.entries.iter().filter(|entry| entry.used != 0)
}

#[cfg(test)]
mod tests {
    use mesh_common::{
        Ipv4Be,
        balance::Balance,
        policy::{Endpoint, Verdict},
    };

    use super::*;
    use crate::kernel::compile::Frontend;

    fn ip(last: u8) -> IpBe {
        IpBe::from_v4(Ipv4Be::from_octets([10, 0, 0, last]))
    }

    fn tables(ends: &[u8]) -> Tables {
        let key = FrontendKey {
            address: ip(200),
            port: PortBe::new(53),
            protocol: UDP,
        };
        let endpoint = |last: &u8| Endpoint {
            address: ip(*last),
            port: PortBe::new(5353),
            ..Endpoint::default()
        };
        let frontend = Frontend {
            balance: Balance::Random,
            affinity_seconds: 0,
            service: 1,
            verdict: Verdict::Direct,
            endpoints: ends.iter().map(endpoint).collect(),
        };
        let mut tables = Tables::default();
        tables.frontends.insert(key, frontend);
        tables
    }

    fn connected(service: u8, end: u8) -> Exchange {
        Exchange {
            service_address: ip(service),
            service_port: PortBe::new(53),
            endpoint_address: ip(end),
            endpoint_port: PortBe::new(5353),
            group: 1,
            used: CONNECTED,
        }
    }

    #[test]
    fn who_is_connected_to_what_has_gone_is_stale() {
        let mut datagrams = Datagrams::default();
        datagrams.in_force(&tables(&[1, 2]));
        assert_eq!(datagrams.due, LOOKS);
        datagrams.due = 0;
        datagrams.in_force(&tables(&[2, 1]));
        assert_eq!(datagrams.due, 0, "the same endpoints");
        assert!(!datagrams.is_stale(&connected(200, 1)));
        datagrams.in_force(&tables(&[2, 3]));
        assert_eq!(datagrams.due, LOOKS);
        assert!(datagrams.is_stale(&connected(200, 1)));
        assert!(!datagrams.is_stale(&connected(200, 2)));
        assert!(
            datagrams.is_stale(&connected(201, 2)),
            "no service any more"
        );
        let sent = Exchange {
            used: 7,
            ..connected(200, 1)
        };
        assert!(!datagrams.is_stale(&sent), "its next datagram chooses anew");
        assert!(!datagrams.is_stale(&Exchange::default()));
    }
}
