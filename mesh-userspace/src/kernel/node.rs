//! The kernel's part of one node, as the agent holds it: attached programs, policy in maps, counters.

mod guarding;

pub use self::guarding::ApplyError;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use aya::maps::{Array, HashMap as BpfMap, Map, MapData, MapError, SkStorage};
use mesh_common::{
    Ipv4Be, PortBe,
    connection::{Connection, ListenerKey, Origin, OriginKey, Role},
    dns::NameserverKey,
    names::{self, NameKind, programs},
    settings::{Settings, guards},
    traffic::{Traffic, TrafficKey},
};
use socket2::{Domain, Socket};

use super::{
    access_maps::AccessMaps,
    announce::Announcements,
    cgroup,
    compile::{self, Enrolled, Tables},
    connections::{self, LiveConnection},
    guard::Guard,
    ids::Ids,
    listeners,
    loader::{self, Attached, LoadError, Loaded, PinDir},
    maps,
    netns::Netns,
    selftest::{self, Probe},
    sys,
    tables::{PolicyMaps, TableError},
};
use crate::{
    config::model::{Acceleration, ObjectName},
    mesh::model::Snapshot,
};

/// Where and how to attach.
#[derive(Debug, Clone)]
pub struct KernelOptions {
    /// `--bpffs`.
    pub bpffs: PathBuf,
    /// `--node-name`.
    pub node: String,
    /// `--cgroup`; the cgroup v2 mount where absent.
    pub cgroup: Option<PathBuf>,
    /// `--acceleration`.
    pub acceleration: Acceleration,
    /// `--map-capacity`: maps and how many entries they are to hold.
    pub capacities: Vec<(String, u32)>,
}

/// Whether bytes may go from socket to socket on this node, and who says so.
#[derive(Debug, Clone)]
pub struct AccelerationState {
    /// They may.
    pub on: bool,
    /// One line for people.
    pub reason: String,
}

/// The kernel's part of this node.
pub struct Kernel {
    pins: PinDir,
    attached: Vec<Attached>,
    guard: Guard,
    probes: Vec<Probe>,
    policy: Mutex<(PolicyMaps, Ids)>,
    access: Mutex<AccessMaps>,
    settings: Mutex<Array<MapData, Settings>>,
    origins: Mutex<BpfMap<MapData, OriginKey, Origin>>,
    nameservers: Mutex<BpfMap<MapData, NameserverKey, Ipv4Be>>,
    connections: Mutex<SkStorage<MapData, Connection>>,
    acceleration: Mutex<AccelerationState>,
    announcements: Mutex<Announcements>,
    /// [`Settings::guards`].
    guards: AtomicU32,
    strays: AtomicU64,
    /// Pods whose connections are to be looked at once more.
    cut_lately: Mutex<Vec<u64>>,
}

/// A panic elsewhere does not make a map's handle wrong.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreadable(name: &'static str) -> impl FnOnce(MapError) -> LoadError {
    move |error| LoadError::Kernel {
        what: format!("opening map {name}"),
        reason: error.to_string(),
    }
}

