//! Services over UDP: the kernel picks an endpoint for each socket, and the socket talks to the service.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lab::duel::Puppet;
use lab::stage::DEADLINE;
use lab::{
    Agent, AgentOptions, Families, Lab, Pod, PodSpec, Process, Service, ServiceSpec, eventually,
    eventually_some,
};
use serde_json::{Value, json};

/// The service's port, and where its pods listen.
const PORT: u16 = 5300;
const LISTEN: u16 = 7300;
/// Another port, of another service over the same pods.
const OTHER_LISTEN: u16 = 7400;
/// How many sockets find every endpoint but once in 2^30 runs.
const SOCKETS: u32 = 30;
/// How long an answer may take, and how long none is waited for, in milliseconds.
const COMES: u64 = 10_000;
const COMES_NOT: u64 = 300;

struct Scene {
    agent: Agent,
    client: Puppet,
    servers: Vec<Server>,
    service: Service,
    lab: Lab,
}

struct Server {
    pod: Pod,
    _process: Process,
}

/// A socket of the client.
struct Socket<'s> {
    puppet: &'s Puppet,
    name: String,
}

impl Scene {
    /// A service over UDP with so many servers, called `a`, `b` and so on.
    fn new(name: &str, servers: usize) -> Result<Self> {
        let lab = Lab::new(name)?;
        let service = lab.service(
            ServiceSpec::new("udp")
                .families(Families::Both)
                .udp("datagrams", PORT, LISTEN)
                .port_to("tcp", PORT, LISTEN),
        )?;
        let servers = ["a", "b", "c"][..servers]
            .iter()
            .map(|name| Server::start(&lab, name))
            .collect::<Result<_>>()?;
        let client = Puppet::new(&lab.pod(PodSpec::new("client"))?)?;
        Ok(Self {
            agent: Agent::start(&lab, &AgentOptions::default())?,
            client,
            servers,
            service,
            lab,
        })
    }

    fn at(&self) -> String {
        SocketAddr::new(self.service.address.into(), PORT).to_string()
    }

    fn at6(&self) -> String {
        SocketAddr::new(self.service.address6().into(), PORT).to_string()
    }

    fn mapped(&self) -> String {
        let address = self.service.address.to_ipv6_mapped();
        SocketAddr::new(address.into(), PORT).to_string()
    }

    /// The socket family and the service's address, for each family that there is.
    fn families(&self) -> [(&'static str, String); 3] {
        [
            ("ipv4", self.at()),
            ("ipv6", self.at6()),
            ("ipv6", self.mapped()),
        ]
    }

    fn socket(&self, family: &str, name: &str) -> Result<Socket<'_>> {
        let socket = Socket {
            puppet: &self.client,
            name: name.to_owned(),
        };
        socket.call(json!({"op": "udp socket", "family": family}))?;
        Ok(socket)
    }

    /// Writes which servers are ready, and waits until the kernel knows.
    fn ready(&self, ready: &[bool]) -> Result<()> {
        let port = &self.service.spec.ports[0];
        let ends: Vec<(IpAddr, bool)> = self.servers.iter().zip(ready).map(end).collect();
        let ends6: Vec<(IpAddr, bool)> = self.servers.iter().zip(ready).map(end6).collect();
        let manifests = self.lab.manifests();
        manifests.endpoint_slice(&self.service, port, &ends)?;
        manifests.endpoint_slice(&self.service, port, &ends6)?;
        let slots = ready.iter().filter(|ready| **ready).count();
        for at in [self.at(), self.at6()] {
            let known = eventually(DEADLINE, || self.slots(&at) == Some(slots as u64));
            assert!(known, "{at}: {slots}, but {:?}", self.slots(&at));
        }
        Ok(())
    }

    fn slots(&self, at: &str) -> Option<u64> {
        let key = format!("{at}/udp");
        let entry = self.agent.meshctl_json(&["maps", "get", "frontends", &key]);
        entry.ok()?["slots"].as_u64()
    }

