//! What is in a map, entry by entry, with numbers turned back into names.

mod exchanges;

use std::net::{IpAddr, SocketAddr};

use aya::{
    Pod,
    maps::{LpmTrie, Map, MapData},
};
use mesh_common::{
    IpBe, PortBe,
    access::{
        Access, AnnouncedKey, DenialKey, PortAccess, PortKey, SET_BITS, SourceAccess, SourceKey,
    },
    balance::{Affinity, AffinityKey, Balance, Listening, ServedKey, family},
    connection::{Handshake, HandshakeKey, ListenerKey, Origin, OriginKey, Peer, listener},
    dns::NameserverKey,
    executable::Executable,
    failure::{FailureKey, cause_name},
    names::{self, NameKey, NameKind, PartOfName},
    policy::{
        Endpoint, EndpointKey, ExcludedPort, Frontend, FrontendKey, LocalPod, Workload, flags,
    },
    settings::guards,
    traffic::{Traffic, TrafficKey},
};
use serde_json::{Value, json};

use super::{Entries, MapsError, PinnedMaps, events, open_settings, place_name, unreadable};
use crate::{
    config::model::IpBlock,
    kernel::{
        caveats, connections,
        ids::Ids,
        tables::{self, verdict_name},
    },
};

impl PinnedMaps {
    /// Every entry of a map: key and value, with numbers turned back into names.
    pub fn dump(&self, name: &str) -> Result<Entries, MapsError> {
        let names = self.names()?;
        let workload = |id| named(&names, NameKind::Workload, id);
        let service = |id| named(&names, NameKind::Service, id);
        let policy = |id| named(&names, NameKind::Policy, id);
        match name {
            names::WORKLOADS | names::CGROUP_PODS => {
                let name = if name == names::WORKLOADS { names::WORKLOADS } else { names::CGROUP_PODS };
                self.entries(name, |place: u64, w: Workload| {
                let value = json!({
                    "workload": workload(w.id),
                    "address": own(w.address), "listener": w.listener.get(),
                    "address6": own(w.address6), "listener6": w.listener6.get(),
                    "dns": w.dns.get(), "dns6": w.dns6.get(),
                    "acceleration": w.flags & flags::NO_ACCELERATION == 0,
                    "failClosed": w.flags & flags::FAIL_CLOSED != 0,
                    "byCgroup": w.flags & flags::BY_CGROUP != 0,
                });
                (json!(place.to_string()), value)
            })}
            names::FRONTENDS => self.entries(names::FRONTENDS, |key: FrontendKey, f: Frontend| {
                let value = json!({
                    "service": service(f.service), "verdict": verdict_name(f.verdict),
                    "group": f.group, "slots": f.slots, "loadBalancer": balance_name(f.balance),
                    "affinitySeconds": f.affinity_seconds,
                });
                (json!(frontend_key(&key)), value)
            }),
            names::ENDPOINTS => self.entries(names::ENDPOINTS, |key: EndpointKey, e: Endpoint| {
                let value = json!({
                    "endpoint": at(e.address, e.port), "workload": workload(e.workload),
                    "threshold": e.threshold, "alias": e.alias,
                });
                (json!(format!("{}/{}", key.group, key.slot)), value)
            }),
            names::LOCAL_PODS => self.entries(names::LOCAL_PODS, |key: IpBe, pod: LocalPod| {
                let value = json!({
                    "workload": workload(pod.workload), "netns": pod.netns.to_string(),
                    "acceleration": pod.flags & flags::NO_ACCELERATION == 0,
                    "closedPorts": pod.closed != 0,
                });
                (json!(ip(key)), value)
            }),
            names::EXCLUDED_PORTS => {
                self.entries(names::EXCLUDED_PORTS, |key: ExcludedPort, _: u32| {
                    (json!(format!("{}:{}", workload(key.workload), key.port.get())), json!(true))
                })
            }
            names::EXECUTABLES => self.entries(names::EXECUTABLES, |key: Executable, _: u32| {
                (json!(key.as_str()), json!(true))
            }),
            names::ACCESS => self.entries(names::ACCESS, |netns: u64, a: Access| {
                (json!(netns.to_string()), json!({"workload": workload(a.workload), "set": a.set}))
            }),
            names::ACCESS_PORTS => self.entries(names::ACCESS_PORTS, |key: PortKey, p: PortAccess| {
                let value = json!({"denied": p.denied != 0, "policy": policy(p.policy)});
                (json!(format!("{}/{}:{}", key.set, key.table, key.port.get())), value)
            }),
            names::ACCESS_SOURCES => self.access_sources(&policy),
            names::ANNOUNCED => self.entries(names::ANNOUNCED, |key: AnnouncedKey, ns: u64| {
                let (client, server) =
                    (at(key.client_address, key.client_port), at(key.server_address, key.server_port));
                let value = json!({"netns": key.netns.to_string(), "sinceBootNs": ns});
                (json!(format!("{client}>{server}")), value)
            }),
            names::DENIALS => self.entries(names::DENIALS, |key: DenialKey, count: u64| {
                let (from, to) = (workload(key.source), workload(key.destination));
                let value = json!({
                    "policy": policy(key.policy), "place": place_name(key.place), "count": count,
                });
                (json!(format!("{from}>{to}")), value)
            }),
            names::FAILURES => self.entries(names::FAILURES, |key: FailureKey, count: u64| {
                let (from, to) = (workload(key.source), workload(key.destination));
                let value = json!({
                    "service": service(key.service), "cause": cause_name(key.cause), "count": count,
                });
                (json!(format!("{from}>{to}")), value)
            }),
            names::FINISHED => self.entries(names::FINISHED, |cookie: u64, bytes: u64| {
                (json!(cookie.to_string()), json!(bytes))
            }),
            names::HANDSHAKES => self.entries(names::HANDSHAKES, |key: HandshakeKey, h: Handshake| {
                let (client, server) =
                    (at(key.client_address, key.client_port), at(key.server_address, key.server_port));
                let value = json!({
                    "clientNetns": key.client_netns.to_string(),
                    "serverNetns": key.server_netns.to_string(),
                    "cookie": h.client.cookie.to_string(), "sent": h.sent, "received": h.received,
                    "service": service(h.service), "way": verdict_name(h.way),
                });
                (json!(format!("{client}>{server}")), value)
            }),
            names::PEERS => self.entries(names::PEERS, |key: u64, peer: Peer| {
                (json!(key.to_string()), json!(peer.cookie.to_string()))
            }),
            names::ORIGINS => self.entries(names::ORIGINS, |key: OriginKey, origin: Origin| {
                let value = json!({
                    "netns": key.netns.to_string(), "dialled": at(origin.address, origin.port),
                });
                (json!(at(key.address, key.port)), value)
            }),
            names::NAMESERVERS => {
                self.entries(names::NAMESERVERS, |key: NameserverKey, address: IpBe| {
                    (json!(format!("{}/{}", key.netns, key.slot)), json!(ip(address)))
                })
            }
            names::LISTENERS => self.entries(names::LISTENERS, |key: ListenerKey, bits: u32| {
                let value = json!({
                    "defers": bits & listener::DEFERS != 0, "blocks": bits & listener::BLOCKS != 0,
                    "caveats": caveats::names(bits),
                });
                (json!(format!("{}:{}", key.netns, key.port.get())), value)
            }),
            names::AFFINITY => self.entries(names::AFFINITY, |key: AffinityKey, a: Affinity| {
                let value = json!({"endpoint": at(a.address, a.port), "usedNs": a.used_ns});
                (json!(format!("{}>{}", workload(key.client), at(key.address, key.port))), value)
            }),
            names::TURNS | names::LOADS => self.counts(name),
            names::SERVED => self.entries(names::SERVED, |key: ServedKey, open: u64| {
                (json!(served_key(key)), json!({"listeners": open}))
            }),
            names::UNSEEN => self.entries(names::UNSEEN, |key: ServedKey, _: u32| {
                (json!(served_key(key)), json!(true))
            }),
            names::LISTENING => self.entries(names::LISTENING, |key: u64, one: Listening| {
                let value = json!({
                    "netns": one.netns.to_string(), "port": one.port.get(),
                    "ipv4": one.families & family::V4 != 0, "ipv6": one.families & family::V6 != 0,
                });
                (json!(key.to_string()), value)
            }),
            names::TRAFFIC => self.entries(names::TRAFFIC, |key: TrafficKey, t: Traffic| {
                let from_to = format!("{}>{}", workload(key.source), workload(key.destination));
                let value = json!({
                    "service": service(key.service), "way": verdict_name(key.way),
                    "opened": t.opened, "closed": t.closed, "sent": t.sent, "received": t.received,
                    "redirectedSent": t.redirected_sent, "redirectedReceived": t.redirected_received,
                    "retransmits": t.retransmits, "minRttUs": t.min_rtt_us, "rttSumUs": t.rtt_sum_us,
                    "rtt": t.rtt,
                });
                (json!(from_to), value)
            }),
            names::NAMES => Ok(all_names(&names)),
            names::SETTINGS => self.settings(),
            names::EVENTS => self.events(),
            names::CONNECTIONS => self.connections(&names),
            names::EXCHANGES => self.exchanges(&workload),
            names::SOCKETS | names::EVENT_RING => Ok(Vec::new()),
            _ => Err(MapsError::UnknownMap {
                name: name.to_owned(),
                directory: self.directory.clone(),
            }),
        }
    }

