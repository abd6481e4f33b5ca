//! Loads the programs, adopts what an earlier agent pinned, and attaches.
//!
//! Below `DIR/zerohop/v<LAYOUT>/<node>/`: `maps/NAME`, `links/NAME`, and `connections` and `exchanges`, the
//! pinned iterators. A new agent finds the maps as they are and puts its programs behind the links that are
//! there, so no connection ever meets a moment without them.
//!
//! | file | what it is |
//! |---|---|
//! | `pins` | where, and whether it is this version's |
//! | `on_cgroup` | programs behind links that are there, or new ones |
//! | `guard` | the one that is there only while it is needed |
//! | `layouts` | what agents with other layouts have left |

mod error;
mod guard;
mod layouts;
mod on_cgroup;
mod pins;

use std::{
    fs::{self, File},
    io, mem,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapError, MapInfo, SockHash},
    programs::{
        CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, Program, ProgramError, SkMsg, SkSkb,
        SockOps,
    },
};
use mesh_common::{names, names::programs};

use super::{btf, executables, sys, verify};

pub use self::error::LoadError;
pub(super) use self::error::classify;
pub use self::{
    guard::{Guard, GuardError},
    layouts::Leftovers,
    pins::{MAPS, PinDir, own_layout},
};

/// The programs. They carry their own licence: dual MIT/GPL.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/zerohop.o"));

/// Programs on the socket map: none redirects before its bytes and TCP's share a queue.
const ON_SOCKETS: [&str; 2] = [programs::JOIN_QUEUES, programs::REDIRECT_MESSAGE];

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

/// Maps and programs that are in the kernel, and not in force yet.
pub struct Loaded {
    ebpf: Ebpf,
    pins: PinDir,
    cgroup: PathBuf,
    /// Nothing was pinned before.
    first: bool,
}

/// What is attached.
#[derive(Debug)]
pub struct InForce {
    /// The programs that are for good.
    pub attached: Vec<Attached>,
    /// The one that is while it is needed.
    pub guard: Guard,
}

/// Loads and attaches everything: [`prepare`], then [`Loaded::attach`].
pub fn load(
    pins: &PinDir,
    cgroup: &Path,
    capacities: &[(String, u32)],
) -> Result<InForce, LoadError> {
    prepare(pins, cgroup, capacities)?.attach()
}

/// Loads everything. What was pinned before stays in force; where nothing was, and it fails, nothing is
/// left. `capacities` are of maps that are to hold other numbers of entries than they were built for.
pub fn prepare(
    pins: &PinDir,
    cgroup: &Path,
    capacities: &[(String, u32)],
) -> Result<Loaded, LoadError> {
    verify::required_helpers()?;
    let first = !pins.path().exists() && pins.others().is_empty();
    match load_all(pins, capacities) {
        Ok(ebpf) => Ok(Loaded {
            ebpf,
            pins: pins.clone(),
            cgroup: cgroup.to_owned(),
            first,
        }),
        Err(error) => {
            if first {
                // The error that is on its way says more than one about this.
                let _ = remove_folder(pins);
            }
            Err(error)
        }
    }
}

fn load_all(pins: &PinDir, capacities: &[(String, u32)]) -> Result<Ebpf, LoadError> {
    let offsets = btf::offsets().map_err(|error| LoadError::Kernel {
        what: "reading the kernel's types".into(),
        reason: error.to_string(),
    })?;
    for dir in ["maps", "links"].map(|name| pins.path().join(name)) {
        fs::create_dir_all(&dir).map_err(LoadError::file("creating", &dir))?;
    }
    pins::verify(pins, capacities)?;
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
    executables::write(&mut ebpf).map_err(|error| classify("writing the executables", &error))?;
    for name in ON_SOCKETS
        .iter()
        .chain(on_cgroup::HOOKS.iter().map(|(name, _)| name))
        .chain([
            &programs::JUDGE_SYN,
            &programs::DUMP_CONNECTIONS,
            &programs::DUMP_EXCHANGES,
        ])
    {
        load_program(&mut ebpf, name)?;
    }
    Ok(ebpf)
}

impl Loaded {
    /// Puts the programs in force: each takes the place of the one before it, atomically. Where nothing was
    /// pinned before, and it fails, nothing is left.
    pub fn attach(mut self) -> Result<InForce, LoadError> {
        self.attach_all().inspect_err(|_| {
            if self.first {
                // The error that is on its way says more than one about this.
                let _ = remove_folder(&self.pins);
            }
        })
    }