    fn event(&self, name: &str) -> Result<f64> {
        let metrics = self.agent.metrics()?;
        Ok(metrics.sum("zerohop_kernel_events_total", &[("event", name)]))
    }
}

fn end((server, ready): (&Server, &bool)) -> (IpAddr, bool) {
    (server.pod.address().into(), *ready)
}

fn end6((server, ready): (&Server, &bool)) -> (IpAddr, bool) {
    (server.pod.address6().into(), *ready)
}

impl Server {
    fn start(lab: &Lab, name: &str) -> Result<Self> {
        let pod = lab.pod(PodSpec::new(format!("udp-{name}")).label("app", "udp"))?;
        let listen = [LISTEN, OTHER_LISTEN].map(|port| format!("[::]:{port}"));
        let process = serve(&pod, name, &listen)?;
        Ok(Self {
            pod,
            _process: process,
        })
    }
}

fn serve(pod: &Pod, name: &str, listen: &[String]) -> Result<Process> {
    let mut words = vec!["udp-server", "--name", name];
    for listen in listen {
        words.extend(["--listen", listen]);
    }
    let mut process = pod.spawn(Pod::peer(words)?)?;
    process.wait_stdout("listens\n", DEADLINE)?;
    Ok(process)
}

impl Socket<'_> {
    fn call(&self, mut order: Value) -> Result<Value> {
        order["on"] = json!(self.name);
        self.puppet.order(order)
    }

    fn connect(&self, to: &str) -> Result<Value> {
        self.call(json!({"op": "udp connect", "to": to}))
    }

    fn send(&self, text: &str) -> Result<Value> {
        self.call(json!({"op": "udp send", "text": text}))
    }

    fn send_to(&self, to: &str, text: &str) -> Result<Value> {
        self.call(json!({"op": "udp send to", "to": to, "text": text}))
    }

    fn receive(&self) -> Result<Value> {
        self.call(json!({"op": "udp receive", "within": COMES}))
    }

    fn peer(&self) -> Result<Value> {
        Ok(self.call(json!({"op": "udp names"}))?["peer"].clone())
    }

    /// Who answers what is sent to an address, and that the answer is from there.
    fn ask(&self, to: &str, text: &str) -> Result<String> {
        let sent = self.send_to(to, text)?;
        assert_eq!(sent, json!(text.len()), "{to}");
        self.answer(to, text)
    }

    fn answer(&self, from: &str, text: &str) -> Result<String> {
        let answer = self.receive()?;
        assert_eq!(answer["from"], json!(from), "who answered {text}: {answer}");
        let said = answer["text"].as_str().context("no text")?;
        let (server, rest) = said.split_once(' ').context("no name")?;
        assert_eq!(rest, text);
        Ok(server.to_owned())
    }

    fn close(self) -> Result<()> {
        self.call(json!({"op": "close"})).map(drop)
    }
}

#[test]
fn a_connected_socket_talks_to_one_endpoint_and_sees_the_service() -> Result<()> {
    let scene = Scene::new("udp-connected", 2)?;
    for (family, at) in scene.families() {
        let mut servers = BTreeSet::new();
        for turn in 0..SOCKETS {
            let socket = scene.socket(family, "socket")?;
            assert_eq!(socket.connect(&at)?, json!("connected"), "{at}");
            assert_eq!(socket.peer()?, json!(at), "getpeername");
            assert_eq!(socket.send("one")?, json!(3));
            let first = socket.answer(&at, "one")?;
            // By name on a connected socket, as resolvers of musl do.
            let second = socket.ask(&at, "two")?;
            assert_eq!(first, second, "{turn}. socket to {at}");
            servers.insert(first);
            socket.close()?;
        }
        assert_eq!(
            servers.len(),
            2,
            "{at}: every endpoint is chosen: {servers:?}"
        );
    }
    Ok(())
}

