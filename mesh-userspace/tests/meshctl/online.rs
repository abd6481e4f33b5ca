//! The commands that ask an agent, against the agent's own server with a state made for the test.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use zerohop::{
    admin::{
        AccelerationState, AccelerationStatus, AdminState, AttachedProgram, ClosedConnection,
        ConfigCounts, ConnectionRow, ConnectionWay, EnrolledPod, EventKind, EventPage, EventRow,
        Server, Status,
    },
    config::model::Report,
    mesh::model::Snapshot,
};

use crate::support::{Folder, load, meshctl, stderr, stdout};

/// An agent that has read a folder, and does nothing else.
struct Fake {
    snapshot: Arc<Snapshot>,
    reports: Arc<Vec<Report>>,
    accelerated: AtomicBool,
}

impl AdminState for Fake {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    fn reports(&self) -> Arc<Vec<Report>> {
        Arc::clone(&self.reports)
    }

    fn status(&self) -> Status {
        let on = self.accelerated.load(Ordering::Relaxed);
        Status {
            version: "0.1.0".into(),
            layout: 1,
            node: "node-1".into(),
            pid: 42,
            uptime_ms: 185_000,
            snapshot: self.snapshot.version,
            pods: vec![EnrolledPod {
                name: "default/productpage-v1".into(),
                netns: "/run/netns/productpage".into(),
                listener: Some(([127, 0, 0, 1], 15001).into()),
                dns: Some(([127, 0, 0, 1], 15053).into()),
            }],
            acceleration: AccelerationStatus {
                state: if on {
                    AccelerationState::On
                } else {
                    AccelerationState::Off
                },
                reason: "this kernel passed the self-test".into(),
            },
            dns: true,
            programs: vec![AttachedProgram {
                name: "connect4".into(),
                hook: "cgroup/connect4".into(),
                id: 77,
            }],
            config: ConfigCounts::of(&self.reports),
            other_socket_maps: Vec::new(),
            last_config_error: None,
        }
    }

    fn metrics(&self, _: bool) -> String {
        String::new()
    }

    fn connections(&self) -> io::Result<Vec<ConnectionRow>> {
        Ok(vec![ConnectionRow {
            source: "default/productpage-v1".into(),
            destination: Some("default/details-v1".into()),
            service: Some("details.default.svc.cluster.local".into()),
            way: ConnectionWay::Direct,
            accelerated: false,
            reason: Some("its peer closed one direction".into()),
            local: ([10, 0, 0, 10], 40_000).into(),
            remote: ([10, 0, 0, 15], 9080).into(),
            bytes_sent: 1536,
            bytes_received: 20 << 20,
            bytes_redirected: 0,
            age_ms: 2500,
            rtt_us: Some(85),
            min_rtt_us: Some(60),
            retransmits: 3,
        }])
    }

    fn events(&self, after: u64, _: Duration) -> EventPage {
        let events = vec![EventRow {
            time: "2026-01-02T03:04:05.678Z".into(),
            event: EventKind::Closed,
            source: "default/productpage-v1".into(),
            destination: Some("default/details-v1".into()),
            service: None,
            way: Some("direct".into()),
            reason: Some("reset".into()),
            policy: None,
            client: Some([10, 0, 0, 10].into()),
            client_port: Some(40_000),
            server: Some(([10, 0, 0, 15], 9080).into()),
            closed: Some(ClosedConnection {
                bytes_sent: 1536,
                bytes_received: 20 << 20,
                bytes_redirected: 0,
                duration_us: 2_500_000,
                rtt_us: Some(85),
                min_rtt_us: None,
                retransmits: 0,
            }),
        }];
        EventPage {
            events: if after == 0 { events } else { Vec::new() },
            next: 1,
            lost: 0,
        }
    }

    fn set_acceleration(&self, on: bool) -> Result<(), String> {
        self.accelerated.store(on, Ordering::Relaxed);
        Ok(())
    }
}

