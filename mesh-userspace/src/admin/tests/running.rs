//! A state made for the test, and a server that serves it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    admin::{
        AccelerationState, AccelerationStatus, AdminState, ConfigCounts, ConnectionRow, EventPage,
        Server, Status,
    },
    config::model::{Report, State},
    mesh::model::Snapshot,
};

/// An agent that is nothing but answers.
pub struct Fake {
    pub ready: AtomicBool,
    pub accelerated: AtomicBool,
    pub locked: bool,
}

impl Fake {
    pub fn ready() -> Self {
        Self {
            ready: true.into(),
            accelerated: true.into(),
            locked: false,
        }
    }
}

impl AdminState for Fake {
    fn ready(&self) -> Result<(), String> {
        let ready = self.ready.load(Ordering::Relaxed);
        ready
            .then_some(())
            .ok_or_else(|| "default/a is not enrolled yet".to_owned())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            version: 7,
            domain: "cluster.local".into(),
            ..Snapshot::default()
        })
    }

    fn reports(&self) -> Arc<Vec<Report>> {
        Arc::new(vec![Report {
            file: "a.yaml".into(),
            line: 3,
            kind: "Service".into(),
            namespace: "default".into(),
            name: "a".into(),
            state: State::Applied,
            field: None,
            reason: None,
            warnings: vec!["a warning".into()],
            unsupported: Vec::new(),
        }])
    }

    fn status(&self) -> Status {
        let on = self.accelerated.load(Ordering::Relaxed);
        Status {
            version: "0.1.0".into(),
            layout: 1,
            node: "<node>".into(),
            pid: 1,
            uptime_ms: 1,
            snapshot: 7,
            pods: Vec::new(),
            acceleration: AccelerationStatus {
                state: if on {
                    AccelerationState::On
                } else {
                    AccelerationState::Off
                },
                reason: "asked for".into(),
            },
            dns: true,
            programs: Vec::new(),
            config: ConfigCounts::of(&self.reports()),
            other_socket_maps: Vec::new(),
            last_config_error: None,
        }
    }

    fn metrics(&self, openmetrics: bool) -> String {
        if openmetrics {
            "# EOF\n".into()
        } else {
            "up 1\n".into()
        }
    }

    fn connections(&self) -> io::Result<Vec<ConnectionRow>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn events(&self, after: u64, _: Duration) -> EventPage {
        EventPage {
            events: Vec::new(),
            next: after,
            lost: 0,
        }
    }

    fn set_acceleration(&self, on: bool) -> Result<(), String> {
        if self.locked {
            return Err("this kernel failed the self-test".into());
        }
        self.accelerated.store(on, Ordering::Relaxed);
        Ok(())
    }
}

/// A server that stops with the test.
pub struct Running {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Running {
    pub async fn start(state: Arc<dyn AdminState>) -> Self {
        let server = Server::bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("loopback");
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run(state, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop,
            server,
        }
    }

    /// Sends bytes as they are and reads to the end.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // A reset after the answer is the server's way to refuse the rest of a body.
        if let Err(e) = stream.read_to_end(&mut answer).await {
            assert_eq!(e.kind(), io::ErrorKind::ConnectionReset);
        }
        String::from_utf8(answer).expect("text")
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let answer = self
            .raw(&format!(
                "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
                 content-length: {}\r\n{headers}\r\n{body}",
                self.address,
                body.len()
            ))
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        Reply {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    pub async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.server.await.expect("it ends");
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// An error says what failed and what to do.
    pub fn failure(&self) -> (u16, String) {
        let value = self.json();
        let mend = value["mend"].as_str().expect("a mend");
        assert!(!mend.is_empty());
        (
            self.status,
            value["error"].as_str().expect("an error").to_owned(),
        )
    }
}
