//! Who may connect: refused at connect, at the SYN, by the agent, and in the middle of a stream.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS, server_of};
use lab::{Agent, AgentOptions, Pod, PodSpec, Process, Stage, eventually};
use serde_json::Value;

/// What connect() says where a policy refuses it.
const REFUSED: &str = "Operation not permitted";

fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn authorization(name: &str, spec: &str) -> String {
    policy("AuthorizationPolicy", name, spec)
}

fn deny_all() -> String {
    authorization(
        "deny",
        "{action: DENY, selector: {matchLabels: {app: echo}}, rules: [{}]}",
    )
}

/// One request from `pod`: the server's name, or the error.
fn ask(pod: &Pod, url: &str) -> Result<String> {
    let answers = lab::stage::send(pod, &["--timeout-ms", "1500", url])?;
    Ok(server_of(answers.first().context("no answer")?))
}

fn ask_until(pod: &Pod, url: &str, wanted: &str) -> Result<()> {
    let mut last = String::new();
    eventually(DEADLINE, || {
        last = ask(pod, url).unwrap_or_else(|error| format!("{error:#}"));
        last.contains(wanted)
    })
    .then_some(())
    .with_context(|| format!("{url} from {pod} never was {wanted:?}, but {last:?}"))
}

/// Connections that the pod's kernel ever accepted.
fn accepted(pod: &Pod) -> Result<u64> {
    let text = pod.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).context("no Tcp in /proc/net/snmp")?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both
        .find(|(name, _)| *name == "PassiveOpens")
        .context("no PassiveOpens")?;
    Ok(value.parse()?)
}

fn at(pod: &Pod) -> String {
    format!("http://{}:8080/", pod.address())
}

#[test]
fn a_local_client_is_refused_at_connect_before_the_server_sees_anything() -> Result<()> {
    let stage = Stage::ruled("deny-connect", &["v1"], &deny_all())?;
    let before = accepted(&stage.servers[0])?;
    // By the service and by the pod's own address.
    assert!(ask(&stage.client, "http://echo/")?.contains(REFUSED));
    assert!(ask(&stage.client, &at(&stage.servers[0]))?.contains(REFUSED));
    assert_eq!(accepted(&stage.servers[0])?, before);
    let answer = stage.agent.explain("default/client", &[], "http://echo/")?;
    assert_eq!(
        (&answer["way"], &answer["action"]),
        (&"deny".into(), &"denied".into())
    );
    assert_eq!(answer["authorization"]["policy"], "default/deny");
    stage.metric_until(
        "zerohop_denied_connections_total",
        &[
            ("source", "default/client"),
            ("destination", "default/echo-v1"),
            ("policy", "AuthorizationPolicy default/deny"),
            ("place", "connect"),
        ],
        2.0,
    )?;
    let dump = stage.agent.get_json("/config_dump")?;
    assert_eq!(
        dump["policies"][0]["workloads"][0], "default/echo-v1",
        "{dump:#}"
    );
    // The server's own connections are nobody's business but its own.
    assert_eq!(ask(&stage.servers[0], &at(&stage.servers[0]))?, "v1");
    assert_eq!(ask(&stage.servers[0], "http://127.0.0.1:8080/")?, "v1");
    Ok(())
}