impl Kernel {
    /// Mounts bpffs where it is not, probes the kernel, loads and attaches. What an earlier agent pinned
    /// is adopted, its policy stays in force until [`Kernel::apply`].
    pub fn start(options: &KernelOptions) -> Result<Self, LoadError> {
        mount_bpffs(&options.bpffs)?;
        let cgroup = find_cgroup(options.cgroup.as_deref())?;
        let pins = PinDir::new(&options.bpffs, &options.node);
        let Loaded { attached, guard } = loader::load(&pins, &cgroup, &options.capacities)?;
        let probes = match options.acceleration {
            Acceleration::Off => Vec::new(),
            Acceleration::Auto | Acceleration::On => selftest::run(),
        };
        let acceleration = judge(options.acceleration, &probes);
        let mut policy = PolicyMaps::open(&pins).map_err(|error| table_error(&error))?;
        policy
            .remove_orphans()
            .map_err(|error| table_error(&error))?;
        let ids = policy.ids();
        let access = AccessMaps::open(&pins).map_err(|error| table_error(&error))?;
        let settings =
            maps::open_settings(&pins.map(names::SETTINGS)).map_err(unreadable(names::SETTINGS))?;
        let origins = super::tables::open(names::ORIGINS, &pins.map(names::ORIGINS))
            .map_err(|error| table_error(&error))?;
        let nameservers = super::tables::open(names::NAMESERVERS, &pins.map(names::NAMESERVERS))
            .map_err(|error| table_error(&error))?;
        let announcements = Announcements::open(&pins).map_err(|error| table_error(&error))?;
        // What an earlier agent left holds on.
        let guards = settings.get(&0, 0).map_or(0, |settings| settings.guards);
        let connections: SkStorage<MapData, Connection> =
            MapData::from_pin(pins.map(names::CONNECTIONS))
                .and_then(Map::from_map_data)
                .and_then(TryInto::try_into)
                .map_err(unreadable(names::CONNECTIONS))?;
        let kernel = Self {
            pins,
            attached,
            guard,
            probes,
            policy: Mutex::new((policy, ids)),
            access: Mutex::new(access),
            settings: Mutex::new(settings),
            origins: Mutex::new(origins),
            nameservers: Mutex::new(nameservers),
            connections: Mutex::new(connections),
            acceleration: Mutex::new(acceleration),
            announcements: Mutex::new(announcements),
            guards: AtomicU32::new(guards),
            strays: AtomicU64::new(0),
            cut_lately: Mutex::default(),
        };
        kernel
            .write_settings(0)
            .map_err(|error| LoadError::Kernel {
                what: "writing the settings map".into(),
                reason: error.to_string(),
            })?;
        sys::release_free_memory();
        Ok(kernel)
    }

    /// The programs that are attached.
    pub fn attached(&self) -> Vec<Attached> {
        let mut attached = self.attached.clone();
        if self.guard.is_attached() {
            attached.push(Attached {
                name: programs::JUDGE_SYN.into(),
                hook: "cgroup".into(),
                id: self.guard.id(),
            });
        }
        attached
    }

    /// What was tried on this kernel at start.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Puts a snapshot in force for the pods that are enrolled.
    pub fn apply(
        &self,
        snapshot: &Snapshot,
        enrolled: &BTreeMap<ObjectName, Enrolled>,
    ) -> Result<(), ApplyError> {
        let (policy, ids) = &mut *locked(&self.policy);
        let tables = compile::compile(snapshot, enrolled, ids);
        self.forget_nameservers(&tables);
        let guarded = if tables.access.is_empty() {
            Ok(())
        } else {
            self.guard.attach()
        };
        // Before the pods: nobody is enrolled without its policies.
        let access = {
            let mut access = locked(&self.access);
            if !tables.access.is_empty() {
                // Clients announce themselves before they are asked whether they did.
                self.set_guards(access.guards() | guards::ANY)?;
            }
            let outcome = access.apply(&tables.access);
            self.set_guards(access.guards())?;
            outcome
        };
        let rest = policy.apply(&tables, ids);
        if tables.access.is_empty() && access.is_ok() {
            self.guard.detach()?;
        }
        guarded?;
        Ok(access.and(rest)?)
    }

    /// Those of pods that are gone, be it while no agent was there.
    fn forget_nameservers(&self, tables: &Tables) {
        let mut nameservers = locked(&self.nameservers);
        let gone: Vec<NameserverKey> = nameservers
            .keys()
            .filter_map(Result::ok)
            .filter(|key| !tables.workloads.contains_key(&key.netns))
            .collect();
        for key in gone {
            // Nobody else removes any.
            let _ = nameservers.remove(&key);
        }
    }

    /// Tells the programs that the agent lives; to be called once a second.
    pub fn beat(&self) -> io::Result<()> {
        self.write_settings(sys::monotonic_ns())
    }

    /// Tells the programs that the agent is gone: from now on the pods' failure policies hold.
    pub fn rest(&self) -> io::Result<()> {
        self.write_settings(0)
    }

    fn write_settings(&self, heartbeat_ns: u64) -> io::Result<()> {
        let acceleration = u32::from(locked(&self.acceleration).on);
        let mut map = locked(&self.settings);
        let settings = Settings {
            heartbeat_ns,
            acceleration,
            guards: self.guards.load(Ordering::SeqCst),
        };
        map.set(0, settings, 0).map_err(io::Error::other)
    }

