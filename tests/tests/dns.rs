//! Names: the mesh's are answered at the socket, all else by the pod's own resolver, and no client can
//! tell that somebody stood between.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::duel::Puppet;
use lab::stage::{DEADLINE, by_server, send};
use lab::{Agent, AgentOptions, Lab, Pod, PodSpec, Process, Service, ServiceSpec, eventually_some};
use serde_json::{Value, json};

/// What the pod's own resolver knows.
const OUTSIDE: &str = "outside.example";
const OUTSIDE_ADDRESS: &str = "192.0.2.7";
/// What both know, differently: who answers shows.
const BOTH: &str = "echo.default.svc.cluster.local";
const OTHER_ADDRESS: &str = "192.0.2.8";
const NXDOMAIN: u64 = 3;
const SERVFAIL: u64 = 2;
/// The ways of asking that show more than addresses.
const WAYS: [&str; 3] = ["sendto", "connected", "tcp"];

/// A client, a service with a server, and a resolver that the mesh has nothing to do with.
struct Scene {
    agent: Agent,
    client: Pod,
    resolver: Pod,
    resolving: Process,
    service: Service,
    lab: Lab,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        Self::with(name, |_| Ok(AgentOptions::default()))
    }

    fn with(name: &str, options: impl FnOnce(&Lab) -> Result<AgentOptions>) -> Result<Self> {
        let lab = Lab::new(name)?;
        let service = lab.service(ServiceSpec::new("echo").port_to("http", 80, 8080))?;
        let server = lab.pod(PodSpec::new("echo-v1").app("echo", "v1"))?;
        server.serve(Pod::peer(["echo", "--port", "8080", "--name", "v1"])?, 8080)?;
        let client = lab.pod(PodSpec::new("client"))?;
        let resolver = lab.stranger(PodSpec::new("resolver"))?;
        let resolving = name_server(&resolver)?;
        client.resolve_by(&[resolver.address()])?;
        let agent = Agent::start(&lab, &options(&lab)?)?;
        Ok(Self {
            agent,
            client,
            resolver,
            resolving,
            service,
            lab,
        })
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        ask(&self.client, arguments)
    }

    /// Asks the pod's resolver in one of [`WAYS`].
    fn ask_by(&self, how: &str, name: &str) -> Result<Value> {
        let server = self.resolver.address().to_string();
        self.ask(&[name, "--how", how, "--server", &server])
    }

    /// Queries for a name that reached the resolver, once there are `count`.
    fn heard_until(&self, name: &str, count: usize) -> Result<Vec<Value>> {
        eventually_some(DEADLINE, || {
            Some(self.heard(name)).filter(|heard| heard.len() >= count)
        })
        .with_context(|| format!("{name}: {count} were sent, heard: {:?}", self.heard(name)))
    }

    /// Queries for a name that the resolver is known to have heard by now.
    fn heard(&self, name: &str) -> Vec<Value> {
        let lines = self.resolving.stdout();
        let lines = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &Value| line["name"] == name).collect()
    }

    fn queries(&self, outcome: &str) -> Result<f64> {
        let labels = [("outcome", outcome)];
        Ok(self
            .agent
            .metrics()?
            .sum("zerohop_dns_queries_total", &labels))
    }
}

fn name_server(pod: &Pod) -> Result<Process> {
    let outside = format!("{OUTSIDE}={OUTSIDE_ADDRESS}");
    let both = format!("{BOTH}={OTHER_ADDRESS}");
    let words = ["name-server", "--knows", &outside, "--knows", &both];
    let mut process = pod.spawn(Pod::peer(words)?)?;
    pod.wait_listening(&mut process, 53)?;
    Ok(process)
}

/// The only answer.
fn ask(pod: &Pod, arguments: &[&str]) -> Result<Value> {
    let mut answers = ask_all(pod, arguments)?;
    answers.pop().context("no answer")
}

fn ask_all(pod: &Pod, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut words = vec!["resolve"];
    words.extend(arguments);
    let report = pod.run(Pod::peer(words)?, DEADLINE)?.json()?;
    serde_json::from_value(report["answers"].clone()).context("no list of answers")
}