/// A server on a thread of its own, for as long as the test runs.
struct Agent {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(folder: &Folder) -> Self {
        let (snapshot, reports) = load(folder.path());
        let state = Fake {
            snapshot: Arc::new(snapshot),
            reports: Arc::new(reports),
            accelerated: true.into(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(([127, 0, 0, 1], 0).into())
                    .await
                    .expect("loopback");
                bound
                    .send(server.address().to_string())
                    .expect("the test waits");
                let stopped = async {
                    let _ = stopped.await;
                };
                server.run(Arc::new(state), stopped).await;
            });
        });
        let address = address.recv().expect("the server is bound");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn json(&self, command: &[&str]) -> Value {
        serde_json::from_str(&self.text(command, "json")).expect("JSON")
    }

    fn table(&self, command: &[&str]) -> String {
        self.text(command, "table")
    }

    fn text(&self, command: &[&str], format: &str) -> String {
        let output = meshctl(
            command
                .iter()
                .chain(&["--admin", &self.address, "-o", format]),
        );
        assert_eq!(
            output.status.code(),
            Some(0),
            "{command:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

#[test]
fn status_shows_the_agent_its_pods_and_programs() {
    let agent = Agent::start(&Folder::bookinfo("status"));
    assert_eq!(
        agent.json(&["status"])["pods"][0]["name"],
        "default/productpage-v1"
    );
    let table = agent.table(&["status"]);
    for text in [
        "node           node-1\n",
        "uptime         3 min 5 s\n",
        "ready          yes\n",
        "default/productpage-v1   /run/netns/productpage   127.0.0.1:15001   127.0.0.1:15053\n",
        "connect4   cgroup/connect4   77\n",
    ] {
        assert!(table.contains(text), "{text}: {table}");
    }
}

#[test]
fn connections_say_why_they_are_not_accelerated() {
    let agent = Agent::start(&Folder::bookinfo("connections"));
    assert_eq!(agent.json(&["connections"])[0]["bytesReceived"], 20 << 20);
    let table = agent.table(&["connections"]);
    for text in [
        "direct",
        "no: its peer closed one direction",
        "1.5 KiB",
        "20 MiB",
        "85 µs",
        "2 s",
    ] {
        assert!(table.contains(text), "{text}: {table}");
    }
}

#[test]
fn events_are_a_line_each() {
    let agent = Agent::start(&Folder::bookinfo("events"));
    let events = agent.json(&["events"]);
    assert_eq!(events[0]["closed"]["bytesReceived"], 20 << 20);
    assert_eq!(
        agent.table(&["events"]).trim_end(),
        "2026-01-02T03:04:05.678Z closed default/productpage-v1 10.0.0.10:40000 > \
         default/details-v1 10.0.0.15:9080 direct reset sent 1.5 KiB received 20 MiB redirected 0 B \
         in 2.5 s rtt 85 µs"
    );
}

#[test]
fn acceleration_is_switched_and_asked() {
    let agent = Agent::start(&Folder::bookinfo("acceleration"));
    assert_eq!(agent.json(&["acceleration", "off"])["state"], "off");
    assert_eq!(agent.json(&["acceleration", "status"])["state"], "off");
    assert!(agent.table(&["acceleration", "on"]).contains("on"));
    assert_eq!(agent.json(&["acceleration", "status"])["state"], "on");
}

#[test]
fn config_can_be_narrowed_to_a_kind_and_a_name() {
    let folder = Folder::bookinfo("config");
    folder.copy("networking/virtual-service-all-v1.yaml");
    let agent = Agent::start(&folder);
    let all = agent.json(&["config"]);
    assert!(all.as_array().expect("a list").len() > 10, "{all}");
    let rules = agent.json(&["config", "vs"]);
    assert!(
        rules
            .as_array()
            .expect("a list")
            .iter()
            .all(|r| r["kind"] == "VirtualService")
    );
    for name in ["reviews", "default/reviews"] {
        let one = agent.json(&["config", "virtualservices", name]);
        assert_eq!(one.as_array().map(Vec::len), Some(1), "{one}");
    }
    let missing = meshctl(["config", "vs", "nothing", "--admin", &agent.address]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("vs nothing"),
        "{}",
        stderr(&missing)
    );
}

#[test]
fn services_workloads_and_routes_are_listed() {
    let folder = Folder::bookinfo("resolved");
    folder.copy("networking/virtual-service-reviews-90-10.yaml");
    let agent = Agent::start(&folder);
    let services = agent.table(&["services"]);
    assert!(
        services.contains("reviews.default.svc.cluster.local"),
        "{services}"
    );
    let workloads = agent.table(&["workloads"]);
    assert!(workloads.contains("default/reviews-v2"), "{workloads}");
    let routes = agent.table(&["routes"]);
    for text in ["default/reviews", "v1", "90", "v2", "10"] {
        assert!(routes.contains(text), "{text}: {routes}");
    }
    for command in ["services", "workloads", "routes"] {
        let list = agent.json(&[command]);
        assert!(
            list.as_array().is_some_and(|list| !list.is_empty()),
            "{command}: {list}"
        );
    }
}

#[test]
fn an_agent_explains_as_the_folder_does() {
    let folder = Folder::bookinfo("explain");
    folder.copy("networking/virtual-service-reviews-test-v2.yaml");
    let agent = Agent::start(&folder);
    let query = [
        "explain",
        "--from",
        "default/productpage-v1",
        "-H",
        "end-user: jason",
        "-X",
        "POST",
    ];
    let url = "http://reviews:9080/reviews/0";
    let online = agent.json(&[&query[..], &[url]].concat());
    let path = folder.path().to_str().expect("UTF-8");
    let offline = agent.json(&[&query[..], &["--config-dir", path, url]].concat());
    assert_eq!(online, offline);
    assert_eq!(online["destinations"][0]["subset"], json!("v2"));

    let unknown = meshctl([
        "explain",
        "--from",
        "default/nobody",
        url,
        "--admin",
        &agent.address,
    ]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("default/nobody"),
        "{}",
        stderr(&unknown)
    );
}
