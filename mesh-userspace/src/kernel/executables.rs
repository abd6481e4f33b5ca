//! Executables whose connections stay plain TCP: they are known to do what redirection does otherwise and
//! no program sees coming. Data; the comparison is in the kernel, at connect() and listen().

use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use mesh_common::{executable::Executable, names};

/// Process names, as /proc/PID/comm has them, with the reason.
///
/// Proxies that move bytes from socket to socket: splice(2) from a redirected socket says EAGAIN although
/// data is there, and an edge-triggered one is not woken again. Go's `io.Copy` between two TCP connections
/// does that since 1.11, HAProxy with `option splice-auto` or -request, -response.
const SPLICES: [&str; 17] = [
    "3proxy",
    "caddy",
    "chisel",
    "cloudflared",
    "frpc",
    "frps",
    "glider",
    "gost",
    "haproxy",
    "ngrok",
    "realm",
    "sing-box",
    "tailscaled",
    "toxiproxy-serve",
    "traefik",
    "v2ray",
    "xray",
];

/// Protocols that send urgent data (RFC 854, RFC 959, RFC 1282): it would arrive among the rest.
const URGENT: [&str; 9] = [
    "ftp",
    "in.ftpd",
    "in.rlogind",
    "in.telnetd",
    "proftpd",
    "pure-ftpd",
    "telnet",
    "telnetd",
    "vsftpd",
];

/// Every name on the lists.
pub fn names() -> impl Iterator<Item = &'static str> {
    SPLICES.into_iter().chain(URGENT)
}

/// Whether a process of this name is on a list.
pub fn is_listed(process: &str) -> bool {
    let process = Executable::new(process);
    names().any(|name| Executable::new(name) == process)
}

/// Makes the map the lists. To be called before the programs that look there are attached.
pub fn write(ebpf: &mut Ebpf) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut(names::EXECUTABLES) else {
        return Err(MapError::InvalidName {
            name: names::EXECUTABLES.into(),
        });
    };
    let mut map: HashMap<_, Executable, u32> = map.try_into()?;
    let known: Vec<Executable> = map.keys().filter_map(Result::ok).collect();
    for executable in known {
        if !is_listed(executable.as_str()) {
            map.remove(&executable)?;
        }
    }
    names().try_for_each(|name| map.insert(Executable::new(name), 1, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_kernel_cuts_them() {
        for name in names() {
            assert_eq!(Executable::new(name).as_str(), name, "longer than 15 bytes");
        }
    }

    #[test]
    fn a_listed_process_is_known_and_another_is_not() {
        assert!(is_listed("haproxy"));
        assert!(is_listed("toxiproxy-server-of-a-long-name") == is_listed("toxiproxy-serve"));
        assert!(!is_listed("nginx") && !is_listed(""));
    }
}