#[test]
fn an_unconnected_socket_stays_with_its_endpoint_and_hears_the_service() -> Result<()> {
    let scene = Scene::new("udp-unconnected", 2)?;
    for (family, at) in scene.families() {
        let mut servers = BTreeSet::new();
        for _ in 0..SOCKETS {
            let socket = scene.socket(family, "socket")?;
            let first = socket.ask(&at, "one")?;
            for text in ["two", "three", "four"] {
                assert_eq!(socket.ask(&at, text)?, first, "{at}");
            }
            servers.insert(first);
            socket.close()?;
        }
        assert_eq!(
            servers.len(),
            2,
            "{at}: every endpoint is chosen: {servers:?}"
        );
    }
    assert!(scene.event("datagram_direct")? >= f64::from(3 * SOCKETS));
    Ok(())
}

#[test]
fn one_socket_talks_to_several_services_and_to_pods_and_knows_each() -> Result<()> {
    let scene = Scene::new("udp-several", 2)?;
    let other = scene
        .lab
        .service(ServiceSpec::new("other").selector(&[("app", "udp")]).udp(
            "datagrams",
            PORT,
            OTHER_LISTEN,
        ))?;
    let other = SocketAddr::new(other.address.into(), PORT).to_string();
    let known = eventually(DEADLINE, || scene.slots(&other) == Some(2));
    assert!(known, "{}", scene.agent.log());
    let (at, socket) = (scene.at(), scene.socket("ipv4", "socket")?);
    let (first, second) = (socket.ask(&at, "one")?, socket.ask(&other, "one")?);
    for _ in 0..4 {
        assert_eq!(socket.ask(&at, "two")?, first);
        assert_eq!(socket.ask(&other, "two")?, second);
    }
    // sendmmsg(2): both answers are under way at once.
    let sent = socket.call(json!({"op": "udp send several", "to": [at, other], "text": "both"}))?;
    assert_eq!(sent, json!(2));
    let mut heard = BTreeSet::new();
    for _ in 0..2 {
        let answer = socket.receive()?;
        let from = answer["from"].as_str().context("no address")?.to_owned();
        heard.insert((from, answer["text"].as_str().context("no text")?.to_owned()));
    }
    let wanted =
        [(at.clone(), first), (other, second)].map(|(from, name)| (from, format!("{name} both")));
    assert_eq!(heard, BTreeSet::from(wanted));
    // A pod's own address stays what it is.
    let stranger = scene.lab.pod(PodSpec::new("pod"))?;
    let _process = serve(&stranger, "pod", &["[::]:9000".to_owned()])?;
    let pod = SocketAddr::new(stranger.address().into(), 9000).to_string();
    assert_eq!(socket.ask(&pod, "pod")?, "pod");
    // So it does for who dials an endpoint after its service.
    socket.connect(&at)?;
    let end = SocketAddr::new(scene.servers[0].pod.address().into(), LISTEN).to_string();
    socket.connect(&end)?;
    assert_eq!(socket.peer()?, json!(end));
    assert_eq!(socket.send("three")?, json!(5));
    assert_eq!(socket.answer(&end, "three")?, "a");
    Ok(())
}

#[test]
fn more_services_than_a_socket_remembers_are_all_reached() -> Result<()> {
    const SERVICES: usize = 12;
    let scene = Scene::new("udp-many", 1)?;
    let mut services = Vec::new();
    for number in 0..SERVICES {
        let pod = scene
            .lab
            .pod(PodSpec::new(format!("many-{number}")).label("many", number.to_string()))?;
        let process = serve(&pod, &format!("many-{number}"), &[format!("[::]:{LISTEN}")])?;
        let service = scene.lab.service(
            ServiceSpec::new(format!("many-{number}"))
                .selector(&[("many", &number.to_string())])
                .udp("datagrams", PORT, LISTEN),
        )?;
        let at = SocketAddr::new(service.address.into(), PORT).to_string();
        services.push((at, process));
    }
    for (at, _) in &services {
        let known = eventually(DEADLINE, || scene.slots(at) == Some(1));
        assert!(known, "{at}: {}", scene.agent.log());
    }
    let socket = scene.socket("ipv4", "socket")?;
    for _ in 0..2 {
        for (number, (at, _)) in services.iter().enumerate() {
            assert_eq!(socket.ask(at, "hello")?, format!("many-{number}"));
        }
    }
    assert!(scene.event("datagram_forgotten")? >= 1.0);
    Ok(())
}

