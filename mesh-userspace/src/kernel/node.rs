//! The kernel's part of one node, as the agent holds it: attached programs, policy in maps, counters.

mod guarding;
mod succession;

pub use self::guarding::ApplyError;

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use aya::maps::{Array, HashMap as BpfMap, Map, MapData, MapError, SkStorage};
use mesh_common::{
    IpBe, PortBe,
    connection::{Connection, Origin, OriginKey, Role},
    dns::NameserverKey,
    names::{self, NameKind, programs},
    settings::{Settings, guards},
};
use socket2::{Domain, Socket};

mod counts;

use self::counts::OwnDenials;
pub use self::counts::{Counted, OwnDenial};
use super::{
    access_maps::AccessMaps,
    announce::Announcements,
    cgroup,
    compile::{self, Enrolled, Tables},
    connections::{self, LiveConnection},
    datagrams::Datagrams,
    dead::Lookout,
    forget::Counts,
    ids::Ids,
    loader::{self, Attached, InForce, Leftovers, LoadError, Loaded, PinDir},
    maps,
    netns::Netns,
    selftest::{self, Probe},
    served::ServedPorts,
    sys,
    tables::{PolicyMaps, TableError},
};
use crate::{
    config::model::{Acceleration, ObjectName},
    mesh::model::Snapshot,
};

mod pods;

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
    /// The folder that is pinned below; this version's layout where absent.
    pub layout: Option<String>,
    /// Another agent lives, whose listeners are taken over.
    pub takeover: bool,
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
    bpffs: PathBuf,
    in_force: OnceLock<InForce>,
    /// Programs that wait for the policy: the programs in force are of another layout, and know theirs.
    waiting: Mutex<Option<Loaded>>,
    leftovers: Mutex<Leftovers>,
    probes: Vec<Probe>,
    policy: Mutex<(PolicyMaps, Ids)>,
    access: Mutex<AccessMaps>,
    served: Mutex<ServedPorts>,
    counts: Mutex<Counts>,
    lookout: Mutex<Lookout>,
    settings: Mutex<Array<MapData, Settings>>,
    origins: Mutex<BpfMap<MapData, OriginKey, Origin>>,
    nameservers: Mutex<BpfMap<MapData, NameserverKey, IpBe>>,
    datagrams: Mutex<Datagrams>,
    connections: Mutex<SkStorage<MapData, Connection>>,
    acceleration: Mutex<AccelerationState>,
    /// Bits of `mesh_common::event::follow`.
    followed: AtomicU32,
    own_denials: Mutex<OwnDenials>,
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
        let layout = options.layout.clone().unwrap_or_else(loader::own_layout);
        let pins = PinDir::of_layout(&options.bpffs, &layout, &options.node);
        // The programs of another layout know its policy; these would know none until it is written.
        let decides = |pins: &PinDir| pins.link(programs::CONNECT4).exists();
        let knows_nothing = !decides(&pins) && pins.others().iter().any(decides);
        let loaded = loader::prepare(&pins, &cgroup, &options.capacities)?;
        let (in_force, waiting) = if knows_nothing {
            (OnceLock::new(), Some(loaded))
        } else {
            (OnceLock::from(loaded.attach()?), None)
        };
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
        let served = ServedPorts::open(&pins).map_err(|error| table_error(&error))?;
        let counts = Counts::open(&pins).map_err(|error| table_error(&error))?;
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
            leftovers: Mutex::new(Leftovers::of(&pins)),
            pins,
            bpffs: options.bpffs.clone(),
            in_force,
            waiting: Mutex::new(waiting),
            probes,
            policy: Mutex::new((policy, ids)),
            access: Mutex::new(access),
            served: Mutex::new(served),
            counts: Mutex::new(counts),
            lookout: Mutex::default(),
            settings: Mutex::new(settings),
            origins: Mutex::new(origins),
            nameservers: Mutex::new(nameservers),
            datagrams: Mutex::default(),
            connections: Mutex::new(connections),
            acceleration: Mutex::new(acceleration),
            followed: AtomicU32::new(0),
            own_denials: Mutex::default(),
            announcements: Mutex::new(announcements),
            guards: AtomicU32::new(guards),
            strays: AtomicU64::new(0),
            cut_lately: Mutex::default(),
        };
        // The listeners of an agent that is gone are gone with it; those that are taken over are served.
        let heartbeat_ns = if options.takeover {
            sys::monotonic_ns()
        } else {
            0
        };
        kernel
            .write_settings(heartbeat_ns)
            .map_err(|error| LoadError::Kernel {
                what: "writing the settings map".into(),
                reason: error.to_string(),
            })?;
        sys::release_free_memory();
        Ok(kernel)
    }

    /// The programs that are attached.
    pub fn attached(&self) -> Vec<Attached> {
        let Some(in_force) = self.in_force.get() else {
            return Vec::new();
        };
        let guard = in_force.guard.attached();
        in_force.attached.iter().cloned().chain(guard).collect()
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
        let mut tables = compile::compile(snapshot, enrolled, ids);
        self.forget_nameservers(&tables);
        locked(&self.served).mark(&mut tables);
        let guarded = match self.in_force.get() {
            Some(programs) if !tables.access.is_empty() => programs.guard.attach(),
            _ => Ok(()),
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
        let mut rest = policy.apply(&tables, ids);
        // A port that closed meanwhile may have been marked in an entry that was just replaced.
        if locked(&self.served).mark(&mut tables) {
            rest = rest.and(policy.apply(&tables, ids));
        }
        locked(&self.counts).forget_gone(&tables, snapshot);
        locked(&self.datagrams).in_force(&tables);
        if let Some(programs) = self.in_force.get()
            && tables.access.is_empty()
            && access.is_ok()
        {
            programs.guard.detach()?;
        }
        guarded?;
        Ok(access.and(rest)?)
    }

    /// Ends the UDP sockets that are connected to an endpoint which is not its service's any more. `pods`: as
    /// for [`Kernel::cut`]. To be called after [`Kernel::apply`] and once more later. Gives how many it ended.
    pub fn end_datagrams(&self, pods: &[(&Netns, &[IpAddr])]) -> io::Result<usize> {
        let pods: Vec<&Netns> = pods.iter().map(|(netns, _)| *netns).collect();
        locked(&self.datagrams).end_stale(&self.pins.exchanges(), &pods)
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
            events: self.followed.load(Ordering::Relaxed),
            guards: self.guards.load(Ordering::SeqCst),
            reserved: 0,
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
    pub fn nameserver(&self, netns: u64, slot: u32) -> io::Result<Option<IpAddr>> {
        match locked(&self.nameservers).get(&NameserverKey::new(netns, slot), 0) {
            Ok(address) => Ok(Some(address.into())),
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

    /// A non-blocking UDP socket in a pod's namespace that the programs let pass.
    pub fn datagram_socket(&self, netns: &Netns, destination: &SocketAddr) -> io::Result<Socket> {
        self.own(netns.datagram_socket(Domain::for_address(*destination))?)
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
        let records = connections::read(&self.pins.connections())?;
        let finished = self.finished()?;
        Ok(connections::pair(&records, |cookie| {
            finished.get(&cookie, 0).ok()
        }))
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
    loader::uninstall(bpffs, node)
}
