//! Nothing stays: the teardown of a lab by its name alone, on drop, on a signal, and for the dead.
//!
//! A lab's id starts with the pid that made it, `<pid>-<count>-<name>`, and everything of it
//! carries that id: namespaces `zh-<id>-*`, the cgroup `zerohop-<id>`, the agent's pins below
//! `zerohop/v*/<id>`, the folder and the state file below /run/zerohop-lab. So a teardown needs no
//! object, only the id.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::{self, BPFFS, HostLock, NETNS_DIR, STATE_DIR};
use crate::poll::{eventually, eventually_some};
use crate::sys;

/// How long processes that were killed may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// What the file in a lab's folder is called that says whose it is: `pid start-time`.
const OWNER_FILE: &str = "owner";

/// The labs of this process, each with the processes outside of its cgroup (agents).
static LIVE: Mutex<BTreeMap<String, Vec<u32>>> = Mutex::new(BTreeMap::new());
/// Who is told about signals instead of the teardown.
static LISTENER: Mutex<Option<Sender<i32>>> = Mutex::new(None);

fn live() -> std::sync::MutexGuard<'static, BTreeMap<String, Vec<u32>>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name prefix of a lab's network namespaces.
pub(crate) fn netns_prefix(id: &str) -> String {
    format!("zh-{id}-")
}

/// The name of a lab's cgroup below the root.
pub(crate) fn cgroup_name(id: &str) -> String {
    format!("zerohop-{id}")
}

/// A lab's own folder.
pub(crate) fn state_dir(id: &str) -> PathBuf {
    Path::new(STATE_DIR).join(id)
}

/// The file that says how to enter a lab that is left up.
pub(crate) fn state_file(id: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{id}.json"))
}

/// Claims `id` for this process and makes its folder; from now on a signal tears it down.
pub(crate) fn register(id: &str) -> Result<()> {
    watch_signals()?;
    let dir = state_dir(id);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let pid = std::process::id();
    let start = host::start_time(pid).context("read this process's start time")?;
    fs::write(dir.join(OWNER_FILE), format!("{pid} {start}"))
        .with_context(|| format!("write {}", dir.join(OWNER_FILE).display()))?;
    live().insert(id.to_owned(), Vec::new());
    Ok(())
}

/// Adds a process that a signal's teardown must kill although it is in none of the lab's cgroups.
pub(crate) fn register_process(id: &str, pid: u32) {
    live().entry(id.to_owned()).or_default().push(pid);
}

/// Forgets a process that has ended (its pid may soon be another's).
pub(crate) fn forget_process(id: &str, pid: u32) {
    if let Some(pids) = live().get_mut(id) {
        pids.retain(|known| *known != pid);
    }
}

/// Removes everything that carries `id`, whatever of it there is.
pub(crate) fn tear_down(id: &str) -> Result<()> {
    let outside = live().remove(id).unwrap_or_default();
    for pid in outside {
        // It may have ended by itself.
        let _ = sys::kill(pid, libc::SIGKILL);
        if let Ok(pidfd) = sys::pidfd(pid) {
            let _ = sys::wait_readable(&pidfd, KILL_DEADLINE);
        }
    }
    let cgroup = host::cgroup_root()?.join(cgroup_name(id));
    let results = [
        remove_cgroup(&cgroup),
        remove_pins(id),
        remove_netns(&netns_prefix(id)),
        remove_folder(&state_dir(id)),
        remove_file(&state_file(id)),
    ];
    results.into_iter().collect()
}

/// Kills all that runs in `cgroup` and below, then removes it and what is below it.
pub(crate) fn remove_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    // Linux 5.14 and later; before that the loop below does it process by process.
    let killed = fs::write(cgroup.join("cgroup.kill"), "1").is_ok();
    let empty = eventually(KILL_DEADLINE, || {
        if !killed {
            kill_each(cgroup);
        }
        fs::read_to_string(cgroup.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
    });
    if !empty {
        bail!("processes in {} outlive SIGKILL", cgroup.display());
    }
    let mut last = None;
    eventually_some(KILL_DEADLINE, || match remove_cgroup_folders(cgroup) {
        Ok(()) => Some(()),
        Err(error) => {
            last = Some(error);
            None
        }
    })
    .with_context(|| format!("remove {}: {last:?}", cgroup.display()))
}

fn kill_each(cgroup: &Path) {
    for folder in folders_below(cgroup) {
        let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }
}

fn remove_cgroup_folders(cgroup: &Path) -> std::io::Result<()> {
    for folder in folders_below(cgroup).iter().rev() {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `top` and every folder below it, parents first.
fn folders_below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        let children = fs::read_dir(&folder).into_iter().flatten().flatten();
        found.extend(
            children
                .map(|child| child.path())
                .filter(|path| path.is_dir()),
        );
    }
    found
}

