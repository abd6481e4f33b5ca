//! Loads the programs, adopts what an earlier agent pinned, and attaches.
//!
//! Below `DIR/zerohop/v<LAYOUT>/<node>/`: `maps/NAME`, `links/NAME` and `connections`, the pinned
//! iterator. A new agent finds the maps as they are and puts its programs behind the links that are
//! there, so no connection ever meets a moment without them.

mod error;

use std::{
    fs::{self, File},
    io, mem,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapError, MapInfo, SockHash},
    programs::{
        CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, Program, ProgramError, ProgramFd, SkMsg,
        SkSkb, SockOps,
    },
};
use aya_obj::generated::bpf_attach_type;
use mesh_common::{LAYOUT, names, names::programs};

use super::{btf, executables, guard::Guard, sys, verify};

pub use self::error::LoadError;
pub(super) use self::error::classify;

/// The programs. They carry their own licence: dual MIT/GPL.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/zerohop.o"));

/// Programs on the socket map: none redirects before its bytes and TCP's share a queue.
const ON_SOCKETS: [&str; 2] = [programs::JOIN_QUEUES, programs::REDIRECT_MESSAGE];

/// Programs on the cgroup, in the order in which they are attached: whoever watches and pairs first,
/// whoever redirects connects last, so that a half-attached node decides nothing that it cannot follow.
/// One more comes and goes: see [`Guard`].
const ON_CGROUP: [(&str, bpf_attach_type); 8] = [
    (programs::SETSOCKOPT, bpf_attach_type::BPF_CGROUP_SETSOCKOPT),
    (programs::SOCK_OPS, bpf_attach_type::BPF_CGROUP_SOCK_OPS),
    (
        programs::GETPEERNAME4,
        bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    (
        programs::GETPEERNAME6,
        bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    (programs::RECVMSG4, bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
    (programs::SENDMSG4, bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    (
        programs::CONNECT4,
        bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
    ),
    (
        programs::CONNECT6,
        bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
    ),
];

/// Where a node's pins are.
#[derive(Debug, Clone)]
pub struct PinDir(PathBuf);

impl PinDir {
    /// `DIR/zerohop/v<LAYOUT>/<node>`.
    pub fn new(bpffs: &Path, node: &str) -> Self {
        Self(bpffs.join("zerohop").join(format!("v{LAYOUT}")).join(node))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join("maps").join(name)
    }

    /// A link's pin.
    pub fn link(&self, name: &str) -> PathBuf {
        self.0.join("links").join(name)
    }

    /// The pinned iterator: reading it lists the live connections.
    pub fn connections(&self) -> PathBuf {
        self.0.join("connections")
    }
}

/// Every map that is pinned.
pub const MAPS: [&str; 23] = [
    names::WORKLOADS,
    names::CGROUP_PODS,
    names::FRONTENDS,
    names::ENDPOINTS,
    names::LOCAL_PODS,
    names::EXCLUDED_PORTS,
    names::EXECUTABLES,
    names::ACCESS,
    names::ACCESS_SOURCES,
    names::ACCESS_PORTS,
    names::ANNOUNCED,
    names::DENIALS,
    names::CONNECTIONS,
    names::SOCKETS,
    names::HANDSHAKES,
    names::PEERS,
    names::LISTENERS,
    names::ORIGINS,
    names::NAMESERVERS,
    names::TRAFFIC,
    names::EVENTS,
    names::SETTINGS,
    names::NAMES,
];

/// A program that is attached, for `status`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Attached {
    /// The program.
    pub name: String,
    /// Where: `cgroup`, `map sockets`, `iterator`.
    pub hook: String,
    /// The kernel's number, as bpftool prints it.
    pub id: u32,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The programs that are attached for good.
    pub attached: Vec<Attached>,
    /// The one that is attached while it is needed.
    pub guard: Guard,
}

/// Loads everything, and attaches it but for the guard, which stays as it was. What was pinned before stays in force until each program is replaced;
/// where nothing was, and it fails, nothing is left.
/// `capacities` are of maps that are to hold other numbers of entries than they were built for.
pub fn load(
    pins: &PinDir,
    cgroup: &Path,
    capacities: &[(String, u32)],
) -> Result<Loaded, LoadError> {
    verify::required_helpers()?;
    let first = !pins.0.exists();
    load_and_attach(pins, cgroup, capacities).inspect_err(|_| {
        if first {
            // The error that is on its way says more than one about this.
            let _ = uninstall(pins);
        }
    })
}

fn load_and_attach(
    pins: &PinDir,
    cgroup: &Path,
    capacities: &[(String, u32)],
) -> Result<Loaded, LoadError> {
    let offsets = btf::offsets().map_err(|error| LoadError::Kernel {
        what: "reading the kernel's types".into(),
        reason: error.to_string(),
    })?;
    for dir in [pins.0.join("maps"), pins.0.join("links")] {
        fs::create_dir_all(&dir).map_err(LoadError::file("creating", &dir))?;
    }
    let mut loader = EbpfLoader::new();
    loader.override_global("OFFSETS", &offsets, true);
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, entries) in capacities {
        loader.map_max_entries(name, *entries);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| classify("loading the maps", &error))?;
    verify_pins(&ebpf, pins, capacities)?;
    executables::write(&mut ebpf).map_err(|error| classify("writing the executables", &error))?;

    let mut attached = Vec::new();
    for name in ON_SOCKETS {
        attached.push(attach_to_sockets(&mut ebpf, name)?);
    }
    let cgroup_file = File::open(cgroup).map_err(LoadError::file("opening", cgroup))?;
    for (name, hook) in ON_CGROUP {
        attached.push(attach_to_cgroup(&mut ebpf, name, hook, &cgroup_file, pins)?);
    }
    attached.push(attach_iterator(&mut ebpf, pins)?);
    let guard = load_guard(&mut ebpf, cgroup_file, pins)?;
    Ok(Loaded { attached, guard })
}

/// What an earlier agent's policies need stays attached until the new agent has read its own.
fn load_guard(ebpf: &mut Ebpf, cgroup: File, pins: &PinDir) -> Result<Guard, LoadError> {
    let name = programs::JUDGE_SYN;
    let what = format!("attaching {name} to the cgroup");
    let (program, id) = load_program(ebpf, name)?;
    let program = program
        .fd()
        .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
        .map_err(|error| classify(&what, &error))?;
    let pin = pins.link(name);
    let guard = Guard::new(program, id, cgroup, pin.clone());
    if guard.is_attached() && !adopt(&pin, guard.program(), guard.cgroup())? {
        fs::remove_file(&pin).map_err(LoadError::file("removing", &pin))?;
        guard.attach().map_err(|error| classify(&what, &error))?;
    }
    Ok(guard)
}

/// Loads a program and hands out its descriptor and number.
pub(super) fn load_program<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<(&'a mut Program, u32), LoadError> {
    let what = || format!("loading program {name}");
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Program::CgroupSkb(program) => CgroupSkb::load(program),
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        Program::CgroupSockopt(program) => CgroupSockopt::load(program),
        Program::SockOps(program) => SockOps::load(program),
        Program::SkMsg(program) => SkMsg::load(program),
        Program::SkSkb(program) => SkSkb::load(program),
        Program::Iter(program) => {
            let btf = Btf::from_sys_fs().map_err(|error| classify(&what(), &error))?;
            Iter::load(program, "bpf_sk_storage_map", &btf)
        }
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| verify::refused(&what(), &error))?;
    let id = program
        .info()
        .map_err(|error| classify(&what(), &error))?
        .id();
    Ok((program, id))
}

fn missing(name: &str) -> LoadError {
    LoadError::Kernel {
        what: format!("program {name}"),
        reason: "not in the object that this binary carries: a broken build".into(),
    }
}

/// Programs of a socket map are attached by BPF_PROG_ATTACH: there is no link to pin, and a program stays
/// as long as the map does unless it is detached. So the handle is forgotten.
fn attach_to_sockets(ebpf: &mut Ebpf, name: &str) -> Result<Attached, LoadError> {
    let what = &format!("attaching {name} to the sockets map");
    let sockets = ebpf
        .map(names::SOCKETS)
        .ok_or_else(|| missing(names::SOCKETS))?;
    let sockets: SockHash<_, u64> = sockets
        .try_into()
        .map_err(|error: MapError| classify(what, &error))?;
    let sockets = sockets
        .fd()
        .try_clone()
        .map_err(|error| classify(what, &error))?;
    let (program, id) = load_program(ebpf, name)?;
    let refused = |error: ProgramError| classify(what, &error);
    match program {
        Program::SkMsg(program) => {
            let link = program.attach(&sockets).map_err(refused)?;
            mem::forget(program.take_link(link).map_err(refused)?);
        }
        Program::SkSkb(program) => {
            let link = program.attach(&sockets).map_err(refused)?;
            mem::forget(program.take_link(link).map_err(refused)?);
        }
        _ => return Err(missing(name)),
    }
    Ok(Attached {
        name: name.into(),
        hook: format!("map {}", names::SOCKETS),
        id,
    })
}

fn attach_to_cgroup(
    ebpf: &mut Ebpf,
    name: &str,
    attach_type: bpf_attach_type,
    cgroup: &File,
    pins: &PinDir,
) -> Result<Attached, LoadError> {
    let what = format!("attaching {name} to the cgroup");
    let (program, id) = load_program(ebpf, name)?;
    let attached = Attached {
        name: name.into(),
        hook: "cgroup".into(),
        id,
    };
    let pin = pins.link(name);
    if pin.exists() {
        let fd = program.fd().map_err(|error| classify(&what, &error))?;
        if adopt(&pin, fd, cgroup)? {
            return Ok(attached);
        }
        fs::remove_file(&pin).map_err(LoadError::file("removing", &pin))?;
    }
    let fd = program.fd().map_err(|error| classify(&what, &error))?;
    let link = sys::attach_to_cgroup(fd.as_fd(), cgroup.as_fd(), attach_type)
        .and_then(|link| sys::pin(link.as_fd(), &pin));
    link.map_err(|error| classify(&what, &error))?;
    Ok(attached)
}

/// Puts the new program behind the link that is pinned. False: the link is of another cgroup, or of one
/// that is gone.
fn adopt(pin: &Path, program: &ProgramFd, cgroup: &File) -> Result<bool, LoadError> {
    let foreign = |problem: String| LoadError::ForeignPin {
        path: pin.to_owned(),
        problem,
    };
    let link = sys::open_pin(pin).map_err(|error| foreign(error.to_string()))?;
    let wanted = cgroup
        .metadata()
        .map_err(LoadError::file("reading", pin))?
        .ino();
    let of = sys::link_cgroup(link.as_fd()).map_err(|error| foreign(error.to_string()))?;
    if of != Some(wanted) {
        return Ok(false);
    }
    // Dropping `link` closes a descriptor; the pin keeps the link.
    Ok(sys::replace_program(link.as_fd(), program.as_fd()).is_ok())
}

fn attach_iterator(ebpf: &mut Ebpf, pins: &PinDir) -> Result<Attached, LoadError> {
    let name = programs::DUMP_CONNECTIONS;
    let what = "pinning the connections iterator";
    let map = MapInfo::from_pin(pins.map(names::CONNECTIONS))
        .and_then(|info| info.fd())
        .map_err(|error| classify(what, &error))?;
    let (program, id) = load_program(ebpf, name)?;
    let program = program.fd().map_err(|error| classify(what, &error))?;
    let refused = |error: io::Error| classify(what, &error);
    let link = sys::iterate_map(program.as_fd(), map.as_fd()).map_err(refused)?;
    let pin = pins.connections();
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LoadError::file("removing", &pin)(error));
        }
        _ => {}
    }
    sys::pin(link.as_fd(), &pin).map_err(refused)?;
    Ok(Attached {
        name: name.into(),
        hook: "iterator".into(),
        id,
    })
}

