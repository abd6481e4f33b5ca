//! The folder of manifests: changes, mistakes, and the last good state.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS, by_server, server_of};
use lab::{Agent, AgentOptions, Lab, Pod, PodSpec, Stage, eventually, rules};

fn everything_to(version: &str) -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: {version}}}}}]}}]}}\n"
    )
}

fn shared_data(path: &str) -> Result<String> {
    let root = std::env::var_os("ZEROHOP_SHARED_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(path);
    fs::read_to_string(&path).with_context(|| {
        format!(
            "read {}: name the folder of shared data in ZEROHOP_SHARED_DATA",
            path.display()
        )
    })
}

#[test]
fn a_change_is_in_effect_soon_however_it_is_written() -> Result<()> {
    let stage = Stage::ruled("change", &["v1", "v2", "v3"], &everything_to("v1"))?;
    assert_eq!(server_of(&stage.ask(&["http://echo/"])?), "v1");
    let manifests = stage.lab.manifests();
    let written = Instant::now();
    manifests.write("rules.yaml", &everything_to("v2"))?;
    stage.ask_until(&["http://echo/"], |answer| server_of(answer) == "v2")?;
    println!(
        "in effect, and seen by a new process, after {:?}",
        written.elapsed()
    );
    manifests.write_in_place("rules.yaml", &everything_to("v3"))?;
    stage.ask_until(&["http://echo/"], |answer| server_of(answer) == "v3")?;
    // A folder below, moved in whole.
    let outside = stage.lab.manifests().dir().with_file_name("moved");
    fs::create_dir(&outside)?;
    fs::write(outside.join("r.yml"), everything_to("v1"))?;
    manifests.remove("rules.yaml")?;
    fs::rename(&outside, manifests.dir().join("moved"))?;
    stage.ask_until(&["http://echo/"], |answer| server_of(answer) == "v1")?;
    // Without rules: any version again.
    fs::remove_dir_all(manifests.dir().join("moved"))?;
    let any = eventually(DEADLINE, || {
        stage
            .send(&["-n", "30", "--reconnect", "http://echo/"])
            .is_ok_and(|answers| by_server(&answers).len() == 3)
    });
    assert!(any, "the rules stay although their files are gone");
    Ok(())
}

#[test]
fn no_request_fails_while_rules_change() -> Result<()> {
    let stage = Stage::ruled("flapping", &["v1", "v2"], &everything_to("v1"))?;
    let load = Pod::peer(["http", "-c", "4", "--until-eof", "http://echo/"])?;
    let mut load = stage.client.spawn(load)?;
    let lines = |load: &lab::Process| load.stdout().lines().count();
    for round in 0..10 {
        let version = if round % 2 == 0 { "v2" } else { "v1" };
        stage.rules(&everything_to(version))?;
        stage.ask_until(&["http://echo/"], |answer| server_of(answer) == version)?;
    }
    assert!(lines(&load) > 100, "there was no load: {}", load.stderr());
    drop(load.take_stdin());
    let output = load.wait(DEADLINE)?.success()?;
    for line in output.stdout.lines() {
        let answer: serde_json::Value = serde_json::from_str(line)?;
        assert_eq!(answer["status"], 200, "{answer:#}");
    }
    Ok(())
}

#[test]
fn what_does_not_parse_keeps_the_last_good_state_and_is_named() -> Result<()> {
    let stage = Stage::ruled("malformed", &["v1", "v2"], &everything_to("v2"))?;
    assert_eq!(server_of(&stage.ask(&["http://echo/"])?), "v2");
    let broken = [
        (
            "no YAML",
            format!("{SUBSETS}---\nkind: VirtualService\n  metadata: [\n"),
        ),
        (
            "no list",
            everything_to("v1")
                .replace("http: [", "http: {")
                .replace("]}]}}", "]}}}}"),
        ),
        (
            "bad weight",
            everything_to("v1").replace("subset: v1}", "subset: v1}, weight: heavy"),
        ),
    ];
    for (what, text) in broken {
        stage.rules(&text)?;
        let seen = eventually(DEADLINE, || {
            let list = stage.agent.meshctl_json(&["config"]).unwrap_or_default();
            list.as_array()
                .is_some_and(|list| list.iter().any(|entry| entry["state"] == "rejected"))
        });
        let list = stage.agent.meshctl_json(&["config"])?;
        assert!(seen, "{what} is not rejected: {list:#}");
        let rejected = list
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["state"] == "rejected");
        let rejected = rejected.context("the rejection is gone")?;
        let file = rejected["file"].as_str().unwrap_or_default();
        assert!(file.ends_with("rules.yaml"), "{what}: {rejected:#}");
        assert!(rejected["line"].as_u64().is_some(), "{what}: {rejected:#}");
        assert!(rejected["reason"].is_string(), "{what}: {rejected:#}");
        let answers = stage.send(&["-n", "20", "http://echo/"])?;
        assert_eq!(
            by_server(&answers),
            [("v2".to_owned(), 20)].into(),
            "{what}"
        );
        // And it is mended by a good one.
        stage.rules(&everything_to("v1"))?;
        stage.ask_until(&["http://echo/"], |answer| server_of(answer) == "v1")?;
        stage.rules(&everything_to("v2"))?;
        stage.ask_until(&["http://echo/"], |answer| server_of(answer) == "v2")?;
    }
    Ok(())
}