#[test]
fn a_client_outside_of_the_mesh_is_refused_at_its_syn() -> Result<()> {
    let allow = "{rules: [{from: [{source: {namespaces: [default]}}]}]}";
    let stage = Stage::ruled("deny-syn", &["v1"], &authorization("mesh-only", allow))?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let server = &stage.servers[0];
    let before = accepted(server)?;
    let url = at(server);
    assert_eq!(ask(&stage.client, &url)?, "v1");
    let answer = ask(&stranger, &url)?;
    assert_ne!(answer, "v1");
    assert_eq!(accepted(server)?, before + 1, "{answer}");
    let labels = [
        ("source", "unknown"),
        ("destination", "default/echo-v1"),
        ("place", "syn"),
    ];
    let denied = stage
        .agent
        .metrics()?
        .sum("zerohop_denied_connections_total", &labels);
    assert!(denied >= 1.0, "{denied}");
    // Once its address is on the list it gets in.
    let rules = authorization(
        "mesh-only",
        &format!(
            "{{rules: [{{from: [{{source: {{ipBlocks: [{}/32]}}}}], to: [{{operation: {{ports: ['8080']}}}}]}}]}}",
            stranger.address()
        ),
    );
    stage.lab.manifests().write("rules.yaml", &rules)?;
    ask_until(&stranger, &url, "v1")?;
    ask_until(&stage.client, &url, REFUSED)?;
    stage.lab.manifests().remove("rules.yaml")?;
    ask_until(&stage.client, &url, "v1")
}

#[test]
fn strict_lets_in_whom_the_node_vouches_for() -> Result<()> {
    let strict = policy(
        "PeerAuthentication",
        "strict",
        "{selector: {matchLabels: {app: echo}}, mtls: {mode: STRICT}, portLevelMtls: {7000: {mode: PERMISSIVE}}}",
    );
    let stage = Stage::ruled("strict", &["v1"], &strict)?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let url = at(&stage.servers[0]);
    assert_eq!(ask(&stage.client, &url)?, "v1");
    assert_eq!(ask(&stage.client, "http://echo/")?, "v1");
    assert_ne!(ask(&stranger, &url)?, "v1");
    // The port that may be spoken to in plaintext: nothing listens there, and that is the answer.
    let open = format!("http://{}:7000/", stage.servers[0].address());
    assert!(ask(&stranger, &open)?.contains("refused"));
    Ok(())
}

