//! The lab by itself, without an agent: its pods reach each other, and nothing of it stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::bookinfo::deploy::Bookinfo;
use lab::host;
use lab::{Lab, Pod, PodSpec, Process, ServiceSpec, eventually};

const DEADLINE: Duration = Duration::from_secs(30);
/// Whether the process `pid` is there, and not just its exit status for whom it may concern.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Everything on this machine whose name holds `mark`.
fn traces(mark: &str) -> BTreeSet<String> {
    let cgroups = host::cgroup_root().expect("cgroup v2");
    let folders = [
        Path::new(host::NETNS_DIR).to_path_buf(),
        Path::new(host::STATE_DIR).to_path_buf(),
        cgroups,
    ];
    let mut found = BTreeSet::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path().to_string_lossy().into_owned();
            if path.contains(mark) {
                found.insert(path);
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/mounts").expect("read /proc/mounts");
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(mark))
            .map(str::to_owned),
    );
    found
}

#[test]
fn pods_reach_each_other_by_address_and_by_name() -> Result<()> {
    let lab = Lab::new("reach")?;
    let server = lab.pod(PodSpec::new("server").app("echo", "v1"))?;
    let client = lab.pod(PodSpec::new("client"))?;
    server.serve(
        Pod::peer(["echo", "--port", "8080", "--name", "here"])?,
        8080,
    )?;
    for host in ["server".to_owned(), server.address().to_string()] {
        let url = format!("http://{host}:8080/some/path?x=1");
        let report = client.run(Pod::peer(["http", &url])?, DEADLINE)?.json()?;
        let response = &report["responses"][0];
        assert_eq!(response["status"], 200, "{report:#}");
        assert_eq!(response["body"]["server"], "here");
        assert_eq!(response["body"]["uri"], "/some/path?x=1");
        let seen = response["body"]["client"]
            .as_str()
            .context("the client's address")?;
        assert!(seen.starts_with(&client.address().to_string()), "{seen}");
    }
    Ok(())
}

#[test]
fn a_service_has_a_name_and_without_the_mesh_its_address_is_refused_at_once() -> Result<()> {
    let lab = Lab::new("names")?;
    let near = lab.pod(PodSpec::new("near"))?;
    let far = lab.pod(PodSpec::new("far").namespace("other"))?;
    let service = lab.service(ServiceSpec::new("echo").port("http", 80))?;
    let resolve = |pod: &Pod, name: &str| -> Result<Option<String>> {
        let output = pod.exec("getent", ["hosts", name], DEADLINE)?;
        Ok(output.stdout.split_whitespace().next().map(str::to_owned))
    };
    let address = Some(service.address.to_string());
    for name in [
        "echo",
        "echo.default",
        "echo.default.svc",
        "echo.default.svc.cluster.local",
    ] {
        assert_eq!(resolve(&near, name)?, address, "{name}");
    }
    assert_eq!(resolve(&far, "echo.default")?, address);
    assert_eq!(resolve(&far, "echo")?, None);
    let output = near
        .run(Pod::peer(["http", "http://echo/"])?, DEADLINE)?
        .json()?;
    let error = output["responses"][0]["error"]
        .as_str()
        .context("an error")?;
    assert!(error.contains("No route to host"), "{error}");
    Ok(())
}

#[test]
fn a_process_of_a_pod_is_in_its_cgroup_and_its_namespace() -> Result<()> {
    let lab = Lab::new("inside")?;
    let pod = lab.pod(PodSpec::new("a"))?;
    let script = "cat /proc/self/cgroup; readlink /proc/self/ns/net; \
                  cat /proc/sys/net/ipv4/tcp_congestion_control; ls -d /sys/fs/bpf /sys/fs/cgroup";
    let output = pod.exec("sh", ["-c", script], DEADLINE)?.success()?;
    let cgroup = pod
        .cgroup()
        .strip_prefix(host::cgroup_root()?)?
        .to_string_lossy()
        .into_owned();
    assert!(
        output
            .stdout
            .lines()
            .any(|line| line == format!("0::/{cgroup}")),
        "{output:?}"
    );
    let netns = pod.enter(|| std::fs::read_link("/proc/thread-self/ns/net"))??;
    assert!(
        output.stdout.contains(&*netns.to_string_lossy()),
        "{output:?}"
    );
    assert!(output.stdout.contains("\ncubic\n"), "{output:?}");
    Ok(())
}