#[test]
fn a_bad_document_does_not_stop_the_good_ones_beside_it() -> Result<()> {
    let stage = Stage::ruled("beside", &["v1", "v2"], "")?;
    let malformed = shared_data("tutorials/07-malformed-as-published.yaml")?;
    stage
        .lab
        .manifests()
        .write("a-malformed.yaml", &malformed)?;
    stage.rules(&everything_to("v2"))?;
    stage.ask_until(&["-n", "1", "http://echo/"], |answer| {
        server_of(answer) == "v2"
    })?;
    let list = stage.agent.meshctl_json(&["config"])?;
    let entry = list
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| {
            entry["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("a-malformed.yaml"))
        })
        .context("the malformed file is not in the list")?;
    assert_eq!(entry["state"], "rejected", "{entry:#}");
    let offline = stage.agent.meshctl(&[
        "-o",
        "table",
        "analyze",
        &stage
            .lab
            .manifests()
            .dir()
            .join("a-malformed.yaml")
            .to_string_lossy(),
    ])?;
    assert_eq!(offline.status.code(), Some(1), "{offline:?}");
    let said = format!("{}{}", offline.stdout, offline.stderr);
    assert!(said.contains("a-malformed.yaml:"), "{said}");
    Ok(())
}

#[test]
fn what_is_not_supported_yet_is_said_and_the_rest_of_it_works() -> Result<()> {
    let breaker = shared_data("tutorials/03-circuit-breaker.yaml")?;
    let breaker = breaker.replace("reviews", "echo");
    let stage = Stage::ruled("unsupported", &["v1", "v2"], &breaker)?;
    let entry = stage
        .agent
        .wait_config("DestinationRule", "echo", &["applied"])?;
    let unsupported = entry["unsupported"].to_string();
    assert!(unsupported.contains("connectionPool"), "{entry:#}");
    Ok(())
}

#[test]
fn the_tutorials_own_files_are_taken_as_they_are() -> Result<()> {
    let lab = Lab::new("tutorials")?;
    let bookinfo = lab::bookinfo::deploy::Bookinfo::deploy(&lab)?;
    lab.manifests().write("subsets.yaml", rules::SUBSETS)?;
    let agent = Agent::start(&lab, &AgentOptions::default())?;
    let page = bookinfo.pod("productpage")?.full_name();
    lab.manifests().write(
        "rules.yaml",
        &shared_data("tutorials/01-header-canary.yaml")?,
    )?;
    let subset = |user: &str| {
        let url = "http://reviews:9080/reviews/0";
        let answer = agent
            .query(&page, &[("end-user", user)], url)
            .unwrap_or_default();
        answer["destinations"][0]["subset"]
            .as_str()
            .map(str::to_owned)
    };
    assert!(eventually(DEADLINE, || subset("jason").as_deref() == Some("v2")));
    assert_eq!(subset("other").as_deref(), Some("v1"));
    for file in [
        "02-traffic-shift",
        "04-delay",
        "05-retries",
        "06-delay-for-one-user",
    ] {
        lab.manifests().write(
            "rules.yaml",
            &shared_data(&format!("tutorials/{file}.yaml"))?,
        )?;
        let name = if file.starts_with("02") {
            "reviews"
        } else {
            "ratings"
        };
        let entry = agent.wait_config("VirtualService", name, &["applied", "rejected"])?;
        assert_eq!(entry["state"], "applied", "{file}: {entry:#}");
    }
    Ok(())
}

