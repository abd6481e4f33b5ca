//! One agent per node name: two would undo each other's maps.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
};

/// Another agent has the node.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent runs for node {node}: take over from it with --takeover, stop it first, or give this \
     one another --node-name ({source})"
)]
pub struct AlreadyRunning {
    node: String,
    source: io::Error,
}

/// Held while the agent runs; the kernel lets go of it however the process ends. A new agent that wants
/// the node connects to it.
#[derive(Debug)]
pub struct OnlyOne {
    name: UnixListener,
}

impl OnlyOne {
    /// Claims a node. The claim is a name in the abstract socket namespace, which leaves no file behind.
    pub fn of(bpffs: &Path, node: &str) -> Result<Self, AlreadyRunning> {
        let claim = address(bpffs, node).and_then(|name| UnixListener::bind_addr(&name));
        match claim {
            Ok(name) => Ok(Self { name }),
            Err(source) => Err(AlreadyRunning {
                node: node.to_owned(),
                source,
            }),
        }
    }

    /// The claim that another agent has given away.
    pub fn inherited(name: UnixListener) -> Self {
        Self { name }
    }

    /// The agent that has the node, if there is one.
    pub fn holder(bpffs: &Path, node: &str) -> io::Result<Option<UnixStream>> {
        match address(bpffs, node).and_then(|name| UnixStream::connect_addr(&name)) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One more descriptor of the claim.
    pub fn again(&self) -> io::Result<UnixListener> {
        self.name.try_clone()
    }
}

fn address(bpffs: &Path, node: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("zerohop/{}/{node}", bpffs.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_agent_at_a_time() {
        let node = format!("only-one-{}", std::process::id());
        let bpffs = Path::new("/sys/fs/bpf");
        let holder = || OnlyOne::holder(bpffs, &node).expect("a look");
        assert!(holder().is_none());
        let first = OnlyOne::of(bpffs, &node).expect("the first");
        assert!(holder().is_some());
        let error = OnlyOne::of(bpffs, &node)
            .expect_err("the second")
            .to_string();
        assert!(
            error.contains(&node) && error.contains("--node-name") && error.contains("--takeover"),
            "{error}"
        );
        let second = OnlyOne::inherited(first.again().expect("a descriptor"));
        drop(first);
        OnlyOne::of(bpffs, &node).expect_err("the second has it");
        drop(second);
        OnlyOne::of(bpffs, &node).expect("after the last has ended");
    }
}