#[test]
fn what_goes_by_the_agent_is_judged_by_the_same_policies() -> Result<()> {
    let by_agent = format!(
        "{SUBSETS}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    );
    let stage = Stage::ruled("deny-agent", &["v1"], &by_agent)?;
    assert_eq!(ask(&stage.client, "http://echo/")?, "v1");
    stage.lab.manifests().write("deny.yaml", &deny_all())?;
    ask_until(&stage.client, "http://echo/", "403")?;
    let answer = stage.agent.explain("default/client", &[], "http://echo/")?;
    assert_eq!(
        (&answer["way"], &answer["status"]),
        (&"agent".into(), &403.into())
    );
    stage.lab.manifests().remove("deny.yaml")?;
    ask_until(&stage.client, "http://echo/", "v1")
}

/// A load that goes on until its input ends, one line per answer.
fn load(stage: &Stage, url: &str) -> Result<Process> {
    let words = [
        "http",
        "-c",
        "2",
        "--until-eof",
        "--timeout-ms",
        "3000",
        url,
    ];
    stage.client.spawn(Pod::peer(words)?)
}

fn lines(load: &Process) -> Vec<Value> {
    let text = load.stdout();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn until(load: &Process, wanted: impl Fn(&[Value]) -> bool) -> Result<()> {
    eventually(DEADLINE, || wanted(&lines(load)))
        .then_some(())
        .with_context(|| format!("{:?}", lines(load).last()))
}

fn good_since(lines: &[Value], since: usize) -> usize {
    lines
        .iter()
        .skip(since)
        .filter(|line| server_of(line) == "v1")
        .count()
}

#[test]
fn a_policy_that_comes_later_cuts_accelerated_connections_and_goes_again() -> Result<()> {
    let stage = Stage::new("deny-cut", &["v1"])?;
    let load = load(&stage, "http://echo/")?;
    until(&load, |lines| good_since(lines, 0) > 100)?;
    let mut rows = Vec::new();
    let accelerated = eventually(DEADLINE, || {
        rows = stage.agent.connections().unwrap_or_default();
        rows.iter().filter(|row| row["accelerated"] == true).count() == 2
    });
    assert!(accelerated, "{rows:#?}");
    stage.lab.manifests().write("deny.yaml", &deny_all())?;
    // The streams that were open are cut, and no new one is made.
    until(&load, |lines| {
        lines.iter().any(|line| server_of(line).contains(REFUSED))
    })?;
    let gone = eventually(DEADLINE, || {
        rows = stage.agent.connections().unwrap_or_default();
        rows.is_empty()
    });
    assert!(gone, "{rows:#?}");
    let since = lines(&load).len();
    until(&load, |lines| lines.len() > since + 20)?;
    assert_eq!(good_since(&lines(&load), since), 0);
    stage.lab.manifests().remove("deny.yaml")?;
    let since = lines(&load).len();
    until(&load, |lines| good_since(lines, since) > 100)
}

#[test]
fn a_connection_from_outside_that_is_open_is_cut_too_and_others_are_not() -> Result<()> {
    let stage = Stage::new("deny-cut-out", &["v1"])?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let server = &stage.servers[0];
    let serve = [
        "stream-server",
        "--listen",
        "0.0.0.0:7000",
        "-n",
        "2",
        "--hold",
    ];
    let mut serving = server.spawn(Pod::peer(serve)?)?;
    server.wait_listening(&mut serving, 7000)?;
    let to = format!("{}:7000", server.address());
    let hold = |pod: &Pod| -> Result<Process> {
        let mut process = pod.spawn(Pod::peer([
            "stream-client",
            &to,
            "--hold",
            "--bytes",
            "1000",
        ])?)?;
        process.wait_stdout("\n", DEADLINE)?;
        Ok(process)
    };
    let (_kept, _cut) = (hold(&stage.client)?, hold(&stranger)?);
    let established = |pod: &Pod, with: Ipv4Addr| -> usize {
        let table = pod.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
        let table = table.ok().and_then(Result::ok).unwrap_or_default();
        let address = format!("{:08X}:", u32::from_ne_bytes(with.octets()));
        let of = |line: &&str| {
            let mut fields = line.split_whitespace().skip(2);
            fields
                .next()
                .is_some_and(|remote| remote.starts_with(&address))
                && fields.next() == Some("01")
        };
        table.lines().filter(of).count()
    };
    assert_eq!(established(server, stranger.address()), 1);
    let rules = authorization(
        "no-strangers",
        &format!(
            "{{action: DENY, rules: [{{from: [{{source: {{ipBlocks: [{}]}}}}]}}]}}",
            stranger.address()
        ),
    );
    stage.lab.manifests().write("deny.yaml", &rules)?;
    assert!(eventually(DEADLINE, || established(
        server,
        stranger.address()
    ) == 0));
    assert!(eventually(DEADLINE, || established(
        &stranger,
        server.address()
    ) == 0));
    assert_eq!(established(server, stage.client.address()), 1);
    Ok(())
}

#[test]
fn denials_stay_while_there_is_no_agent_and_after_it_came_back() -> Result<()> {
    let mut stage = Stage::ruled("deny-dead", &["v1"], &deny_all())?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let url = at(&stage.servers[0]);
    let refused = |stage: &Stage| -> Result<()> {
        let before = accepted(&stage.servers[0])?;
        assert!(ask(&stage.client, "http://echo/")?.contains(REFUSED));
        assert_ne!(ask(&stranger, &url)?, "v1");
        assert_eq!(accepted(&stage.servers[0])?, before);
        Ok(())
    };
    refused(&stage)?;
    stage.agent.kill()?;
    refused(&stage)?;
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    refused(&stage)?;
    stage.lab.manifests().remove("rules.yaml")?;
    ask_until(&stage.client, "http://echo/", "v1")?;
    ask_until(&stranger, &url, "v1")
}

/// The link-local address of a pod, and the number of its interface.
fn link_local(pod: &Pod) -> Result<(std::net::Ipv6Addr, u32)> {
    let table = pod.enter(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
    let line = table.lines().find(|line| line.starts_with("fe80"));
    let mut fields = line.context("no link-local address")?.split_whitespace();
    let address = u128::from_str_radix(fields.next().unwrap_or_default(), 16)?;
    let interface = u32::from_str_radix(fields.next().unwrap_or_default(), 16)?;
    Ok((address.into(), interface))
}

#[test]
fn an_address_that_no_manifest_tells_of_is_no_way_around() -> Result<()> {
    let stage = Stage::new("deny-v6", &["v1"])?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let server = &stage.servers[0];
    let serve = ["stream-server", "--listen", "[::]:7000", "-n", "100"];
    let mut serving = server.spawn(Pod::peer(serve)?)?;
    server.wait_listening(&mut serving, 7000)?;
    let connect = || -> Result<u64> {
        let (address, (_, interface)) = (link_local(server)?.0, link_local(&stranger)?);
        let to = format!("[{address}%{interface}]:7000");
        let words = ["stream-client", &to, "--timeout-s", "2", "--bytes", "100"];
        let report = stranger.run(Pod::peer(words)?, DEADLINE)?.json()?;
        report["ok"].as_u64().context("no count")
    };
    assert!(
        eventually(DEADLINE, || connect().is_ok_and(|ok| ok == 1)),
        "{:?}",
        connect()
    );
    stage.lab.manifests().write("deny.yaml", &deny_all())?;
    ask_until(&stage.client, "http://echo/", REFUSED)?;
    let before = accepted(server)?;
    assert_eq!(connect()?, 0);
    assert_eq!(accepted(server)?, before);
    Ok(())
}

#[test]
fn a_client_of_every_family_is_refused_at_connect_by_the_address_that_it_comes_from() -> Result<()>
{
    let stage = Stage::new("deny-families", &["v1"])?;
    let server = &stage.servers[0];
    let serve = ["stream-server", "--listen", "[::]:7000", "-n", "100"];
    let mut serving = server.spawn(Pod::peer(serve)?)?;
    server.wait_listening(&mut serving, 7000)?;
    let connect = |to: IpAddr| -> Result<String> {
        let to = SocketAddr::new(to, 7000).to_string();
        let words = ["stream-client", &to, "--timeout-s", "5", "--bytes", "100"];
        let report = stage.client.run(Pod::peer(words)?, DEADLINE)?.json()?;
        Ok(match report["ok"].as_u64() {
            Some(1) => "let in".to_owned(),
            _ => report["errors"].to_string(),
        })
    };
    let (pod, service) = (server.address(), stage.service.address);
    let mapped = |address: Ipv4Addr| IpAddr::from(address.to_ipv6_mapped());
    let by_v4 = [pod.into(), mapped(pod), service.into(), mapped(service)];
    let by_v6 = [IpAddr::from(server.address6())];
    let client = (stage.client.address(), stage.client.address6());
    for (block, refused, let_in) in [
        (IpAddr::from(client.0), &by_v4[..], &by_v6[..]),
        (IpAddr::from(client.1), &by_v6[..], &by_v4[..]),
    ] {
        let rules = authorization(
            "one-family",
            &format!(
                "{{action: DENY, rules: [{{from: [{{source: {{ipBlocks: ['{block}']}}}}]}}]}}"
            ),
        );
        stage.lab.manifests().write("deny.yaml", &rules)?;
        let in_force = eventually(DEADLINE, || {
            connect(refused[0]).is_ok_and(|answer| answer.contains(REFUSED))
                && connect(let_in[0]).is_ok_and(|answer| answer == "let in")
        });
        assert!(in_force, "{block}: {:?}", connect(refused[0]));
        let before = accepted(server)?;
        for to in refused {
            let answer = connect(*to)?;
            assert!(answer.contains(REFUSED), "{block}, {to}: {answer}");
        }
        assert_eq!(accepted(server)?, before, "{block}");
        for to in let_in {
            assert_eq!(connect(*to)?, "let in", "{block}, {to}");
        }
    }
    Ok(())
}