#[test]
fn who_is_connected_to_an_endpoint_that_goes_hears_of_it_and_others_choose_anew() -> Result<()> {
    let scene = Scene::new("udp-gone", 3)?;
    scene.ready(&[true, false, false])?;
    let families = scene.families();
    let mut sockets = Vec::new();
    for (index, (family, at)) in families.iter().enumerate() {
        let connected = scene.socket(family, &format!("connected {index}"))?;
        connected.connect(at)?;
        connected.send("one")?;
        assert_eq!(connected.answer(at, "one")?, "a");
        let unconnected = scene.socket(family, &format!("unconnected {index}"))?;
        assert_eq!(unconnected.ask(at, "one")?, "a");
        sockets.push((at, connected, unconnected));
    }
    // More endpoints are no reason to leave one's own.
    scene.ready(&[true, true, true])?;
    for (at, connected, unconnected) in &sockets {
        for _ in 0..8 {
            assert_eq!(unconnected.ask(at, "two")?, "a", "{at}");
        }
        connected.send("two")?;
        assert_eq!(connected.answer(at, "two")?, "a", "{at}");
    }
    scene.ready(&[false, true, false])?;
    for (at, connected, unconnected) in &sockets {
        let heard = connected.receive()?;
        assert_eq!(heard["error"], json!("ECONNABORTED"), "{at}: {heard}");
        assert_eq!(
            connected.send("three")?["error"],
            json!("EDESTADDRREQ"),
            "{at}"
        );
        assert_eq!(connected.connect(at)?, json!("connected"), "{at}");
        connected.send("four")?;
        assert_eq!(connected.answer(at, "four")?, "b", "{at}");
        assert_eq!(unconnected.ask(at, "three")?, "b", "{at}");
    }
    assert!(
        scene.agent.log().contains("ended UDP sockets"),
        "{}",
        scene.agent.log()
    );
    Ok(())
}

#[test]
fn without_a_ready_endpoint_a_datagram_is_refused_as_a_connect_is() -> Result<()> {
    let scene = Scene::new("udp-none", 1)?;
    scene.ready(&[false])?;
    for (family, at) in scene.families() {
        let socket = scene.socket(family, "socket")?;
        assert_eq!(
            socket.send_to(&at, "one")?["error"],
            json!("ECONNREFUSED"),
            "{at}"
        );
        assert_eq!(socket.connect(&at)?["error"], json!("ECONNREFUSED"), "{at}");
        assert_eq!(socket.peer()?, json!("ENOTCONN"), "{at}");
        socket.close()?;
    }
    assert!(scene.event("connect_no_endpoint")? >= 6.0);
    scene.ready(&[true])?;
    let socket = scene.socket("ipv4", "socket")?;
    assert_eq!(socket.ask(&scene.at(), "two")?, "a");
    Ok(())
}

#[test]
fn without_an_agent_services_over_udp_go_on() -> Result<()> {
    let mut scene = Scene::new("udp-absent", 2)?;
    let at = scene.at();
    let before = scene.socket("ipv4", "before")?;
    let first = before.ask(&at, "one")?;
    drop(before);
    scene.agent.kill()?;
    let before = Socket {
        puppet: &scene.client,
        name: "before".to_owned(),
    };
    assert_eq!(before.ask(&at, "two")?, first);
    for (family, at) in scene.families() {
        let socket = scene.socket(family, "socket")?;
        socket.ask(&at, "unconnected")?;
        socket.connect(&at)?;
        assert_eq!(socket.peer()?, json!(at));
        socket.send("connected")?;
        socket.answer(&at, "connected")?;
        socket.close()?;
    }
    // A new agent finds the old one's sockets, and what goes then is cut off.
    let socket = scene.socket("ipv4", "old")?;
    socket.connect(&at)?;
    socket.send("which")?;
    let which = socket.answer(&at, "which")?;
    drop(socket);
    scene.agent = Agent::start(&scene.lab, &AgentOptions::default())?;
    scene.ready(&[which != "a", which != "b"])?;
    let socket = Socket {
        puppet: &scene.client,
        name: "old".to_owned(),
    };
    assert_eq!(socket.receive()?["error"], json!("ECONNABORTED"));
    Ok(())
}