#[test]
fn a_pod_whose_namespace_does_not_exist_is_named_and_the_others_work() -> Result<()> {
    let stage = Stage::ruled("no-netns", &["v1", "v2"], &everything_to("v1"))?;
    let ghost = stage.lab.pod(PodSpec::new("ghost").app("ghost", "v1"))?;
    let manifests = stage.lab.manifests();
    manifests.pod_in(stage.lab.id(), &ghost, "zh-there-is-no-such-namespace")?;
    let named = eventually(DEADLINE, || {
        stage.agent.log().contains("zh-there-is-no-such-namespace")
    });
    assert!(named, "{}", stage.agent.log());
    let answers = stage.send(&["-n", "20", "http://echo/"])?;
    assert_eq!(by_server(&answers), [("v1".to_owned(), 20)].into());
    // Once it is there, it is enrolled.
    manifests.pod(stage.lab.id(), &ghost)?;
    let answer = eventually(DEADLINE, || {
        let ready = stage
            .agent
            .get("/readyz")
            .is_ok_and(|(status, _)| status == 200);
        let answers = lab::stage::send(&ghost, &["-n", "10", "--reconnect", "http://echo/"]);
        ready && answers.is_ok_and(|answers| by_server(&answers) == [("v1".to_owned(), 10)].into())
    });
    assert!(answer, "{}", stage.agent.log());
    Ok(())
}

#[test]
fn pods_come_and_go_while_the_agent_runs() -> Result<()> {
    let stage = Stage::ruled("pods", &["v1", "v2"], &everything_to("v1"))?;
    for round in 0..3 {
        let late = stage.lab.pod(PodSpec::new(format!("late-{round}")))?;
        // By the agent: so there is a listener in the new pod's namespace.
        let enrolled = eventually(DEADLINE, || {
            let answers = lab::stage::send(&late, &["-n", "10", "--reconnect", "http://echo/"]);
            answers.is_ok_and(|answers| by_server(&answers) == [("v1".to_owned(), 10)].into())
        });
        assert!(enrolled, "{}", stage.agent.log());
        stage.lab.manifests().remove_pod(&late)?;
        late.delete()?;
    }
    let gone = eventually(DEADLINE, || {
        let list = stage.agent.meshctl_json(&["workloads"]).unwrap_or_default();
        !list.is_null() && !list.to_string().contains("late-")
    });
    assert!(gone, "{}", stage.agent.meshctl_json(&["workloads"])?);
    // Endpoints that are gone get no connection.
    stage.rules(SUBSETS)?;
    stage.lab.manifests().remove_pod(&stage.servers[1])?;
    stage.servers[1].delete()?;
    let only = eventually(DEADLINE, || {
        stage
            .send(&["-n", "30", "--reconnect", "http://echo/"])
            .is_ok_and(|answers| by_server(&answers) == [("v1".to_owned(), 30)].into())
    });
    assert!(only, "{}", stage.agent.log());
    Ok(())
}

#[test]
fn a_folder_that_vanishes_keeps_the_last_good_state() -> Result<()> {
    let stage = Stage::ruled("vanishing", &["v1", "v2"], &everything_to("v2"))?;
    let dir = stage.lab.manifests().dir().to_path_buf();
    let aside = dir.with_file_name("aside");
    let complaints = |stage: &Stage| {
        let folder = dir.to_string_lossy();
        stage
            .agent
            .log()
            .lines()
            .filter(|line| line.contains(&*folder))
            .count()
    };
    // Several times: it may vanish while the agent reads it.
    for (version, next) in [("v2", "v1"), ("v1", "v2")].into_iter().cycle().take(12) {
        let before = complaints(&stage);
        fs::rename(&dir, &aside)?;
        let said = eventually(DEADLINE, || complaints(&stage) > before);
        assert!(
            said,
            "it does not say that its folder is gone: {}",
            stage.agent.log()
        );
        let answers = stage.send(&["-n", "20", "--reconnect", "http://echo/"])?;
        assert_eq!(by_server(&answers), [(version.to_owned(), 20)].into());
        // It comes back, and changes count again.
        fs::rename(&aside, &dir)?;
        stage.rules(&everything_to(next))?;
        stage.ask_until(&["http://echo/"], |answer| server_of(answer) == next)?;
    }
    Ok(())
}

#[test]
fn endpoint_slices_say_where_a_service_is_and_what_is_ready() -> Result<()> {
    let stage = Stage::ruled("slices", &["v1", "v2"], "")?;
    let slice = |ready: [bool; 2]| {
        let endpoints: Vec<_> = stage.servers.iter().map(Pod::address).zip(ready).collect();
        let port = &stage.service.spec.ports[0];
        stage
            .lab
            .manifests()
            .endpoint_slice(&stage.service, port, &endpoints)
    };
    for (ready, expected) in [([true, false], "v1"), ([false, true], "v2")] {
        slice(ready)?;
        let only = eventually(DEADLINE, || {
            let answers = stage.send(&["-n", "20", "--reconnect", "http://echo/"]);
            answers.is_ok_and(|answers| by_server(&answers) == [(expected.to_owned(), 20)].into())
        });
        assert!(
            only,
            "{ready:?}: {:?}",
            stage.send(&["-n", "5", "--reconnect", "http://echo/"])
        );
    }
    Ok(())
}
