//! The wires: a node's bridge, and per pod a namespace with a veth to it.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::host::{self, HostLock, NETNS_DIR};
use crate::sys;

/// The bridge's name and address: the pods' gateway.
const BRIDGE: &str = "br0";
/// The node's end of the pods' network; every lab has the same one, each in a namespace of its own.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const POD_BITS: u8 = 16;
/// Where services' addresses come from. Nothing has one, so without the mesh a connection to one
/// must fail at once, not time out.
const SERVICE_NETWORK: &str = "10.96.0.0/12";
const SERVICE_NETWORK6: &str = "fd00:10:96::/112";
const POD_BITS6: u8 = 64;

/// The IPv6 address beside an IPv4 one of the pods' or the services' network: `10.244.0.12` has
/// `fd00:10:244::c`, `10.96.0.11` has `fd00:10:96::b`. Unique locally (RFC 4193).
pub(crate) fn ipv6_beside(address: Ipv4Addr) -> Ipv6Addr {
    let [first, second, third, fourth] = address.octets();
    // As people read it: the decimal 244 becomes the hexadecimal 244.
    let digits = |octet: u8| {
        let octet = u16::from(octet);
        (octet / 100) << 8 | (octet / 10 % 10) << 4 | (octet % 10)
    };
    let host = u16::from_be_bytes([third, fourth]);
    Ipv6Addr::new(0xfd00, digits(first), digits(second), 0, 0, 0, 0, host)
}

/// Makes the node's namespace and its bridge.
pub(crate) fn add_node(netns: &str) -> Result<()> {
    host::ip_batch(&[], &format!("netns add {netns}\n"))?;
    host::ip_batch(
        &["-n", netns],
        &format!(
            "link add {BRIDGE} type bridge forward_delay 0 stp_state 0\n\
             addr add {GATEWAY}/{POD_BITS} dev {BRIDGE}\n\
             link set lo up\n\
             link set {BRIDGE} up\n"
        ),
    )?;
    // A router without a route says so, each time: nothing in a pod waits for an answer (of a name
    // server, say) that can't come.
    sysctl(netns, "net.ipv4.ip_forward", "1")?;
    sysctl(netns, "net.ipv4.icmp_ratelimit", "0")
}

/// Makes the namespace `netns` with the address `address` and the IPv6 one beside it, wired to the bridge in `node`.
pub(crate) fn add_pod(node: &str, netns: &str, address: Ipv4Addr) -> Result<()> {
    // In the node's namespace, where only this lab makes names: unique by the address.
    let [.., third, fourth] = address.octets();
    let port = format!("veth{third}.{fourth}");
    host::ip_batch(&[], &format!("netns add {netns}\n"))?;
    host::ip_batch(
        &["-n", netns],
        &format!(
            "link add eth0 type veth peer name {port} netns {node}\n\
             addr add {address}/{POD_BITS} dev eth0\n\
             addr add {beside}/{POD_BITS6} dev eth0 nodad\n\
             link set lo up\n\
             link set eth0 up\n\
             route add default via {GATEWAY}\n\
             route add unreachable {SERVICE_NETWORK}\n\
             route add unreachable {SERVICE_NETWORK6}\n",
            beside = ipv6_beside(address),
        ),
    )?;
    host::ip_batch(
        &["-n", node],
        &format!("link set {port} master {BRIDGE} up\n"),
    )
}

/// Opens the namespace `name`.
pub(crate) fn open(name: &str) -> Result<File> {
    let path = Path::new(NETNS_DIR).join(name);
    File::open(&path).with_context(|| format!("open {}", path.display()))
}

/// Runs `work` on a thread inside the namespace `name`.
pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let netns = open(name)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || -> io::Result<T> {
            sys::enter_netns(&netns)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result.with_context(|| format!("enter the namespace {name}")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sets a sysctl of the namespace `name`, `net.ipv4.tcp_fastopen` say.
pub(crate) fn sysctl(name: &str, key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    inside(name, || fs::write(&path, value))?
        .map_err(|error| anyhow!("set {key}={value} in {name}: {error}"))
}

/// Sets the default congestion control of the namespace `name`.
///
/// A namespace may choose among those that the host allows to everybody. Where `algorithm` is not
/// one of these, it is for just as long as this takes: the host is left as it was.
pub(crate) fn congestion_control(name: &str, algorithm: &str) -> Result<()> {
    const CHOICE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let choose = || -> Result<io::Result<()>> { inside(name, || fs::write(CHOICE, algorithm)) };
    let what = || format!("set {CHOICE} to {algorithm} in {name}");
    match choose()? {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let _lock = HostLock::take()?;
            let before = fs::read_to_string(ALLOWED).with_context(|| format!("read {ALLOWED}"))?;
            fs::write(ALLOWED, format!("{} {algorithm}", before.trim()))
                .with_context(|| format!("add {algorithm} to {ALLOWED}"))?;
            let chosen = choose();
            fs::write(ALLOWED, before.trim()).with_context(|| format!("restore {ALLOWED}"))?;
            chosen?.with_context(what)
        }
        result => result.with_context(what),
    }
}