    fn attach_all(&mut self) -> Result<InForce, LoadError> {
        let mut attached = Vec::new();
        for name in ON_SOCKETS {
            attached.push(attach_to_sockets(&mut self.ebpf, name)?);
        }
        let file = File::open(&self.cgroup).map_err(LoadError::file("opening", &self.cgroup))?;
        let place = on_cgroup::Place {
            pins: &self.pins,
            cgroup: &self.cgroup,
            file: &file,
        };
        for (name, hook) in on_cgroup::HOOKS {
            let (program, id) = loaded_program(&mut self.ebpf, name)?;
            let what = format!("attaching {name} to the cgroup");
            let program = program.fd().map_err(|error| classify(&what, &error))?;
            place.attach(name, hook, program)?;
            attached.push(Attached {
                name: name.into(),
                hook: "cgroup".into(),
                id,
            });
        }
        let pins = &self.pins;
        for (name, map, pin) in [
            (
                programs::DUMP_CONNECTIONS,
                names::CONNECTIONS,
                pins.connections(),
            ),
            (programs::DUMP_EXCHANGES, names::EXCHANGES, pins.exchanges()),
        ] {
            attached.push(attach_iterator(&mut self.ebpf, name, &pins.map(map), &pin)?);
        }
        let guard = self.guard(file)?;
        Ok(InForce { attached, guard })
    }

    fn guard(&mut self, cgroup: File) -> Result<Guard, LoadError> {
        let (program, id) = loaded_program(&mut self.ebpf, programs::JUDGE_SYN)?;
        let program = program
            .fd()
            .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
            .map_err(|error| classify("attaching judge_syn to the cgroup", &error))?;
        Guard::new(program, id, &self.pins, self.cgroup.clone(), cgroup)
    }
}

/// Loads a program and hands out its descriptor and number.
pub(super) fn load_program<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<(&'a mut Program, u32), LoadError> {
    let what = format!("loading program {name}");
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Program::CgroupSkb(program) => CgroupSkb::load(program),
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        Program::CgroupSockopt(program) => CgroupSockopt::load(program),
        Program::SockOps(program) => SockOps::load(program),
        Program::SkMsg(program) => SkMsg::load(program),
        Program::SkSkb(program) => SkSkb::load(program),
        Program::Iter(program) => {
            let btf = Btf::from_sys_fs().map_err(|error| classify(&what, &error))?;
            Iter::load(program, "bpf_sk_storage_map", &btf)
        }
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| verify::refused(&what, &error))?;
    loaded_program(ebpf, name)
}

/// One that is loaded already.
fn loaded_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<(&'a mut Program, u32), LoadError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let id = program
        .info()
        .map_err(|error| classify(&format!("program {name}"), &error))?
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
    let (program, id) = loaded_program(ebpf, name)?;
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

/// Pins an iterator over a map's pin.
fn attach_iterator(
    ebpf: &mut Ebpf,
    name: &str,
    map: &Path,
    pin: &Path,
) -> Result<Attached, LoadError> {
    let what = format!("pinning the iterator {name}");
    let map = MapInfo::from_pin(map)
        .and_then(|info| info.fd())
        .map_err(|error| classify(&what, &error))?;
    let (program, id) = loaded_program(ebpf, name)?;
    let program = program.fd().map_err(|error| classify(&what, &error))?;
    let refused = |error: io::Error| classify(&what, &error);
    let link = sys::iterate_map(program.as_fd(), map.as_fd()).map_err(refused)?;
    if pin.is_file() && !sys::open_pin(pin).is_ok_and(|link| sys::is_link(link.as_fd())) {
        return Err(LoadError::ForeignPin {
            path: pin.to_owned(),
            problem: "not a link".into(),
        });
    }
    let mut fresh = pin.as_os_str().to_owned();
    fresh.push("_fresh");
    let fresh = PathBuf::from(fresh);
    on_cgroup::remove(&fresh)?;
    sys::pin(link.as_fd(), &fresh).map_err(refused)?;
    fs::rename(&fresh, pin).map_err(LoadError::file("moving", &fresh))?;
    Ok(Attached {
        name: name.into(),
        hook: "iterator".into(),
        id,
    })
}

/// Removes everything that was pinned for a node, by this layout and by others; the programs go with their
/// links. Live pairs hold the socket map and its program until they close, which loses no byte. True: there
/// was something.
pub fn uninstall(bpffs: &Path, node: &str) -> Result<bool, LoadError> {
    let folders = pins::of_node(bpffs, node);
    folders.iter().try_for_each(remove_folder)?;
    Ok(!folders.is_empty())
}

/// Removes what one layout has pinned for a node.
fn remove_folder(pins: &PinDir) -> Result<(), LoadError> {
    // Links first, connects before the rest: nothing new is decided while the rest goes.
    for (name, _) in on_cgroup::HOOKS.iter().rev() {
        on_cgroup::remove(&pins.link(name))?;
    }
    on_cgroup::remove(&pins.link(programs::JUDGE_SYN))?;
    match fs::remove_dir_all(pins.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LoadError::file("removing", pins.path())(error));
        }
        _ => {}
    }
    // The folders above are others' too: they go when they are empty.
    for dir in pins.path().ancestors().skip(1).take(2) {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
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
        let gone = uninstall(Path::new("/sys/fs/bpf"), &name);
        fs::remove_dir(&cgroup).expect("removing the cgroup");
        assert!(matches!(guarded, Ok(Ok(()))), "{guarded:?}");
        assert!(matches!(detached, Ok(Ok(()))), "{detached:?}");
        assert!(kept, "a guard outlives its agent");
        let first = first.expect("first load").attached;
        let second = second.expect("adopting").attached;
        assert_eq!(first.len(), on_cgroup::HOOKS.len() + ON_SOCKETS.len() + 2);
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
