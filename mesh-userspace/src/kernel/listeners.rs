//! Ports that were listened on before the programs could see it, from /proc: `listen(2)` is over, so
//! nobody will tell them any more.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use mesh_common::{caveat::EXECUTABLE, connection::listener::BLOCKS};

use super::executables;

/// A port of a network namespace, by the namespace's inode, and bits of
/// [`mesh_common::connection::listener`] and [`mesh_common::caveat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Inode of the namespace.
    pub netns: u64,
    /// The port.
    pub port: u16,
    /// What is known of the listener.
    pub bits: u32,
}

/// Listeners in these namespaces. Processes that end meanwhile are left out.
pub fn scan(namespaces: &[u64]) -> Vec<Found> {
    let mut found = Vec::new();
    // Sockets that listen, by inode, once per namespace.
    let mut listening: HashMap<u64, HashMap<u64, u16>> = HashMap::new();
    for process in processes() {
        let Ok(netns) = fs::metadata(process.join("ns/net")).map(|netns| netns.ino()) else {
            continue;
        };
        if !namespaces.contains(&netns) {
            continue;
        }
        let sockets = listening
            .entry(netns)
            .or_insert_with(|| listening_sockets(&process));
        for (port, nonblocking) in own_listeners(&process, sockets) {
            let mut bits = if nonblocking || threads(&process) == Some(1) {
                0
            } else {
                BLOCKS
            };
            if has_listed_executable(&process) {
                bits |= EXECUTABLE;
            }
            found.push(Found { netns, port, bits });
        }
    }
    found
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
}

/// Inode to port, of the process's namespace.
fn listening_sockets(process: &Path) -> HashMap<u64, u16> {
    ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(process.join(table)).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(listening_socket)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A line of /proc/net/tcp: `sl local_address rem_address st … inode …`, numbers in hexadecimal.
fn listening_socket(line: &str) -> Option<(u64, u16)> {
    const TCP_LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else {
        return None;
    };
    let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (state == TCP_LISTEN).then_some((inode.parse().ok()?, port))
}

/// Ports of the sockets that the process holds, and whether they have `O_NONBLOCK`.
fn own_listeners(process: &Path, sockets: &HashMap<u64, u16>) -> Vec<(u16, bool)> {
    let descriptors = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    descriptors
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()?;
            let port = *sockets.get(&inode)?;
            let info =
                fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).ok()?;
            Some((port, is_nonblocking(&info)?))
        })
        .collect()
}

/// `/proc/PID/fdinfo/FD` has the file's flags in octal.
fn is_nonblocking(info: &str) -> Option<bool> {
    const O_NONBLOCK: u32 = 0o4000;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(u32::from_str_radix(flags.trim(), 8).ok()? & O_NONBLOCK != 0)
}

fn has_listed_executable(process: &Path) -> bool {
    fs::read_to_string(process.join("comm"))
        .is_ok_and(|name| executables::is_listed(name.trim_end_matches('\n')))
}

fn threads(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_as_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let netns = fs::metadata("/proc/self/ns/net")
            .expect("own namespace")
            .ino();
        let of_port = || scan(&[netns]).into_iter().find(|found| found.port == port);
        // The test runner has several threads.
        assert_eq!(of_port().expect("found").bits, BLOCKS);
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        assert_eq!(of_port().expect("found").bits, 0);
        drop(listener);
        assert_eq!(of_port(), None);
    }

    #[test]
    fn the_heading_and_connections_are_no_listeners() {
        let heading =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid";
        assert_eq!(listening_socket(heading), None);
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        assert_eq!(listening_socket(line), Some((4711, 8080)));
        assert_eq!(listening_socket(&line.replace(" 0A ", " 01 ")), None);
    }
}
