//! What most scenarios play on: a client, versions of an echo server, an agent between them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Agent, AgentOptions, Lab, Pod, PodSpec, Service, ServiceSpec, poll};

/// How long something that is on its way may take; far longer than it does.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The subsets `v1`, `v2` and `v3` of the service echo.
pub const SUBSETS: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo}
spec:
  host: echo
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
    - {name: v3, labels: {version: v3}}
";

/// A lab with a client, a service and its pods, and an agent.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: the agent stops before its node goes.
    /// The agent.
    pub agent: Agent,
    /// Who asks.
    pub client: Pod,
    /// Who answers: `echo-v1` and so on.
    pub servers: Vec<Pod>,
    /// The service before them. Ports: 80 `http`, 82 `http2`, 83 without a protocol, all to the HTTP
    /// server on 8080; 7000 `tcp` and 7001 without a protocol, to 7000 and 7001.
    pub service: Service,
    /// The node.
    pub lab: Lab,
}

impl Stage {
    /// A stage with an echo server per version and an agent that is ready.
    pub fn new(name: &str, versions: &[&str]) -> Result<Self> {
        Self::ruled(name, versions, "")
    }

    /// As [`Stage::new`], with rules from the start.
    pub fn ruled(name: &str, versions: &[&str], rules: &str) -> Result<Self> {
        Self::with(name, versions, rules, &AgentOptions::default())
    }

    /// As [`Stage::ruled`], with an agent to order.
    pub fn with(
        name: &str,
        versions: &[&str],
        rules: &str,
        options: &AgentOptions,
    ) -> Result<Self> {
        let lab = Lab::new(name)?;
        let service = lab.service(
            ServiceSpec::new("echo")
                .port_to("http", 80, 8080)
                .port_to("http2", 82, 8080)
                .port_to("any", 83, 8080)
                .port("tcp", 7000)
                .port("mystery", 7001),
        )?;
        let client = lab.pod(PodSpec::new("client").app("client", "v1"))?;
        let mut servers = Vec::new();
        for version in versions {
            let name = format!("echo-{version}");
            let pod = lab.pod(PodSpec::new(&name).app("echo", version))?;
            pod.serve(
                Pod::peer(["echo", "--port", "8080", "--name", version])?,
                8080,
            )?;
            servers.push(pod);
        }
        if !rules.is_empty() {
            lab.manifests().write("rules.yaml", rules)?;
        }
        Ok(Self {
            agent: Agent::start(&lab, options)?,
            client,
            servers,
            service,
            lab,
        })
    }

    /// Replaces the rules.
    pub fn rules(&self, text: &str) -> Result<()> {
        self.lab.manifests().write("rules.yaml", text).map(drop)
    }

    /// Sends requests from the client with `lab-peer http`: the answers, in the order of the requests.
    pub fn send(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        send(&self.client, arguments)
    }

    /// As [`Stage::send`], for one request.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        self.send(arguments)?.pop().context("no answer")
    }

    /// Asks again until the answer is as wanted: a rule that was just written is in effect then.
    pub fn ask_until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Ok(Value::Null);
        poll::eventually_some(DEADLINE, || {
            last = self.ask(arguments);
            last.as_ref().ok().filter(|answer| wanted(answer)).cloned()
        })
        .with_context(|| format!("{arguments:?} never was answered as wanted, but: {last:?}"))
    }

    /// Polls the agent's metrics until the samples of `name` with `labels` add up to `value`. Of
    /// Istio's metrics those that the client's side reports.
    pub fn metric_until(&self, name: &str, labels: &[(&str, &str)], value: f64) -> Result<()> {
        let mut labels = labels.to_vec();
        if name.starts_with("istio_") {
            labels.push(("reporter", "source"));
        }
        let mut last = 0.0;
        poll::eventually(DEADLINE, || {
            last = self
                .agent
                .metrics()
                .map_or(f64::NAN, |metrics| metrics.sum(name, &labels));
            (last - value).abs() < 0.5
        })
        .then_some(())
        .with_context(|| format!("{name}{labels:?} never was {value}, but {last}"))
    }
}

/// Sends requests from `pod` with `lab-peer http`: the answers, in the order of the requests.
pub fn send(pod: &Pod, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut words = vec!["http"];
    words.extend(arguments);
    let report = pod.run(Pod::peer(words)?, DEADLINE * 2)?.json()?;
    serde_json::from_value(report["responses"].clone()).context("no list of answers")
}

/// How many answers came from which server; those without one by their status or error.
pub fn by_server(answers: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(server_of(answer)).or_default() += 1;
    }
    counts
}

/// Which server gave this answer; its status or error where none did.
pub fn server_of(answer: &Value) -> String {
    let name = &answer["body"]["server"];
    match (name, &answer["error"], &answer["status"]) {
        (Value::String(name), ..) => name.clone(),
        (_, Value::String(error), _) => error.clone(),
        (.., status) => status.to_string(),
    }
}

/// The value of the header `name` in a list of pairs, as the reports have them.
pub fn header<'a>(pairs: &'a Value, name: &str) -> Option<&'a str> {
    let pairs = pairs.as_array()?;
    pairs.iter().find(|pair| pair[0] == name)?[1].as_str()
}