    /// Whether bytes may go from socket to socket.
    pub fn acceleration(&self) -> AccelerationState {
        locked(&self.acceleration).clone()
    }

    /// The kill switch: live connections go on by TCP from their next byte, in order.
    pub fn set_acceleration(&self, on: bool) -> io::Result<()> {
        if on && let Some(probe) = selftest::obstacle(&self.probes) {
            let reason = format!("the self-test failed: {}: {}", probe.name, probe.detail);
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let word = if on { "on" } else { "off" };
        *locked(&self.acceleration) = AccelerationState {
            on,
            reason: format!("switched {word} by meshctl acceleration {word}"),
        };
        self.beat()
    }

    /// Tells the programs of the listeners that pods had before they were enrolled.
    pub fn note_listeners(&self, pods: &[&Netns]) -> io::Result<()> {
        const NOEXIST: u64 = 1;
        let cookies: HashMap<u64, u64> = pods
            .iter()
            .map(|pod| Ok((pod.inode()?, pod.cookie())))
            .collect::<io::Result<_>>()?;
        let inodes: Vec<u64> = cookies.keys().copied().collect();
        let mut listeners = self.listeners()?;
        for found in listeners::scan(&inodes) {
            let netns = cookies.get(&found.netns).copied().unwrap_or_default();
            let key = ListenerKey {
                netns,
                port: PortBe::new(found.port),
                reserved: [0; 3],
            };
            // What the programs saw themselves is newer.
            let _ = listeners.insert(key, found.bits, NOEXIST);
        }
        Ok(())
    }

    /// Forgets the listeners of a namespace that is gone.
    pub fn forget_listeners(&self, netns: u64) -> io::Result<()> {
        let mut listeners = self.listeners()?;
        let gone: Vec<ListenerKey> = listeners
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.netns == netns)
            .collect();
        for key in gone {
            let _ = listeners.remove(&key);
        }
        Ok(())
    }

    fn listeners(&self) -> io::Result<BpfMap<MapData, ListenerKey, u32>> {
        super::tables::open(names::LISTENERS, &self.pins.map(names::LISTENERS))
            .map_err(io::Error::other)
    }

