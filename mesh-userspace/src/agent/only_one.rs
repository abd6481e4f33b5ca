//! One agent per node name: two would undo each other's maps.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
};

/// Another agent has the node.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent runs for node {node}: stop it first, or give this one another --node-name ({source})"
)]
pub struct AlreadyRunning {
    node: String,
    source: io::Error,
}

/// Held while the agent runs; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct OnlyOne {
    _name: UnixListener,
}

impl OnlyOne {
    /// Claims a node. The claim is a name in the abstract socket namespace, which leaves no file behind.
    pub fn of(bpffs: &Path, node: &str) -> Result<Self, AlreadyRunning> {
        let name = format!("zerohop/{}/{node}", bpffs.display());
        let claim =
            SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
        match claim {
            Ok(listener) => Ok(Self { _name: listener }),
            Err(source) => Err(AlreadyRunning {
                node: node.to_owned(),
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_agent_at_a_time() {
        let node = format!("only-one-{}", std::process::id());
        let bpffs = Path::new("/sys/fs/bpf");
        let first = OnlyOne::of(bpffs, &node).expect("the first");
        let error = OnlyOne::of(bpffs, &node)
            .expect_err("the second")
            .to_string();
        assert!(
            error.contains(&node) && error.contains("--node-name"),
            "{error}"
        );
        drop(first);
        OnlyOne::of(bpffs, &node).expect("after the first has ended");
    }
}