    /// The value under a key, given as `dump` shows it.
    pub fn get(&self, name: &str, key: &str) -> Result<Option<Value>, MapsError> {
        let found = self
            .dump(name)?
            .into_iter()
            .find(|(candidate, _)| match candidate {
                Value::String(text) => text == key,
                other => other
                    .as_u64()
                    .is_some_and(|number| key.parse() == Ok(number)),
            });
        Ok(found.map(|(_, value)| value))
    }

    fn names(&self) -> Result<Ids, MapsError> {
        let path = self.pin(names::NAMES);
        let map =
            tables::open::<NameKey, PartOfName>(names::NAMES, &path).map_err(unreadable(&path))?;
        Ok(Ids::from_entries(map.iter().filter_map(Result::ok)))
    }

    fn entries<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        show: impl Fn(K, V) -> (Value, Value),
    ) -> Result<Entries, MapsError> {
        let path = self.pin(name);
        let map = tables::open::<K, V>(name, &path).map_err(unreadable(&path))?;
        // An entry that goes while the map is read is no error.
        let mut entries: Entries = map
            .iter()
            .filter_map(Result::ok)
            .map(|(key, value)| show(key, value))
            .collect();
        entries.sort_by_cached_key(|(key, _)| key.to_string());
        Ok(entries)
    }

    /// Numbers by address and port.
    fn counts(&self, name: &str) -> Result<Entries, MapsError> {
        let name = if name == names::TURNS {
            names::TURNS
        } else {
            names::LOADS
        };
        self.entries(name, |key: FrontendKey, count: u64| {
            (json!(at(key.address, key.port)), json!(count))
        })
    }

    fn access_sources(&self, policy: &dyn Fn(u32) -> String) -> Result<Entries, MapsError> {
        let path = self.pin(names::ACCESS_SOURCES);
        let map: LpmTrie<MapData, SourceKey, SourceAccess> = MapData::from_pin(&path)
            .and_then(Map::from_map_data)
            .and_then(TryInto::try_into)
            .map_err(unreadable(&path))?;
        let mut entries: Entries = map
            .iter()
            .filter_map(Result::ok)
            .map(|(key, source)| {
                let (length, data) = (key.prefix_len().saturating_sub(SET_BITS), key.data());
                let block = u8::try_from(length)
                    .ok()
                    .and_then(|length| IpBlock::from_octets(data.address.octets(), length));
                let block = block.map_or_else(|| "unknown".into(), |block| block.to_string());
                let value = json!({
                    "denied": source.denied != 0, "policy": policy(source.policy), "ports": source.ports,
                });
                (json!(format!("{} {block}", data.set)), value)
            })
            .collect();
        entries.sort_by_cached_key(|(key, _)| key.to_string());
        Ok(entries)
    }

    fn settings(&self) -> Result<Entries, MapsError> {
        let path = self.pin(names::SETTINGS);
        let settings = open_settings(&path)
            .and_then(|map| map.get(&0, 0))
            .map_err(unreadable(&path))?;
        let value = json!({
            "heartbeatNs": settings.heartbeat_ns, "acceleration": settings.acceleration != 0,
            "events": settings.events,
            "guards": settings.guards & guards::ANY != 0,
            "guardsOverflow": settings.guards & guards::OVERFLOW != 0,
        });
        Ok(vec![(json!(0), value)])
    }

    fn events(&self) -> Result<Entries, MapsError> {
        let path = self.pin(names::EVENTS);
        let counts = events(&path).map_err(unreadable(&path))?;
        Ok(counts
            .into_iter()
            .map(|(name, count)| (json!(name), json!(count)))
            .collect())
    }

    fn connections(&self, names: &Ids) -> Result<Entries, MapsError> {
        let path = self.directory.join("connections");
        let records = connections::read(&path).map_err(|source| MapsError::Read {
            path: path.clone(),
            source,
        })?;
        Ok(records
            .iter()
            .map(|record| {
                let c = &record.connection;
                let value = json!({
                    "local": at(c.local_address, c.local_port),
                    "remote": at(c.remote_address, c.remote_port),
                    "dialled": at(c.dialled_address, c.dialled_port),
                    "source": named(names, NameKind::Workload, c.source),
                    "destination": named(names, NameKind::Workload, c.destination),
                    "service": named(names, NameKind::Service, c.service),
                    "way": verdict_name(c.way), "role": c.role, "peer": c.peer.to_string(),
                    "sending": c.sending, "plain": connections::why(c.plain),
                    "redirectedBytes": c.redirected_bytes, "redirectedMessages": c.redirected_messages,
                    "tcpSent": record.tcp_sent, "tcpReceived": record.tcp_received, "state": record.state,
                    "rttUs": record.rtt_us, "minRttUs": record.min_rtt_us,
                    "retransmits": record.retransmits,
                });
                (json!(c.cookie.to_string()), value)
            })
            .collect())
    }
}

