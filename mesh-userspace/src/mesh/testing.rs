//! Objects for tests, without files: a mesh said in a few lines.

mod objects;

use std::{path::PathBuf, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

pub use self::objects::{
    destination_rule, route, service_port, subset, tcp_route, virtual_service,
};
use super::{
    model::{Snapshot, Workload},
    resolve::BuildOptions,
    route::{HttpDecision, RequestFacts, route_http},
};
use crate::config::model::{
    DestinationRule, EndpointSlice, HttpRoute, Labels, Location, Meta, Object, ObjectName, Pod,
    PodDefaults, Service, Spec, VirtualService,
};

/// Objects that grow by one with each call.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// What was said so far.
    pub objects: Vec<Arc<Object>>,
}

impl Mesh {
    /// Bookinfo: productpage, details, reviews v1 to v3, ratings, all on 9080, and subsets for each.
    pub fn bookinfo() -> Self {
        let mut mesh = Self::default();
        for (index, name) in ["productpage", "details", "reviews", "ratings"]
            .into_iter()
            .enumerate()
        {
            let address = format!("10.96.0.{}", index + 1);
            mesh = mesh.service(&format!("default/{name}"), &address, &[("http", 9080)]);
        }
        for (name, address, labels) in [
            ("productpage-v1", "10.0.0.1", "app=productpage,version=v1"),
            ("details-v1", "10.0.0.2", "app=details,version=v1"),
            ("ratings-v1", "10.0.0.3", "app=ratings,version=v1"),
            ("reviews-v1", "10.0.0.11", "app=reviews,version=v1"),
            ("reviews-v2", "10.0.0.12", "app=reviews,version=v2"),
            ("reviews-v3", "10.0.0.13", "app=reviews,version=v3"),
        ] {
            mesh = mesh.pod(&format!("default/{name}"), address, labels);
        }
        for (name, versions) in [
            ("reviews", &["v1", "v2", "v3"][..]),
            ("ratings", &["v1"][..]),
        ] {
            let mut rule = destination_rule(name);
            rule.subsets = versions
                .iter()
                .map(|version| subset(version, &format!("version={version}")))
                .collect();
            mesh = mesh.destination_rule(&format!("default/{name}"), rule);
        }
        mesh
    }

    /// What the documents of a text say, each of which must be good.
    pub fn yaml(mut self, text: &str) -> Self {
        let path = Arc::new(PathBuf::from("mesh.yaml"));
        let documents = crate::config::document::read_file(&path, text.as_bytes());
        for document in documents {
            let object = document.object;
            let object = object.unwrap_or_else(|| panic!("{:?}", document.report));
            self.objects.push(object);
        }
        self
    }

