//! Bookinfo in a lab: its pods, its services, its servers.

use std::process::Command;

use anyhow::{Context, Result};

use super::PORT;
use crate::{Lab, Pod, PodSpec, Service, ServiceSpec};

/// What `lab-peer bookinfo` is told to be, per pod: name, app, version, arguments.
const PODS: [(&str, &str, &str, &[&str]); 6] = [
    ("productpage-v1", "productpage", "v1", &["productpage"]),
    ("details-v1", "details", "v1", &["details"]),
    ("reviews-v1", "reviews", "v1", &["reviews"]),
    (
        "reviews-v2",
        "reviews",
        "v2",
        &["reviews", "--stars", "black"],
    ),
    (
        "reviews-v3",
        "reviews",
        "v3",
        &["reviews", "--stars", "red"],
    ),
    ("ratings-v1", "ratings", "v1", &["ratings"]),
];

/// Bookinfo, running.
#[derive(Clone, Debug)]
pub struct Bookinfo {
    pods: Vec<Pod>,
    services: Vec<Service>,
}

impl Bookinfo {
    /// Makes Bookinfo's six pods and four services in `lab` and starts its servers.
    pub fn deploy(lab: &Lab) -> Result<Self> {
        let services = ["productpage", "details", "reviews", "ratings"]
            .into_iter()
            .map(|name| lab.service(ServiceSpec::new(name).port("http", PORT)))
            .collect::<Result<Vec<_>>>()?;
        let mut pods = Vec::new();
        for (name, app, version, _) in PODS {
            let spec = PodSpec::new(name)
                .app(app, version)
                .service_account(format!("bookinfo-{app}"));
            pods.push(lab.pod(spec)?);
        }
        let bookinfo = Self { pods, services };
        for (name, .., arguments) in PODS {
            bookinfo.start(name, arguments)?;
        }
        Ok(bookinfo)
    }

    /// The pod `name`; the version may be left out where there is one.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        let found = |pod: &&Pod| pod.name() == name || pod.name() == format!("{name}-v1");
        self.pods
            .iter()
            .find(found)
            .with_context(|| format!("Bookinfo has no pod {name}"))
    }

    /// The service `name`.
    pub fn service(&self, name: &str) -> Result<&Service> {
        self.services
            .iter()
            .find(|service| service.spec.name == name)
            .with_context(|| format!("Bookinfo has no service {name}"))
    }

    /// Its pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Replaces ratings by a server with a flaw: `--fail-first 1`, say; none at all mends it.
    pub fn flaw_ratings(&self, flaw: &[&str]) -> Result<()> {
        self.pod("ratings")?.stop_servers();
        let mut arguments = vec!["ratings"];
        arguments.extend(flaw);
        self.start("ratings-v1", &arguments)
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let port = PORT.to_string();
        let mut words = vec!["bookinfo", "--port", &port];
        words.extend(arguments);
        if arguments[0] == "reviews" {
            words.extend(["--pod", name]);
        }
        let command: Command = Pod::peer(words)?;
        self.pod(name)?.serve(command, PORT)
    }
}