#[test]
fn bookinfo_answers_with_its_own_json() -> Result<()> {
    let lab = Lab::new("bookinfo")?;
    let bookinfo = Bookinfo::deploy(&lab)?;
    let visitor = lab.pod(PodSpec::new("visitor"))?;
    let get = |pod: &str, path: &str, header: &str| -> Result<serde_json::Value> {
        let url = format!("http://{}:9080{path}", bookinfo.pod(pod)?.address());
        let report = visitor
            .run(Pod::peer(["http", &url, "-H", header])?, DEADLINE)?
            .json()?;
        Ok(report["responses"][0].clone())
    };
    let details = get("details", "/details/0", "x-request-id: 1")?;
    assert_eq!(details["body"]["ISBN-10"], "1234567890");
    assert_eq!(
        get("ratings", "/ratings/0", "x-request-id: 1")?["body"]["ratings"]["Reviewer2"],
        4
    );
    let reviews = get("reviews-v1", "/reviews/0", "x-request-id: 1")?;
    assert_eq!(reviews["body"]["podname"], "reviews-v1");
    assert!(reviews["body"]["reviews"][0].get("rating").is_none());
    // Without the mesh there is no way to the service of ratings.
    let reviews = get("reviews-v2", "/reviews/0", "x-request-id: 1")?;
    assert!(
        reviews["body"]["reviews"][0]["rating"]["error"].is_string(),
        "{reviews:#}"
    );
    assert_eq!(
        get("productpage", "/api/v1/products", "a: b")?["body"][0]["id"],
        0
    );
    let page = get("productpage", "/productpage", "cookie: session=jason")?;
    assert!(
        page["body"]
            .as_str()
            .is_some_and(|html| html.contains("Signed in as jason"))
    );

    bookinfo.flaw_ratings(&["--fail-first", "1"])?;
    for (id, statuses) in [("a", [503, 200]), ("b", [503, 200])] {
        for status in statuses {
            let header = format!("x-request-id: {id}");
            assert_eq!(
                get("ratings", "/ratings/0", &header)?["status"],
                status,
                "{id}"
            );
        }
    }
    Ok(())
}

#[test]
fn streams_arrive_byte_by_byte_whoever_speaks_first() -> Result<()> {
    let lab = Lab::new("streams")?;
    let server = lab.pod(PodSpec::new("server"))?;
    let client = lab.pod(PodSpec::new("client"))?;
    let orders = [
        ("together", "together"),
        ("first", "last"),
        ("last", "first"),
    ];
    for (at_client, at_server) in orders {
        for mode in ["--half-close", "--poll"] {
            let mut serving = server.spawn(Pod::peer([
                "stream-server",
                "-n",
                "20",
                "--order",
                at_server,
                mode,
            ])?)?;
            server.wait_listening(&mut serving, 7000)?;
            let to = format!("{}:7000", server.address());
            let sent = client
                .run(
                    Pod::peer([
                        "stream-client",
                        &to,
                        "-n",
                        "20",
                        "-c",
                        "4",
                        "--order",
                        at_client,
                        mode,
                        "--bytes",
                        "200000",
                    ])?,
                    DEADLINE,
                )?
                .json()?;
            let got = serving.wait(DEADLINE)?.json()?;
            assert_eq!(sent["ok"], 20, "{at_client} {mode} {sent:#}");
            assert_eq!(got["ok"], 20, "{at_server} {mode} {got:#}");
            assert_eq!(got["received"], sent["sent"]);
            assert_eq!(sent["sent"], 20 * 200_016);
        }
    }
    Ok(())
}

