//! The folder of manifests that an agent reads: written as `kubectl` and editors do, by rename.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::net;
use crate::pod::Pod;

/// A folder of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

/// What a Kubernetes service is to be.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which pods are behind it; empty where `EndpointSlice`s say so.
    pub selector: BTreeMap<String, String>,
    /// Which of its addresses it has.
    pub families: Families,
}

/// A service's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// An IPv4 one.
    Ipv4,
    /// An IPv6 one.
    Ipv6,
    /// Both.
    Both,
}

/// A service's port.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// Its name, whose prefix is the protocol: `http`, `http2-x`, `grpc`, `tcp`.
    pub name: String,
    /// What clients dial.
    pub port: u16,
    /// Where the pods listen.
    pub target_port: u16,
    /// `TCP` or `UDP`.
    pub transport: &'static str,
}

/// A service of a [`crate::Lab`], with its address.
#[derive(Clone, Debug)]
pub struct Service {
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Its IPv4 cluster IP, where it has one.
    pub address: Ipv4Addr,
}

impl Service {
    /// Its IPv6 cluster IP, where it has one.
    pub fn address6(&self) -> Ipv6Addr {
        net::ipv6_beside(self.address)
    }

    /// Those that it has.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let (ipv4, ipv6) = (self.address.into(), self.address6().into());
        match self.spec.families {
            Families::Ipv4 => vec![ipv4],
            Families::Ipv6 => vec![ipv6],
            Families::Both => vec![ipv4, ipv6],
        }
    }
}

impl ServiceSpec {
    /// The service `name` in the namespace `default`, over the pods with the label `app: <name>`.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            namespace: "default".to_owned(),
            selector: BTreeMap::from([("app".to_owned(), name.clone())]),
            name,
            ports: Vec::new(),
            families: Families::Ipv4,
        }
    }

    /// In another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With a port whose pods listen on the same number.
    #[must_use]
    pub fn port(self, name: impl Into<String>, port: u16) -> Self {
        self.port_to(name, port, port)
    }

    /// With a port whose pods listen on `target_port`.
    #[must_use]
    pub fn port_to(mut self, name: impl Into<String>, port: u16, target_port: u16) -> Self {
        self.ports.push(ServicePort {
            name: name.into(),
            port,
            target_port,
            transport: "TCP",
        });
        self
    }

    /// With a UDP port whose pods listen on `target_port`.
    #[must_use]
    pub fn udp(mut self, name: impl Into<String>, port: u16, target_port: u16) -> Self {
        self.ports.push(ServicePort {
            name: name.into(),
            port,
            target_port,
            transport: "UDP",
        });
        self
    }

    /// With other addresses than an IPv4 one.
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Over other pods.
    #[must_use]
    pub fn selector(mut self, labels: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        self.selector = labels.iter().map(owned).collect();
        self
    }
}