fn addresses(list: &[Ipv4Addr]) -> Value {
    json!(list)
}

#[test]
fn a_service_is_reached_by_each_of_its_names() -> Result<()> {
    let scene = Scene::new("dns-forms")?;
    let other = scene.lab.pod(PodSpec::new("client").namespace("other"))?;
    other.resolve_by(&[scene.resolver.address()])?;
    for name in ["echo", "echo.default", "echo.default.svc", BOTH] {
        let url = format!("http://{name}/");
        let answers = send(&scene.client, &[&url])?;
        assert_eq!(
            by_server(&answers).get("v1"),
            Some(&1),
            "{name}: {answers:?}"
        );
    }
    // The agent learns of the second client by its manifest.
    let found = eventually_some(DEADLINE, || {
        let answers = send(&other, &["http://echo.default/"]).ok()?;
        (by_server(&answers).get("v1") == Some(&1)).then_some(())
    });
    assert!(found.is_some(), "{}", scene.agent.log());
    let short = ask(&other, &["echo"])?;
    assert!(short["error"].is_string(), "not of this namespace: {short}");
    Ok(())
}

#[test]
fn the_meshs_names_are_answered_whoever_is_asked_and_however() -> Result<()> {
    let scene = Scene::new("dns-ways")?;
    let at = format!("{}:53", scene.resolver.address());
    for how in WAYS {
        for name in ["echo", BOTH] {
            let answer = scene.ask_by(how, name)?;
            assert_eq!(
                answer["addresses"],
                addresses(&[scene.service.address]),
                "{how}: {answer}"
            );
            assert_eq!(
                (&answer["code"], &answer["sameId"]),
                (&json!(0), &json!(true)),
                "{how}"
            );
            if how != "tcp" {
                assert_eq!(answer["source"], json!(at), "{how}: who answered: {answer}");
            }
            if how != "sendto" {
                assert_eq!(answer["peer"], json!(at), "{how}: getpeername: {answer}");
                assert_eq!(
                    answer["local"],
                    json!(scene.client.address()),
                    "{how}: {answer}"
                );
            }
        }
        let server = scene.resolver.address().to_string();
        let none = scene.ask(&["echo", "--how", how, "--server", &server, "--aaaa"])?;
        assert_eq!(
            (&none["code"], &none["addresses"]),
            (&json!(0), &json!([])),
            "{how}: {none}"
        );
    }
    // Nobody listens there: the name needs nobody.
    let nobody = scene.ask(&["echo", "--how", "sendto", "--server", "203.0.113.9"])?;
    assert_eq!(
        nobody["addresses"],
        addresses(&[scene.service.address]),
        "{nobody}"
    );
    assert!(scene.heard("echo").is_empty() && scene.heard(BOTH).is_empty());
    assert!(scene.queries("answered")? >= 10.0);
    assert!(scene.queries("failed")? < 0.5);
    Ok(())
}

#[test]
fn name_servers_on_ipv6_and_ipv6_sockets_that_ask_ipv4_ones_are_no_way_around() -> Result<()> {
    let mut scene = Scene::new("dns-ipv6")?;
    let resolver = scene.lab.stranger(PodSpec::new("resolver6"))?;
    let both = format!("{BOTH}={OTHER_ADDRESS}");
    let words = ["name-server", "--listen", "[::]:53", "--knows", &both];
    let mut resolving = resolver.spawn(Pod::peer(words)?)?;
    resolver.wait_listening(&mut resolving, 53)?;
    let client = &scene.client;
    let servers = [
        (
            IpAddr::from(resolver.address6()),
            IpAddr::from(client.address6()),
        ),
        (
            resolver.address().to_ipv6_mapped().into(),
            client.address().to_ipv6_mapped().into(),
        ),
    ];
    let ask = |server: IpAddr, how: &str, name: &str| -> Result<Value> {
        ask(
            client,
            &[name, "--how", how, "--server", &server.to_string()],
        )
    };
    for (server, own) in servers {
        let at = json!(SocketAddr::new(server, 53));
        for how in WAYS {
            let answer = ask(server, how, BOTH)?;
            let what = format!("{how} to {server}: {answer}");
            assert_eq!(
                answer["addresses"],
                addresses(&[scene.service.address]),
                "{what}"
            );
            let outside = ask(server, how, "nowhere.example")?;
            assert_eq!(
                outside["code"],
                json!(NXDOMAIN),
                "{how} to {server}: {outside}"
            );
            if how != "tcp" {
                assert_eq!(answer["source"], at, "{what}");
            }
            if how != "sendto" {
                assert_eq!(answer["peer"], at, "getpeername: {what}");
                assert_eq!(answer["local"], json!(own), "{what}");
            }
        }
    }
    scene.agent.kill()?;
    for (server, _) in servers {
        for how in WAYS {
            let answer = ask(server, how, BOTH)?;
            assert_eq!(
                answer["addresses"],
                json!([OTHER_ADDRESS]),
                "{how} to {server}: {answer}"
            );
        }
    }
    Ok(())
}

