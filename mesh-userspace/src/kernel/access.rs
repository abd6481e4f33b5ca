//! Who may connect to a pod, as the kernel looks it up: a set of address blocks, each with what becomes of
//! connections from it, compiled from what [`WorkloadAccess::decide`] answers.
//!
//! A connection is judged by the client's address and the server's port alone, since an identity is known
//! by its pod's address. So the answers for one address of each block, and for each port that a policy
//! names and one that none does, are all the answers there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use mesh_common::names::NameKind;

use super::ids::Ids;
use crate::{
    config::model::IpBlock,
    mesh::{
        access::{Client, Decision, WorkloadAccess},
        model::Workload,
    },
};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// It is refused.
    pub denied: bool,
    /// By whom, in the names map; 0 where it is not.
    pub policy: u32,
}

/// What becomes of connections from a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// On ports that are not named.
    pub others: Verdict,
    /// Ports that are judged otherwise.
    pub ports: BTreeMap<u16, Verdict>,
}

/// Everything that holds for a pod. The longest block that covers the client counts; one covers everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Set {
    /// By block.
    pub sources: BTreeMap<IpBlock, Source>,
}

impl Set {
    /// What becomes of a connection from `address` to `port`: as the kernel's programs find it.
    pub fn verdict(&self, address: IpAddr, port: u16) -> Verdict {
        let host = IpBlock::host(address);
        // A block sorts before those that lie in it, so the last one that covers is the longest.
        let source = self
            .sources
            .range(..=host)
            .rev()
            .find(|(block, _)| block.covers(&host))
            .map(|(_, source)| source);
        let Some(source) = source else {
            return Verdict {
                denied: true,
                policy: 0,
            };
        };
        source.ports.get(&port).copied().unwrap_or(source.others)
    }
}

/// Compiles sets; workloads that the same policies select share one.
pub struct Compiler<'w> {
    pods: BTreeMap<IpBlock, &'w Workload>,
    compiled: HashMap<*const WorkloadAccess, Arc<Set>>,
}

impl<'w> Compiler<'w> {
    /// `pods`: those that this node vouches for.
    pub fn new(pods: impl Iterator<Item = &'w Workload>) -> Self {
        let addresses = pods.flat_map(|pod| {
            pod.addresses
                .iter()
                .map(move |at| (IpBlock::host(*at), pod))
        });
        Self {
            pods: addresses.collect(),
            compiled: HashMap::new(),
        }
    }

    /// The set of a workload that is selected by `access`.
    pub fn set(&mut self, access: &Arc<WorkloadAccess>, ids: &mut Ids) -> Arc<Set> {
        let key = Arc::as_ptr(access);
        if let Some(known) = self.compiled.get(&key) {
            return Arc::clone(known);
        }
        let set = Arc::new(self.compile(access, ids));
        self.compiled.insert(key, Arc::clone(&set));
        set
    }

    fn compile(&self, access: &WorkloadAccess, ids: &mut Ids) -> Set {
        let ports: BTreeSet<u16> = access.ports().collect();
        let mut blocks: BTreeSet<IpBlock> = access.blocks().collect();
        blocks.insert(IpBlock::ALL);
        if access.asks_for_identity() {
            blocks.extend(self.pods.keys());
        }
        let unnamed = (1..=u16::MAX).find(|port| !ports.contains(port));
        let mut set = Set::default();
        // Blocks that the one at hand may lie in, the innermost last.
        let mut around: Vec<IpBlock> = Vec::new();
        for block in blocks {
            let client = Client {
                address: block,
                workload: self.pods.get(&block).copied(),
            };
            let mut judge = |port| verdict(access.decide(&client, port), ids);
            let others = unnamed.map(&mut judge).unwrap_or_default();
            let ports = ports.iter().map(|port| (*port, judge(*port)));
            let source = Source {
                others,
                ports: ports.filter(|(_, verdict)| *verdict != others).collect(),
            };
            while around.last().is_some_and(|outer| !outer.covers(&block)) {
                around.pop();
            }
            // What is judged as the block around it needs no entry of its own.
            if around.last().and_then(|outer| set.sources.get(outer)) != Some(&source) {
                set.sources.insert(block, source);
                around.push(block);
            }
        }
        set
    }
}

fn verdict(decision: Decision<'_>, ids: &mut Ids) -> Verdict {
    match decision {
        Decision::Allow(_) => Verdict::default(),
        Decision::Deny(denial) => Verdict {
            denied: true,
            policy: ids.id(NameKind::Policy, &denial.to_string()),
        },
    }
}

#[cfg(test)]
mod tests;