/// aya reopens a pinned map without looking at it: compare every map with what the object says.
fn verify_pins(ebpf: &Ebpf, pins: &PinDir, capacities: &[(String, u32)]) -> Result<(), LoadError> {
    let object =
        aya_obj::Object::parse(OBJECT).map_err(|error| classify("reading the object", &error))?;
    for (name, _) in ebpf.maps() {
        let path = pins.map(name);
        let Some(wanted) = object.maps.get(name) else {
            continue;
        };
        if !MAPS.contains(&name) {
            continue;
        }
        let foreign = |problem: String| LoadError::ForeignPin {
            path: path.clone(),
            problem,
        };
        let info = MapInfo::from_pin(&path).map_err(|error| foreign(error.to_string()))?;
        let kind = info.map_type().map_or(u32::MAX, |kind| kind as u32);
        let found = (kind, info.key_size(), info.value_size(), info.max_entries());
        let entries = capacities.iter().find(|(map, _)| map == name);
        let expected = (
            wanted.map_type(),
            wanted.key_size(),
            wanted.value_size(),
            entries.map_or(wanted.max_entries(), |(_, entries)| *entries),
        );
        if found != expected {
            return Err(foreign(format!(
                "type, key, value, entries are {found:?}, this version has {expected:?}"
            )));
        }
    }
    Ok(())
}