    /// Where the client of a connection to the agent's listener wanted to go. The answer is given once.
    pub fn take_origin(&self, netns: u64, client: SocketAddr) -> io::Result<Option<SocketAddr>> {
        let key = OriginKey {
            netns,
            address: client.ip().into(),
            port: PortBe::new(client.port()),
            reserved: [0; 3],
        };
        let mut origins = locked(&self.origins);
        let origin = match origins.get(&key, 0) {
            Ok(origin) => origin,
            Err(MapError::KeyNotFound) => {
                self.strays.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        // Gone already: evicted by newer ones, which does no harm.
        let _ = origins.remove(&key);
        let address = SocketAddr::new(origin.address.into(), origin.port.get());
        Ok(Some(address))
    }

    /// How many connections to the agent's listeners were dialled by somebody, and closed.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    /// The name server that a slot of a pod stands for; None: the pod has dialled none there.
    pub fn nameserver(&self, netns: u64, slot: u32) -> io::Result<Option<Ipv4Addr>> {
        match locked(&self.nameservers).get(&NameserverKey::new(netns, slot), 0) {
            Ok(address) => Ok(Some(address.octets().into())),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// A non-blocking TCP socket in a pod's namespace that the programs let pass.
    pub fn upstream_socket(&self, netns: &Netns, destination: &SocketAddr) -> io::Result<Socket> {
        let socket = self.own(netns.socket(Domain::for_address(*destination))?)?;
        if self.guards.load(Ordering::SeqCst) != 0
            && let Err(error) = self.announce(&socket, netns.cookie(), *destination)
        {
            tracing::debug!(%destination, %error, "not announced: the server takes it for a stranger's");
        }
        Ok(socket)
    }

    /// A non-blocking UDP socket (IPv4) in a pod's namespace that the programs let pass.
    pub fn datagram_socket(&self, netns: &Netns) -> io::Result<Socket> {
        self.own(netns.datagram_socket()?)
    }

    /// Marks a socket as the agent's.
    fn own(&self, socket: Socket) -> io::Result<Socket> {
        let own = Connection {
            role: Role::Agent as u32,
            ..Connection::default()
        };
        locked(&self.connections)
            .insert(&socket, own, 0)
            .map_err(io::Error::other)?;
        Ok(socket)
    }

    /// The connections that are open now.
    pub fn connections(&self) -> io::Result<Vec<LiveConnection>> {
        Ok(connections::pair(&connections::read(
            &self.pins.connections(),
        )?))
    }

    /// Totals by pair of workloads, open connections included.
    pub fn traffic(&self) -> io::Result<HashMap<TrafficKey, Traffic>> {
        // Live ones first: a connection that closes in between is counted twice for a moment rather than
        // missed, and the next reading is right again.
        let open = connections::open_totals(&connections::read(&self.pins.connections())?);
        let closed = super::tables::open::<TrafficKey, Traffic>(
            names::TRAFFIC,
            &self.pins.map(names::TRAFFIC),
        )
        .map_err(io::Error::other)?;
        let mut totals = open;
        for entry in closed.iter().collect::<Vec<_>>() {
            let (key, closed) = entry.map_err(io::Error::other)?;
            let total = totals.entry(key).or_default();
            total.opened += closed.opened;
            total.closed += closed.closed;
            total.sent += closed.sent;
            total.received += closed.received;
            total.redirected_sent += closed.redirected_sent;
            total.redirected_received += closed.redirected_received;
        }
        Ok(totals)
    }

    /// The programs' event counters.
    pub fn events(&self) -> io::Result<Vec<(&'static str, u64)>> {
        maps::events(&self.pins.map(names::EVENTS)).map_err(io::Error::other)
    }

    /// The name behind a number of the maps.
    pub fn name(&self, kind: NameKind, id: u32) -> Option<String> {
        locked(&self.policy).1.name(kind, id).map(str::to_owned)
    }
}

fn table_error(error: &TableError) -> LoadError {
    LoadError::Kernel {
        what: "opening the pinned maps".into(),
        reason: error.to_string(),
    }
}

fn judge(wanted: Acceleration, probes: &[Probe]) -> AccelerationState {
    match (wanted, selftest::obstacle(probes)) {
        (Acceleration::Off, _) => AccelerationState {
            on: false,
            reason: "--acceleration off".into(),
        },
        (_, Some(probe)) => AccelerationState {
            on: false,
            reason: format!("the self-test failed: {}: {}", probe.name, probe.detail),
        },
        (Acceleration::On, None) => AccelerationState {
            on: true,
            reason: "--acceleration on, the self-test passed".into(),
        },
        (Acceleration::Auto, None) => AccelerationState {
            on: true,
            reason: "the self-test passed".into(),
        },
    }
}

/// Makes sure that `dir` is a bpffs: objects cannot be pinned anywhere else.
pub fn mount_bpffs(dir: &Path) -> Result<(), LoadError> {
    let failed = |operation| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => LoadError::Privilege {
                operation: format!("{operation} {}", dir.display()),
                source,
            },
            _ => LoadError::File {
                operation,
                path: dir.to_owned(),
                source,
            },
        }
    };
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(failed("creating"))?;
    }
    if !sys::is_bpffs(dir).map_err(failed("looking at"))? {
        sys::mount_bpffs(dir).map_err(failed("mounting bpffs at"))?;
    }
    Ok(())
}

/// The folder to attach to: as asked, else the cgroup v2 mount.
fn find_cgroup(asked: Option<&Path>) -> Result<PathBuf, LoadError> {
    let Some(dir) = asked else {
        return cgroup::mounted().map_err(|error| LoadError::Kernel {
            what: "finding cgroup v2".into(),
            reason: error.to_string(),
        });
    };
    match sys::is_cgroup2(dir) {
        Ok(true) => Ok(dir.to_owned()),
        Ok(false) => Err(LoadError::Kernel {
            what: format!("--cgroup {}", dir.display()),
            reason: "not a cgroup v2 folder (see the cgroup2 line of /proc/mounts)".into(),
        }),
        Err(source) => Err(LoadError::File {
            operation: "opening",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Removes what was pinned for a node. True: there was something.
pub fn uninstall(bpffs: &Path, node: &str) -> Result<bool, LoadError> {
    loader::uninstall(&PinDir::new(bpffs, node))
}