#[test]
fn connections_for_names_are_not_among_the_meshs() -> Result<()> {
    let scene = Scene::new("dns-unseen")?;
    let puppet = Puppet::new(&scene.client)?;
    let to = format!("{}:53", scene.resolver.address());
    // With something that is remembered of the socket before it connects.
    let options = json!([[libc::SOL_SOCKET, libc::SO_RCVLOWAT, 2]]);
    puppet.order(json!({"op": "connect", "on": "socket", "to": to, "options": options}))?;
    let names = puppet.order(json!({"op": "names", "on": "socket"}))?;
    assert_eq!(names["peer"], json!(to));
    assert_eq!(scene.agent.connections()?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn other_names_reach_the_pods_own_resolver_and_no_byte_is_changed() -> Result<()> {
    let scene = Scene::new("dns-outside")?;
    let library = scene.ask(&[&format!("{OUTSIDE}.")])?;
    assert_eq!(library["addresses"], json!([OUTSIDE_ADDRESS]), "{library}");
    // A and AAAA.
    scene.heard_until(OUTSIDE, 2)?;
    let before = scene.queries("forwarded")?;
    for how in WAYS {
        let server = scene.resolver.address().to_string();
        for (name, code) in [(OUTSIDE, 0), ("nowhere.example", NXDOMAIN)] {
            let earlier = scene.heard(name).len();
            let answer = scene.ask(&[name, "--how", how, "--server", &server, "--edns"])?;
            assert_eq!(answer["code"], json!(code), "{how}: {answer}");
            let heard = scene.heard_until(name, earlier + 1)?.split_off(earlier);
            let [heard] = heard.as_slice() else {
                panic!("{how}: {name} was heard as {heard:?}");
            };
            assert_eq!(heard["query"], answer["query"], "{how}");
            assert_eq!(heard["answer"], answer["answer"], "{how}");
            assert_eq!(heard["client"], json!(scene.client.address()), "{how}");
            assert_eq!(
                heard["over"],
                json!(if how == "tcp" { "tcp" } else { "udp" })
            );
        }
    }
    assert!((scene.queries("forwarded")? - before - 6.0).abs() < 0.5);
    Ok(())
}

#[test]
fn one_socket_that_asks_several_knows_who_answered() -> Result<()> {
    let scene = Scene::new("dns-several")?;
    let second = scene.lab.stranger(PodSpec::new("second"))?;
    let _second = name_server(&second)?;
    let servers = [scene.resolver.address(), second.address()].map(|server| server.to_string());
    for name in [OUTSIDE, "echo"] {
        let answers = ask_all(
            &scene.client,
            &[
                name,
                "--how",
                "sendto",
                "--server",
                &servers[0],
                "--server",
                &servers[1],
            ],
        )?;
        for (server, answer) in servers.iter().zip(&answers) {
            assert_eq!(
                answer["source"],
                json!(format!("{server}:53")),
                "{answers:?}"
            );
            assert_eq!(answer["code"], json!(0), "{answers:?}");
        }
    }
    Ok(())
}

#[test]
fn a_fifth_name_server_of_a_pod_is_left_alone() -> Result<()> {
    let scene = Scene::new("dns-fifth")?;
    for last in 1..=4 {
        let server = format!("203.0.113.{last}");
        let answer = scene.ask(&["echo", "--how", "sendto", "--server", &server])?;
        assert_eq!(
            answer["addresses"],
            addresses(&[scene.service.address]),
            "{answer}"
        );
    }
    for how in WAYS {
        let answer = scene.ask_by(how, BOTH)?;
        assert_eq!(
            answer["addresses"],
            json!([OTHER_ADDRESS]),
            "{how}: {answer}"
        );
    }
    Ok(())
}

#[test]
fn a_resolver_that_is_not_there_fails_at_once() -> Result<()> {
    let scene = Scene::new("dns-refused")?;
    // A pod without a resolver: connection refused.
    let server = scene.lab.pods()[0].address().to_string();
    for how in WAYS {
        let answer = scene.ask(&[OUTSIDE, "--how", how, "--server", &server])?;
        assert_eq!(answer["code"], json!(SERVFAIL), "{how}: {answer}");
    }
    assert!((scene.queries("failed")? - 3.0).abs() < 0.5);
    Ok(())
}

#[test]
fn without_an_agent_the_pods_own_resolver_answers_and_with_a_new_one_the_mesh() -> Result<()> {
    let mut scene = Scene::new("dns-absent")?;
    scene.agent.kill()?;
    // At once: not when the heartbeat is stale.
    for how in WAYS {
        let answer = scene.ask_by(how, BOTH)?;
        assert_eq!(
            answer["addresses"],
            json!([OTHER_ADDRESS]),
            "{how}: {answer}"
        );
    }
    scene.agent = Agent::start(&scene.lab, &AgentOptions::default())?;
    for how in WAYS {
        let answer = scene.ask_by(how, BOTH)?;
        assert_eq!(
            answer["addresses"],
            addresses(&[scene.service.address]),
            "{how}: {answer}"
        );
    }
    scene.agent.stop()?;
    for how in WAYS {
        let answer = scene.ask_by(how, BOTH)?;
        assert_eq!(
            answer["addresses"],
            json!([OTHER_ADDRESS]),
            "{how}: {answer}"
        );
    }
    scene.agent.uninstall()?;
    let answer = scene.ask_by("sendto", BOTH)?;
    assert_eq!(answer["addresses"], json!([OTHER_ADDRESS]), "{answer}");
    Ok(())
}

#[test]
fn an_agent_that_hangs_is_as_good_as_none() -> Result<()> {
    let scene = Scene::new("dns-hangs")?;
    // SAFETY: sends a signal to a process that this test started and that has not ended.
    let signal = |signal| unsafe { libc::kill(scene.agent.id().cast_signed(), signal) };
    assert_eq!(signal(libc::SIGSTOP), 0);
    let found = eventually_some(DEADLINE, || {
        let server = scene.resolver.address().to_string();
        let short = [
            "--how",
            "sendto",
            "--timeout-ms",
            "500",
            "--server",
            &server,
        ];
        let answer = scene.ask(&[&[BOTH][..], &short[..]].concat()).ok()?;
        (answer["addresses"] == json!([OTHER_ADDRESS])).then_some(())
    });
    assert_eq!(signal(libc::SIGCONT), 0);
    assert!(
        found.is_some(),
        "queries still wait for an agent that hangs"
    );
    Ok(())
}

#[test]
fn switched_off_it_leaves_names_alone() -> Result<()> {
    let scene = Scene::with("dns-off", |_| {
        Ok(AgentOptions::default().argument("--dns=off"))
    })?;
    for how in WAYS {
        let answer = scene.ask_by(how, BOTH)?;
        assert_eq!(
            answer["addresses"],
            json!([OTHER_ADDRESS]),
            "{how}: {answer}"
        );
    }
    assert_eq!(scene.agent.meshctl_json(&["status"])?["dns"], json!(false));
    Ok(())
}

#[test]
fn the_agents_own_queries_are_not_caught() -> Result<()> {
    // The agent's process in the cgroup that the programs see.
    let scene = Scene::with("dns-inside", |lab| {
        let cgroup = lab.cgroup().join("agent");
        std::fs::create_dir(&cgroup)?;
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
        let under = ["sh", "-c", &join, "sh"].map(str::to_owned).to_vec();
        Ok(AgentOptions {
            under,
            ..AgentOptions::default()
        })
    })?;
    for how in WAYS {
        let answer = scene.ask_by(how, OUTSIDE)?;
        assert_eq!(
            answer["addresses"],
            json!([OUTSIDE_ADDRESS]),
            "{how}: {answer}"
        );
        let answer = scene.ask_by(how, "echo")?;
        assert_eq!(
            answer["addresses"],
            addresses(&[scene.service.address]),
            "{how}: {answer}"
        );
    }
    assert_eq!(scene.heard_until(OUTSIDE, WAYS.len())?.len(), WAYS.len());
    Ok(())
}

#[test]
fn a_headless_service_is_its_ready_pods() -> Result<()> {
    let scene = Scene::new("dns-headless")?;
    scene.lab.manifests().write(
        "headless.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: db}\n\
         spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}]}\n",
    )?;
    let mut pods = Vec::new();
    for name in ["db-0", "db-1"] {
        pods.push(
            scene
                .lab
                .pod(PodSpec::new(name).label("app", "db"))?
                .address(),
        );
    }
    let found = eventually_some(DEADLINE, || {
        let answer = scene.ask(&["db"]).ok()?;
        (answer["addresses"] == addresses(&pods)).then_some(())
    });
    assert!(
        found.is_some(),
        "{:?}\n{}",
        scene.ask(&["db"]),
        scene.agent.log()
    );
    Ok(())
}

#[test]
fn a_resolver_behind_a_service_is_found_by_the_agent() -> Result<()> {
    let scene = Scene::new("dns-service")?;
    let dns = scene
        .lab
        .service(ServiceSpec::new("kube-dns").port("dns-tcp", 53))?;
    let inside = scene
        .lab
        .pod(PodSpec::new("kube-dns-0").label("app", "kube-dns"))?;
    let _inside = name_server(&inside)?;
    let server = dns.address.to_string();
    for how in WAYS {
        let found = eventually_some(DEADLINE, || {
            let answer = scene
                .ask(&[OUTSIDE, "--how", how, "--server", &server])
                .ok()?;
            (answer["addresses"] == json!([OUTSIDE_ADDRESS])).then_some(answer)
        });
        let answer = found.with_context(|| format!("{how}: no answer\n{}", scene.agent.log()))?;
        if how == "sendto" {
            assert_eq!(answer["source"], json!(format!("{server}:53")), "{answer}");
        }
    }
    Ok(())
}

#[test]
fn a_pod_that_is_not_enrolled_asks_whom_it_asks() -> Result<()> {
    let scene = Scene::new("dns-stranger")?;
    let stranger = scene.lab.stranger(PodSpec::new("stranger"))?;
    let server = scene.resolver.address().to_string();
    for how in WAYS {
        let answer = ask(&stranger, &[BOTH, "--how", how, "--server", &server])?;
        assert_eq!(
            answer["addresses"],
            json!([OTHER_ADDRESS]),
            "{how}: {answer}"
        );
    }
    Ok(())
}

#[test]
fn nobody_outside_of_a_pod_reaches_its_listeners() -> Result<()> {
    let scene = Scene::new("dns-walls")?;
    let status = scene.agent.meshctl_json(&["status"])?;
    let client = status["pods"]
        .as_array()
        .and_then(|pods| pods.iter().find(|pod| pod["name"] == "default/client"))
        .context("the client is not enrolled")?;
    let listener: std::net::SocketAddr = client["dns"].as_str().context("no listener")?.parse()?;
    assert!(listener.ip().is_loopback());
    let at = (scene.client.address(), listener.port());
    let refused = scene
        .resolver
        .enter(|| std::net::TcpStream::connect_timeout(&at.into(), Duration::from_secs(10)))?;
    let error = refused.err().context("somebody outside was let in")?;
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}