#[test]
fn a_stream_that_is_cut_or_another_one_is_noticed() -> Result<()> {
    let lab = Lab::new("cut")?;
    let server = lab.pod(PodSpec::new("server"))?;
    let client = lab.pod(PodSpec::new("client"))?;
    // Both sides lead: each takes the other's stream for an answer, which it is not.
    let mut serving = server.spawn(Pod::peer(["stream-server", "-n", "1", "--order", "first"])?)?;
    server.wait_listening(&mut serving, 7000)?;
    let to = format!("{}:7000", server.address());
    let report = client
        .run(
            Pod::peer(["stream-client", &to, "--order", "first"])?,
            DEADLINE,
        )?
        .json()?;
    assert_eq!(
        (&report["ok"], &report["failed"]),
        (&0.into(), &1.into()),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::new("dropped")?;
    let id = lab.id().to_owned();
    let pod = lab.pod(PodSpec::new("a"))?;
    lab.service(ServiceSpec::new("s").port("tcp", 1))?;
    lab.publish()?;
    let sleeper = pod.spawn({
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & wait"]);
        command
    })?;
    let pid = sleeper.id();
    let before = traces(&id);
    for part in ["-node", "-a", "zerohop-", ".json"] {
        assert!(
            before.iter().any(|trace| trace.contains(part)),
            "no {part}: {before:?}"
        );
    }
    drop(lab);
    assert_eq!(traces(&id), BTreeSet::new());
    drop(sleeper);
    assert!(
        eventually(DEADLINE, || !runs(pid)),
        "{pid} outlives its lab"
    );
    Ok(())
}

#[test]
fn a_deleted_pod_is_gone_and_the_others_stay() -> Result<()> {
    let lab = Lab::new("deleted")?;
    let gone = lab.pod(PodSpec::new("gone"))?;
    let stays = lab.pod(PodSpec::new("stays"))?;
    gone.serve(Pod::peer(["echo", "--port", "8080"])?, 8080)?;
    gone.delete()?;
    assert!(!gone.cgroup().exists() && !gone.netns_path().exists());
    assert!(stays.cgroup().exists() && stays.netns_path().exists());
    Ok(())
}

/// Starts a process that holds a lab: the process, its lab's id, the pid of what runs in its pod.
fn held_lab(name: &str) -> Result<(Process, String, u32)> {
    let mut process = Process::start(Pod::peer(["hold-lab", name])?)?;
    process.wait_stdout("\n", DEADLINE)?;
    let text = process.stdout();
    let mut words = text.split_whitespace().skip(1);
    let id = words.next().context("the lab's id")?;
    let pid = words.next().context("the sleeper's pid")?;
    Ok((process, id.to_owned(), pid.parse()?))
}

#[test]
fn a_signal_leaves_nothing() -> Result<()> {
    for (signal, name) in [(libc::SIGINT, "interrupted"), (libc::SIGTERM, "terminated")] {
        let (mut process, id, pid) = held_lab(name)?;
        assert!(!traces(&id).is_empty());
        process.signal(signal)?;
        let output = process.wait(DEADLINE)?;
        assert_eq!(output.status.code(), Some(128 + signal));
        assert_eq!(traces(&id), BTreeSet::new());
        assert!(
            eventually(DEADLINE, || !runs(pid)),
            "{pid} outlives its lab"
        );
    }
    Ok(())
}

#[test]
fn what_a_killed_lab_left_is_swept() -> Result<()> {
    let (mut process, id, pid) = held_lab("killed")?;
    process.kill()?;
    assert!(!traces(&id).is_empty(), "there is nothing to sweep");
    assert!(
        eventually(DEADLINE, || !runs(pid)),
        "{pid} outlives who started it"
    );
    // Another test's new lab may sweep it first.
    Lab::sweep()?;
    assert_eq!(traces(&id), BTreeSet::new());
    Ok(())
}