/// With the transport where it is not TCP, which most are.
fn frontend_key(key: &FrontendKey) -> String {
    const UDP: u16 = 17;
    let at = at(key.address, key.port);
    if key.protocol == UDP {
        format!("{at}/udp")
    } else {
        at
    }
}

/// The spelling of the API.
fn balance_name(balance: u32) -> &'static str {
    match balance {
        b if b == Balance::RoundRobin as u32 => "ROUND_ROBIN",
        b if b == Balance::LeastConnections as u32 => "LEAST_REQUEST",
        _ => "RANDOM",
    }
}

fn served_key(key: ServedKey) -> String {
    let family = if key.family == family::V6 {
        "ipv6"
    } else {
        "ipv4"
    };
    format!("{}:{}/{family}", key.netns, key.port.get())
}

fn all_names(names: &Ids) -> Entries {
    let entry = |(kind, id, name): (u16, u32, &str)| {
        let kind = match kind {
            kind if kind == NameKind::Workload as u16 => "workload",
            kind if kind == NameKind::Policy as u16 => "policy",
            _ => "service",
        };
        (json!(format!("{kind}/{id}")), json!(name))
    };
    let mut entries: Entries = names.iter().map(entry).collect();
    entries.sort_by_key(|(key, _)| key.to_string());
    entries
}

fn named(names: &Ids, kind: NameKind, id: u32) -> String {
    names.name(kind, id).unwrap_or("unknown").to_owned()
}

fn ip(address: IpBe) -> String {
    IpAddr::from(address).to_string()
}

/// A pod's own address of a family that it may not have.
fn own(address: IpBe) -> Option<String> {
    (!address.is_none()).then(|| ip(address))
}

fn at(address: IpBe, port: PortBe) -> String {
    SocketAddr::new(address.into(), port.get()).to_string()
}