#[test]
fn a_name_server_that_is_a_service_is_reached_with_an_agent_and_without() -> Result<()> {
    const OUTSIDE: &str = "outside.example";
    let lab = Lab::new("udp-names")?;
    let service = lab.service(
        ServiceSpec::new("dns")
            .families(Families::Both)
            .udp("dns", 53, 53),
    )?;
    let server = lab.pod(PodSpec::new("dns").label("app", "dns"))?;
    let knows = format!("{OUTSIDE}=192.0.2.7");
    let words = ["name-server", "--listen", "[::]:53", "--knows", &knows];
    let mut serving = server.spawn(Pod::peer(words)?)?;
    server.wait_listening(&mut serving, 53)?;
    let client = lab.pod(PodSpec::new("client"))?;
    let mut agent = Agent::start(&lab, &AgentOptions::default())?;
    let addresses = [
        service.address.to_string(),
        service.address6().to_string(),
        format!("::ffff:{}", service.address),
    ];
    let ask = |name: &str| -> Result<Vec<Value>> {
        let mut answers = Vec::new();
        for address in &addresses {
            for how in ["sendto", "connected"] {
                let words = ["resolve", name, "--how", how, "--server", address];
                let report = client.run(Pod::peer(words)?, DEADLINE)?.json()?;
                let answer = report["answers"][0].clone();
                let at = SocketAddr::new(address.parse()?, 53);
                assert_eq!(answer["source"], json!(at), "{how}: {answer}");
                answers.push(answer["addresses"].clone());
            }
        }
        Ok(answers)
    };
    assert_eq!(ask(OUTSIDE)?, vec![json!(["192.0.2.7"]); 6]);
    assert_eq!(ask("dns")?, vec![json!([service.address]); 6]);
    agent.kill()?;
    assert_eq!(ask(OUTSIDE)?, vec![json!(["192.0.2.7"]); 6]);
    assert_eq!(
        ask("dns")?,
        vec![json!([]); 6],
        "its own resolver does not know it"
    );
    Ok(())
}

#[test]
fn what_is_no_service_is_left_as_it_is() -> Result<()> {
    let scene = Scene::new("udp-plain", 1)?;
    let pod = scene.lab.stranger(PodSpec::new("stranger"))?;
    let _process = serve(&pod, "stranger", &[format!("[::]:{PORT}")])?;
    let at = SocketAddr::new(pod.address().into(), PORT).to_string();
    let at6 = SocketAddr::new(pod.address6().into(), PORT).to_string();
    for (family, at) in [("ipv4", at), ("ipv6", at6)] {
        let socket = scene.socket(family, "socket")?;
        assert_eq!(socket.ask(&at, "one")?, "stranger");
        socket.connect(&at)?;
        assert_eq!(socket.peer()?, json!(at));
        socket.send("two")?;
        assert_eq!(socket.answer(&at, "two")?, "stranger");
        socket.close()?;
    }
    // The service's TCP port has its number too, but not this other one.
    let socket = scene.socket("ipv4", "socket")?;
    let none = SocketAddr::new(scene.service.address.into(), PORT + 1).to_string();
    let refused = eventually_some(DEADLINE, || {
        socket.send_to(&none, "three").ok()?;
        let heard = socket
            .call(json!({"op": "udp receive", "within": COMES_NOT}))
            .ok()?;
        heard["error"].as_str().map(str::to_owned)
    });
    assert!(refused.is_some(), "somebody answered at {none}");
    let entries = scene.agent.meshctl_json(&["maps", "dump", "exchanges"])?;
    assert_eq!(entries, json!([]), "no memory for these sockets");
    Ok(())
}