    /// A Service with the selector `app=NAME`; ports by name and number.
    pub fn service(self, name: &str, address: &str, ports: &[(&str, u16)]) -> Self {
        let app = name.split('/').next_back().unwrap_or_default().to_owned();
        let ports = ports.iter().map(|(name, port)| service_port(name, *port));
        let service = Service {
            cluster_ips: address
                .split(',')
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().expect("an address"))
                .collect(),
            headless: address.is_empty(),
            selector: Labels::from([("app".to_owned(), app)]),
            ports: ports.collect(),
            session_affinity: None,
        };
        self.object(name, Spec::Service(service))
    }

    /// A ready Pod with the account `default`.
    pub fn pod(self, name: &str, address: &str, pairs: &str) -> Self {
        self.pod_with(name, address, pairs, |_| {})
    }

    /// As [`Mesh::pod`], then changed.
    pub fn pod_with(
        mut self,
        name: &str,
        address: &str,
        pairs: &str,
        change: impl FnOnce(&mut Pod),
    ) -> Self {
        let mut pod = Pod {
            node_name: None,
            service_account: "default".to_owned(),
            addresses: address.parse().into_iter().collect(),
            ready: true,
            named_ports: [].into(),
            place: None,
            acceleration: None,
            acceleration_exclude_ports: None,
            failure_policy: None,
        };
        change(&mut pod);
        let mut meta = meta(name, self.objects.len());
        meta.labels = labels(pairs);
        self.objects.push(Arc::new(Object {
            meta,
            spec: Spec::Pod(pod),
        }));
        self
    }

    /// A Namespace.
    pub fn namespace(self, name: &str, defaults: PodDefaults) -> Self {
        self.object(&format!("/{name}"), Spec::Namespace(defaults))
    }

    /// An EndpointSlice.
    pub fn slice(self, name: &str, slice: EndpointSlice) -> Self {
        self.object(name, Spec::EndpointSlice(slice))
    }

    /// A VirtualService.
    pub fn virtual_service(self, name: &str, rule: VirtualService) -> Self {
        self.object(name, Spec::VirtualService(rule))
    }

    /// A VirtualService for `hosts` with HTTP routes.
    pub fn http(self, name: &str, hosts: &[&str], routes: Vec<HttpRoute>) -> Self {
        self.virtual_service(name, virtual_service(hosts, routes))
    }

    /// A DestinationRule.
    pub fn destination_rule(self, name: &str, rule: DestinationRule) -> Self {
        self.object(name, Spec::DestinationRule(rule))
    }

    /// Any object; its document stands in line 1 + its place.
    pub fn object(mut self, name: &str, spec: Spec) -> Self {
        let meta = meta(name, self.objects.len());
        self.objects.push(Arc::new(Object { meta, spec }));
        self
    }

    /// Gives the last object a creation time.
    pub fn created(mut self, timestamp: &str) -> Self {
        let last = self.objects.last_mut().expect("an object");
        Arc::make_mut(last).meta.creation_timestamp = Some(timestamp.to_owned());
        self
    }

    /// Resolved for the node `node`.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::build(
            &self.objects,
            &BuildOptions {
                node_name: "node".to_owned(),
                domain: "cluster.local".to_owned(),
                version: 1,
            },
        )
    }
}

/// A request to be changed and decided about.
#[derive(Debug, Clone)]
pub struct Request {
    /// `namespace/pod`.
    pub from: String,
    /// Address and port that are dialled.
    pub dialled: String,
    /// The method.
    pub method: Method,
    /// Origin form.
    pub uri: Uri,
    /// Host.
    pub authority: String,
    /// Headers.
    pub headers: HeaderMap,
}

impl Request {
    /// GET `path` of `authority` by `from`, over a connection to `dialled`.
    pub fn new(from: &str, dialled: &str, authority: &str, path: &str) -> Self {
        Self {
            from: from.to_owned(),
            dialled: dialled.to_owned(),
            method: Method::GET,
            uri: path.parse().expect("a path"),
            authority: authority.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
        self
    }

    /// Decides about it.
    pub fn decide<'s>(&self, snapshot: &'s Snapshot) -> HttpDecision<'s> {
        route_http(snapshot, &self.facts(workload(snapshot, &self.from)))
    }

    /// As the proxy sees it.
    pub fn facts<'r>(&'r self, source: &'r Workload) -> RequestFacts<'r> {
        RequestFacts {
            source,
            dialled: self.dialled.parse().expect("an address"),
            scheme: "http",
            method: &self.method,
            uri: &self.uri,
            authority: &self.authority,
            headers: &self.headers,
        }
    }
}

/// A pod by `namespace/name`.
pub fn workload<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Workload {
    snapshot.workloads.get(&object_name(name)).expect("a pod")
}

/// `namespace/name`.
pub fn object_name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    ObjectName::new(namespace, name)
}

/// `key=value,key=value`.
pub fn labels(pairs: &str) -> Labels {
    pairs
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').expect("key=value"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A line of a file that does not exist.
pub fn at(line: u32) -> Location {
    Location {
        file: Arc::new(PathBuf::from("mesh.yaml")),
        line,
    }
}

fn meta(name: &str, place: usize) -> Meta {
    Meta {
        api_version: "v1".to_owned(),
        name: object_name(name),
        labels: Labels::new(),
        annotations: Labels::new(),
        creation_timestamp: None,
        location: at(u32::try_from(place).expect("few objects") + 1),
    }
}
