//! Every map, once. `docs/bpf-maps.md` says who writes and who reads each.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage, SockHash},
    macros::btf_map,
};
use mesh_common::{
    IpBe, Ipv4Be,
    access::{Access, AnnouncedKey, DenialKey, PortAccess, PortKey, SourceAccess, SourceKey},
    connection::{Connection, Handshake, HandshakeKey, ListenerKey, Origin, OriginKey, Peer},
    dns::NameserverKey,
    executable::Executable,
    names::{Name, NameKey},
    policy::{Endpoint, EndpointKey, ExcludedPort, Frontend, FrontendKey, LocalPod, Workload},
    settings::Settings,
    traffic::{Event, Traffic, TrafficKey},
};

/// Memory follows what is used, not what could be.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "workloads")]
pub static WORKLOADS: HashMap<u64, Workload, 4096, GROWS> = HashMap::new();

#[btf_map(name = "cgroup_pods")]
pub static CGROUP_PODS: HashMap<u64, Workload, 1024, GROWS> = HashMap::new();

#[btf_map(name = "frontends")]
pub static FRONTENDS: HashMap<FrontendKey, Frontend, 65536, GROWS> = HashMap::new();

#[btf_map(name = "endpoints")]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint, 262_144, GROWS> = HashMap::new();

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
pub static ACCESS_PORTS: HashMap<PortKey, PortAccess, 131_072, GROWS> = HashMap::new();

/// The oldest give way: their connections are judged as a stranger's.
#[btf_map(name = "announced")]
pub static ANNOUNCED: LruHashMap<AnnouncedKey, u64, 8192> = LruHashMap::new();

#[btf_map(name = "denials")]
pub static DENIALS: HashMap<DenialKey, u64, 16384, GROWS> = HashMap::new();

#[btf_map(name = "connections")]
pub static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

#[btf_map(name = "sockets")]
pub static SOCKETS: SockHash<u64, 262_144> = SockHash::new();

/// The oldest handshakes give way: their connections stay plain TCP.
#[btf_map(name = "handshakes")]
pub static HANDSHAKES: LruHashMap<HandshakeKey, Handshake, 16384> = LruHashMap::new();

#[btf_map(name = "peers")]
pub static PEERS: HashMap<u64, Peer, 262_144, GROWS> = HashMap::new();

#[btf_map(name = "listeners")]
pub static LISTENERS: HashMap<ListenerKey, u32, 16384, GROWS> = HashMap::new();

/// The oldest give way: connections that the agent has not accepted in 16384 others' time.
#[btf_map(name = "origins")]
pub static ORIGINS: LruHashMap<OriginKey, Origin, 16384> = LruHashMap::new();

/// [`mesh_common::dns::SLOTS`] for each pod.
#[btf_map(name = "nameservers")]
pub static NAMESERVERS: HashMap<NameserverKey, Ipv4Be, 16384, GROWS> = HashMap::new();

#[btf_map(name = "traffic")]
pub static TRAFFIC: HashMap<TrafficKey, Traffic, 65536, GROWS> = HashMap::new();

#[btf_map(name = "events")]
pub static EVENTS: PerCpuArray<u64, { Event::COUNT as usize }> = PerCpuArray::new();

#[btf_map(name = "settings")]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Written and read by user space only: it turns the numbers in the other maps back into names, with no
/// agent too.
#[btf_map(name = "names")]
pub static NAMES: HashMap<NameKey, Name, 131_072, GROWS> = HashMap::new();

/// Adds one to an event's counter.
#[inline(always)]
pub fn count(event: Event) {
    if let Some(counter) = EVENTS.get_ptr_mut(event as u32) {
        // SAFETY: a per-CPU slot, and nothing else on this CPU runs between the read and the write but
        // another program of ours in an interrupt; a count lost then is acceptable in a statistic.
        unsafe { *counter += 1 };
    }
}