impl Manifests {
    /// Makes the folder.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the file `name` (`rules.yaml`) at once, by renaming.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        // Not a manifest's ending: an agent that sees it does not read it.
        let draft = self.dir.join(format!(".{name}.draft"));
        fs::write(&draft, text).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("rename to {}", path.display()))?;
        Ok(path)
    }

    /// Writes the file `name` in place, as `echo > file` does.
    pub fn write_in_place(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Removes the file `name`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Writes the manifest of a pod that runs on `node`.
    pub fn pod(&self, node: &str, pod: &Pod) -> Result<PathBuf> {
        self.pod_in(node, pod, pod.netns())
    }

    /// Writes the manifest of a pod with another network namespace than its own: one that does not
    /// exist, say.
    pub fn pod_in(&self, node: &str, pod: &Pod, netns: &str) -> Result<PathBuf> {
        self.pod_at(node, pod, "zerohop.dev/netns", netns)
    }

    /// Writes the manifest of a pod in the node's own namespace.
    pub fn host_pod(&self, node: &str, pod: &Pod) -> Result<PathBuf> {
        let cgroup = pod.cgroup().display().to_string();
        self.pod_at(node, pod, "zerohop.dev/cgroup", &cgroup)
    }

    fn pod_at(&self, node: &str, pod: &Pod, annotation: &str, place: &str) -> Result<PathBuf> {
        let spec = pod.spec();
        let mut annotations = spec.annotations.clone();
        annotations.insert(annotation.to_owned(), place.to_owned());
        // Flow collections of JSON are YAML, and need no quoting rules of their own.
        let text = format!(
            "apiVersion: v1\n\
             kind: Pod\n\
             metadata:\n  \
               name: {}\n  \
               namespace: {}\n  \
               labels: {}\n  \
               annotations: {}\n\
             spec:\n  \
               nodeName: {}\n  \
               serviceAccountName: {}\n\
             status:\n  \
               podIP: {address}\n  \
               podIPs: [{{ip: {address}}}, {{ip: '{address6}'}}]\n",
            spec.name,
            spec.namespace,
            json!(spec.labels),
            json!(annotations),
            json!(node),
            spec.service_account,
            address = pod.address(),
            address6 = pod.address6(),
        );
        self.write(&pod_file(pod), &text)
    }

    /// Removes a pod's manifest.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        self.remove(&pod_file(pod))
    }

    /// Writes a service's manifest.
    pub fn service(&self, service: &Service) -> Result<PathBuf> {
        let spec = &service.spec;
        let mut text = format!(
            "apiVersion: v1\n\
             kind: Service\n\
             metadata:\n  \
               name: {}\n  \
               namespace: {}\n\
             spec:\n  \
               clusterIP: '{}'\n  \
               clusterIPs: {}\n",
            spec.name,
            spec.namespace,
            service.addresses()[0],
            json!(service.addresses())
        );
        if !spec.selector.is_empty() {
            let _ = writeln!(text, "  selector: {}", json!(spec.selector));
        }
        text += "  ports:\n";
        for port in &spec.ports {
            let _ = writeln!(
                text,
                "    - {{name: {}, port: {}, targetPort: {}, protocol: {}}}",
                json!(port.name),
                port.port,
                port.target_port,
                port.transport
            );
        }
        self.write(
            &format!("service-{}-{}.yaml", spec.namespace, spec.name),
            &text,
        )
    }

    /// Writes the one `EndpointSlice` of `service`'s port `port` and the addresses' family: addresses, and
    /// whether each is ready.
    pub fn endpoint_slice(
        &self,
        service: &Service,
        port: &ServicePort,
        endpoints: &[(impl Into<IpAddr> + Copy, bool)],
    ) -> Result<PathBuf> {
        let spec = &service.spec;
        let is_ipv6 = |(address, _): &(_, bool)| -> bool { IpAddr::is_ipv6(&Into::into(*address)) };
        let family = if endpoints.first().is_some_and(is_ipv6) {
            "IPv6"
        } else {
            "IPv4"
        };
        let suffix = family.to_lowercase();
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\n\
             kind: EndpointSlice\n\
             metadata:\n  \
               name: {name}-{suffix}\n  \
               namespace: {}\n  \
               labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: {family}\n\
             ports:\n  \
               - {{name: {}, port: {}, protocol: {}}}\n\
             endpoints:\n",
            spec.namespace,
            json!(port.name),
            port.target_port,
            port.transport,
            name = spec.name,
        );
        for (address, ready) in endpoints {
            let address: IpAddr = (*address).into();
            let _ = writeln!(
                text,
                "  - {{addresses: ['{address}'], conditions: {{ready: {ready}}}}}"
            );
        }
        self.write(
            &format!("endpoints-{}-{}-{suffix}.yaml", spec.namespace, spec.name),
            &text,
        )
    }
}

fn pod_file(pod: &Pod) -> String {
    format!("pod-{}-{}.yaml", pod.spec().namespace, pod.spec().name)
}