/// Removes everything that was pinned for a node; the programs go with their links. Live pairs hold the
/// socket map and its program until they close, which loses no byte. True: there was something.
pub fn uninstall(pins: &PinDir) -> Result<bool, LoadError> {
    // Links first, connects before the rest: nothing new is decided while the rest goes.
    for (name, _) in ON_CGROUP.iter().rev() {
        remove(&pins.link(name))?;
    }
    remove(&pins.link(programs::JUDGE_SYN))?;
    match fs::remove_dir_all(&pins.0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(LoadError::file("removing", &pins.0)(error)),
    }
    // The folders above are others' too: they go when they are empty.
    for dir in pins.0.ancestors().skip(1).take(2) {
        let _ = fs::remove_dir(dir);
    }
    Ok(true)
}

fn remove(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_load_attach_are_adopted_and_go() {
        let cgroup2 = crate::kernel::cgroup::mounted().expect("cgroup v2");
        let name = format!("zerohop-load-test-{}", std::process::id());
        let cgroup = cgroup2.join(&name);
        fs::create_dir(&cgroup).expect("privilege: run as root");
        let pins = PinDir::new(Path::new("/sys/fs/bpf"), &name);
        let first = load(&pins, &cgroup, &[]);
        let guarded = first.as_ref().map(|first| first.guard.attach());
        let second = load(&pins, &cgroup, &[]);
        let kept = second
            .as_ref()
            .is_ok_and(|second| second.guard.is_attached());
        let detached = second.as_ref().map(|second| second.guard.detach());
        let other_size = load(&pins, &cgroup, &[(names::SOCKETS.into(), 2)]);
        let gone = uninstall(&pins);
        fs::remove_dir(&cgroup).expect("removing the cgroup");
        assert!(matches!(guarded, Ok(Ok(()))), "{guarded:?}");
        assert!(matches!(detached, Ok(Ok(()))), "{detached:?}");
        assert!(kept, "a guard outlives its agent");
        let (first, second) = (first.expect("first load"), second.expect("adopting"));
        assert_ne!(first.guard.id(), second.guard.id());
        let (first, second) = (first.attached, second.attached);
        assert_eq!(first.len(), ON_CGROUP.len() + ON_SOCKETS.len() + 1);
        assert!(
            first
                .iter()
                .zip(&second)
                .all(|(a, b)| a.name == b.name && a.id != b.id)
        );
        assert!(matches!(other_size, Err(LoadError::ForeignPin { .. })));
        assert!(gone.expect("uninstall"));
        assert!(!pins.path().exists());
    }
}