fn remove_pins(id: &str) -> Result<()> {
    pins_of(id).iter().try_for_each(|dir| remove_folder(dir))
}

/// The folders of the agents' pins that carry `id`, of any layout version.
pub fn pins_of(id: &str) -> Vec<PathBuf> {
    names_in(&Path::new(BPFFS).join("zerohop"))
        .into_iter()
        .map(|version| Path::new(BPFFS).join("zerohop").join(version).join(id))
        .filter(|dir| dir.is_dir())
        .collect()
}

fn remove_netns(prefix: &str) -> Result<()> {
    for name in names_in(Path::new(NETNS_DIR)) {
        if name.starts_with(prefix) {
            remove_one_netns(&name)?;
        }
    }
    Ok(())
}

/// Takes a namespace's name away; it ends with its last process.
pub(crate) fn remove_one_netns(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    // Not mounted where its maker died between the two steps of making it.
    let _ = sys::detach_mount(&path);
    remove_file(&path)
}

fn remove_folder(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The names in `dir`, none where it does not exist.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Removes what labs of dead processes left behind; gives their ids.
pub(crate) fn sweep(_lock: &HostLock) -> Result<Vec<String>> {
    let mut ids: Vec<String> = found_ids(&host::cgroup_root()?)
        .into_iter()
        .filter(|id| is_dead(id))
        .collect();
    ids.sort();
    ids.dedup();
    for id in &ids {
        tear_down(id)?;
    }
    Ok(ids)
}

/// Every id that something on this machine carries. A namespace's name holds the pod's too, so of
/// those only `<pid>-<count>` is taken: enough for a teardown, since no two labs share it.
fn found_ids(cgroup_root: &Path) -> Vec<String> {
    let mut ids = names_in(Path::new(STATE_DIR));
    for id in &mut ids {
        if let Some(stem) = id.strip_suffix(".json") {
            *id = stem.to_owned();
        }
    }
    let cgroups = names_in(cgroup_root).into_iter();
    ids.extend(cgroups.filter_map(|name| Some(name.strip_prefix("zerohop-")?.to_owned())));
    let pins = Path::new(BPFFS).join("zerohop");
    ids.extend(
        names_in(&pins)
            .iter()
            .flat_map(|version| names_in(&pins.join(version))),
    );
    let namespaces = names_in(Path::new(NETNS_DIR)).into_iter();
    ids.extend(namespaces.filter_map(|name| {
        let mut parts = name.strip_prefix("zh-")?.splitn(3, '-');
        Some(format!("{}-{}", parts.next()?, parts.next()?))
    }));
    ids.retain(|id| pid_of(id).is_some());
    ids
}

/// The pid in `id`; `None` where it is not a lab's id (a real node's name below bpffs, say).
fn pid_of(id: &str) -> Option<u32> {
    let mut parts = id.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u32>().ok()?;
    Some(pid)
}

fn is_dead(id: &str) -> bool {
    let Some(running) = pid_of(id).and_then(host::start_time) else {
        return pid_of(id).is_some();
    };
    let Ok(owner) = fs::read_to_string(state_dir(id).join(OWNER_FILE)) else {
        return false;
    };
    owner
        .split_whitespace()
        .nth(1)
        .and_then(|start| start.parse().ok())
        != Some(running)
}

/// From now on SIGINT and SIGTERM come out of the receiver, and tear nothing down by themselves.
pub fn take_signals() -> Result<Receiver<i32>> {
    watch_signals()?;
    let (sender, receiver) = channel();
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    Ok(receiver)
}

fn watch_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = start_watcher());
    result
}

fn start_watcher() -> Result<()> {
    let mut pipe = sys::signals_to_pipe().context("handle SIGINT and SIGTERM")?;
    std::thread::Builder::new()
        .name("lab-signals".to_owned())
        .spawn(move || {
            let mut signal = [0];
            while std::io::Read::read_exact(&mut pipe, &mut signal).is_ok() {
                let signal = i32::from(signal[0]);
                let listener = LISTENER
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                // Told once; whoever interrupts twice means it.
                if listener.is_some_and(|listener| listener.send(signal).is_ok()) {
                    continue;
                }
                tear_down_all();
                std::process::exit(128 + signal);
            }
        })
        .context("start the thread that waits for signals")?;
    Ok(())
}

/// Tears down every lab of this process.
pub fn tear_down_all() {
    let ids: Vec<String> = live().keys().cloned().collect();
    for id in ids {
        if let Err(error) = tear_down(&id) {
            eprintln!("lab {id}: {error:#}");
        }
    }
}
