//! Every map, once. `docs/bpf-maps.md` says who writes and who reads each.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash},
    macros::btf_map,
};
use mesh_common::{
    IpBe,
    access::{Access, AnnouncedKey, DenialKey, PortAccess, PortKey, SourceAccess, SourceKey},
    balance::{Affinity, AffinityKey, Listening, ServedKey},
    connection::{Connection, Handshake, HandshakeKey, ListenerKey, Origin, OriginKey, Peer},
    datagram::Exchanges,
    dns::NameserverKey,
    event::RING_BYTES,
    executable::Executable,
    failure::FailureKey,
    names::{NameKey, PartOfName},
    policy::{Endpoint, EndpointKey, ExcludedPort, Frontend, FrontendKey, LocalPod, Workload},
    settings::Settings,
    traffic::{Event, Traffic, TrafficKey},
};

use crate::kernel::NOEXIST;

/// Memory follows what is used, not what could be.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "workloads")]
pub static WORKLOADS: HashMap<u64, Workload, 4096, GROWS> = HashMap::new();

#[btf_map(name = "cgroup_pods")]
pub static CGROUP_PODS: HashMap<u64, Workload, 1024, GROWS> = HashMap::new();

#[btf_map(name = "frontends")]
pub static FRONTENDS: HashMap<FrontendKey, Frontend, 65536, GROWS> = HashMap::new();

#[btf_map(name = "endpoints")]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint, 65_536, GROWS> = HashMap::new();

#[btf_map(name = "local_pods")]
pub static LOCAL_PODS: HashMap<IpBe, LocalPod, 4096, GROWS> = HashMap::new();

#[btf_map(name = "excluded_ports")]
pub static EXCLUDED_PORTS: HashMap<ExcludedPort, u32, 16384, GROWS> = HashMap::new();

#[btf_map(name = "executables")]
pub static EXECUTABLES: HashMap<Executable, u32, 4096, GROWS> = HashMap::new();
#[btf_map(name = "access")]
pub static ACCESS: HashMap<u64, Access, 4096, GROWS> = HashMap::new();

/// Capacity covers the sets that were just replaced, which stay until the next change.
#[btf_map(name = "access_sources")]
pub static ACCESS_SOURCES: LpmTrie<SourceKey, SourceAccess, 131_072> = LpmTrie::new();

#[btf_map(name = "access_ports")]
pub static ACCESS_PORTS: HashMap<PortKey, PortAccess, 32768, GROWS> = HashMap::new();

/// The oldest give way: their connections are judged as a stranger's.
#[btf_map(name = "announced")]
pub static ANNOUNCED: LruHashMap<AnnouncedKey, u64, 8192> = LruHashMap::new();

#[btf_map(name = "denials")]
pub static DENIALS: HashMap<DenialKey, u64, 4096, GROWS> = HashMap::new();

#[btf_map(name = "failures")]
pub static FAILURES: HashMap<FailureKey, u64, 4096, GROWS> = HashMap::new();

#[btf_map(name = "connections")]
pub static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

#[btf_map(name = "exchanges")]
pub static EXCHANGES: SkStorage<Exchanges> = SkStorage::new();

/// Two for each pair of ends, as in [`PEERS`]: 131072 connections inside the node. A hash takes 16 bytes
/// for each that it could hold, so capacities are no larger than they need be.
#[btf_map(name = "sockets")]
pub static SOCKETS: SockHash<u64, 262_144> = SockHash::new();

/// The oldest handshakes give way: their connections stay plain TCP.
#[btf_map(name = "handshakes")]
pub static HANDSHAKES: LruHashMap<HandshakeKey, Handshake, 8192> = LruHashMap::new();

#[btf_map(name = "peers")]
pub static PEERS: HashMap<u64, Peer, 262_144, GROWS> = HashMap::new();

#[btf_map(name = "listeners")]
pub static LISTENERS: HashMap<ListenerKey, u32, 16384, GROWS> = HashMap::new();

/// The oldest give way: connections that the agent has not accepted in 8192 others' time.
#[btf_map(name = "origins")]
pub static ORIGINS: LruHashMap<OriginKey, Origin, 8192> = LruHashMap::new();

/// [`mesh_common::dns::SLOTS`] for each pod.
#[btf_map(name = "nameservers")]
pub static NAMESERVERS: HashMap<NameserverKey, IpBe, 16384, GROWS> = HashMap::new();

/// The oldest give way: their clients may get another endpoint. An LRU map has all of its memory from the
/// start.
#[btf_map(name = "affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, 8192> = LruHashMap::new();

#[btf_map(name = "turns")]
pub static TURNS: HashMap<FrontendKey, u64, 4096, GROWS> = HashMap::new();

/// Of endpoints that are chosen by it only.
#[btf_map(name = "loads")]
pub static LOADS: HashMap<FrontendKey, u64, 16384, GROWS> = HashMap::new();

#[btf_map(name = "served")]
pub static SERVED: HashMap<ServedKey, u64, 8192, GROWS> = HashMap::new();

#[btf_map(name = "unseen")]
pub static UNSEEN: HashMap<ServedKey, u32, 8192, GROWS> = HashMap::new();

#[btf_map(name = "listening")]
pub static LISTENING: HashMap<u64, Listening, 8192, GROWS> = HashMap::new();

#[btf_map(name = "traffic")]
pub static TRAFFIC: HashMap<TrafficKey, Traffic, 65536, GROWS> = HashMap::new();

#[btf_map(name = "events")]
pub static EVENTS: PerCpuArray<u64, { Event::COUNT as usize }> = PerCpuArray::new();

/// Of [`mesh_common::event::Record`]; libbpf refuses a ring buffer that names its values' type.
#[btf_map(name = "event_ring")]
pub static EVENT_RING: RingBuf<(), RING_BYTES> = RingBuf::new();

/// Between the two closes of a pair. The oldest give way: those connections show fewer bytes than the totals.
#[btf_map(name = "finished")]
pub static FINISHED: LruHashMap<u64, u64, 4096> = LruHashMap::new();

#[btf_map(name = "settings")]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Written and read by user space only: it turns the numbers in the other maps back into names, with no
/// agent too.
#[btf_map(name = "names")]
pub static NAMES: HashMap<NameKey, PartOfName, 131_072, GROWS> = HashMap::new();

/// Adds one to an event's counter.
#[inline(always)]
pub fn count(event: Event) {
    if let Some(counter) = EVENTS.get_ptr_mut(event as u32) {
        // SAFETY: a per-CPU slot, and nothing else on this CPU runs between the read and the write but
        // another program of ours in an interrupt; a count lost then is acceptable in a statistic.
        unsafe { *counter += 1 };
    }
}

/// Adds one to a counter in a hash map, which is made where it is not there. False: the map is full.
#[inline(always)]
pub fn add_one<K, const N: usize, const F: usize>(map: &HashMap<K, u64, N, F>, key: &K) -> bool {
    if let Some(total) = map.get_ptr_mut(key) {
        // SAFETY: points into the map; an aligned u64.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, 1) };
        return true;
    }
    if map.insert(key, &1, NOEXIST).is_ok() {
        return true;
    }
    // Another CPU made it first, or the map is full.
    let Some(total) = map.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, 1) };
    true
}
