//! A mesh on loopback: servers that a test scripts, a proxy in front of them, clients that say exact bytes.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpStream,
    runtime::{Builder, LocalOptions},
};

use super::wire::{Answer, exchange};
use crate::{
    mesh::{
        model::Snapshot,
        testing::{Mesh, object_name},
    },
    proxy::{Interception, PodSockets, Proxy, ProxyConfig},
    telemetry::{AccessLog, AccessLogFormat, Telemetry},
};

/// No test takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_mins(1);

/// Runs a test on a runtime of its own, within the deadline.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, test)
            .await
            .expect("the test hangs")
    })
}

/// Polls until it holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE / 2, wait).await.is_ok(),
        "never happened: {what}"
    );
}

/// The kernel's part, on loopback: what was dialled is told by the pod that the listener belongs to.
struct Loopback;

impl Interception for Loopback {
    fn original_destination(
        &self,
        pod: &PodSockets,
        _peer: SocketAddr,
    ) -> io::Result<Option<SocketAddr>> {
        let handle = pod
            .handle
            .as_ref()
            .and_then(|handle| handle.downcast_ref::<SocketAddr>());
        Ok(handle.copied())
    }

    fn upstream_socket(
        &self,
        _pod: &PodSockets,
        destination: &SocketAddr,
    ) -> io::Result<socket2::Socket> {
        let domain = socket2::Domain::for_address(*destination);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// What the manifests of a test say; grows with each call.
#[derive(Default)]
pub struct Manifests {
    text: String,
    pods: u8,
}

impl Manifests {
    /// With the pod `default/client`.
    pub fn new() -> Self {
        let mut all = Self::default();
        all.pod("client", "client", "v1");
        all
    }

    fn pod(&mut self, name: &str, app: &str, version: &str) {
        self.pods += 1;
        let ip = self.pods;
        write!(
            self.text,
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: default, \
             labels: {{app: {app}, version: {version}}}}}, status: {{podIP: 10.0.0.{ip}}}}}\n"
        )
        .unwrap();
    }

    /// A Service without endpoints yet. `port`: `http` or `grpc` or `tcp`, or `auto` for one that is sniffed.
    pub fn service(mut self, name: &str, address: &str, port: &str) -> Self {
        let (host, number) = address.split_once(':').unwrap();
        let port = if port == "auto" { "main" } else { port };
        write!(
            self.text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: default}}, \
             spec: {{clusterIP: {host}, ports: [{{name: {port}, port: {number}}}]}}}}\n"
        )
        .unwrap();
        self
    }

    /// A backend of a service: a pod of this version, whose server listens on this port of loopback.
    pub fn backend(mut self, service: &str, port_name: &str, version: &str, port: u16) -> Self {
        let pod = format!("{service}-{version}-{port}");
        self.pod(&pod, service, version);
        let port_name = if port_name == "auto" {
            "main"
        } else {
            port_name
        };
        write!(
            self.text,
            "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {pod}, \
             namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}, \
             addressType: IPv4, ports: [{{name: {port_name}, port: {port}}}], \
             endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: {pod}}}}}]}}\n"
        )
        .unwrap();
        self
    }

    /// A VirtualService for one host; `http` is its `spec.http`.
    pub fn virtual_service(mut self, host: &str, http: &str) -> Self {
        write!(
            self.text,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {host}, namespace: default}}\n\
             spec:\n  hosts: [{host}]\n  http: {http}\n"
        )
        .unwrap();
        self
    }

    /// A DestinationRule with a subset per version.
    pub fn subsets(mut self, host: &str, versions: &[&str]) -> Self {
        let subsets: Vec<_> = versions
            .iter()
            .map(|v| format!("{{name: {v}, labels: {{version: {v}}}}}"))
            .collect();
        write!(
            self.text,
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, \
             metadata: {{name: {host}, namespace: default}}, \
             spec: {{host: {host}, subsets: [{}]}}}}\n",
            subsets.join(", ")
        )
        .unwrap();
        self
    }

    /// Resolved.
    pub fn snapshot(&self) -> Snapshot {
        let file = Arc::new(PathBuf::from("mesh.yaml"));
        let documents = crate::config::document::read_file(&file, self.text.as_bytes());
        let objects: Vec<_> = documents
            .into_iter()
            .map(|document| {
                document
                    .object
                    .unwrap_or_else(|| panic!("{:?}", document.report))
            })
            .collect();
        Mesh { objects }.snapshot()
    }
}

/// A running proxy.
pub struct Lab {
    pub proxy: Proxy,
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    log: std::sync::mpsc::Receiver<String>,
    listeners: Cell<u16>,
}

struct LogSender(std::sync::mpsc::Sender<String>);

impl io::Write for LogSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lab {
    /// With one worker.
    pub fn start(manifests: &Manifests) -> Self {
        Self::start_with(manifests, |_| {})
    }

    /// As [`Self::start`], with settings changed.
    pub fn start_with(manifests: &Manifests, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut config = ProxyConfig::default();
        change(&mut config);
        let (lines, log) = std::sync::mpsc::channel();
        let access_log = AccessLog::start(AccessLogFormat::Text, LogSender(lines)).unwrap();
        let telemetry = Arc::new(Telemetry::new(Some(access_log)));
        let snapshots = Arc::new(ArcSwap::from_pointee(manifests.snapshot()));
        let interception: Arc<dyn Interception> = Arc::new(Loopback);
        let proxy = Proxy::start(&config, &snapshots, &interception, &telemetry).unwrap();
        Self {
            proxy,
            snapshots,
            telemetry,
            log,
            listeners: Cell::new(0),
        }
    }

    /// Where a client connects that dials `address`: what connect() becomes when the kernel intercepts it.
    pub fn dial(&self, address: &str) -> SocketAddr {
        let number = self.listeners.get();
        self.listeners.set(number + 1);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let local = listener.local_addr().unwrap();
        let dialled: SocketAddr = address.parse().unwrap();
        let mut pod = PodSockets::new(object_name(&format!("default/listener-{number}")));
        pod.handle = Some(Arc::new(dialled));
        let source = object_name("default/client");
        self.proxy.add_pod(&pod, &source, vec![listener]).unwrap();
        local
    }

    /// Connects as [`Self::dial`] says.
    pub async fn connect(&self, address: &str) -> TcpStream {
        TcpStream::connect(self.dial(address)).await.unwrap()
    }

    /// One exchange on a connection of its own, as [`Self::dial`] says.
    pub async fn exchange(&self, address: &str, request: &str) -> Answer {
        exchange(self.dial(address), request).await
    }
}

impl Lab {
    /// Series of a family: labels to value.
    pub fn metrics(&self, family: &str) -> Vec<(BTreeMap<String, String>, u64)> {
        let mut text = String::new();
        self.telemetry.render(&mut text, false);
        text.lines()
            .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'))
            .map(|line| {
                let (labels, value) = line.rsplit_once("} ").unwrap();
                let labels = labels
                    .trim_end_matches('"')
                    .split("\",")
                    .map(|label| label.split_once("=\"").unwrap())
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                (labels, value.split('.').next().unwrap().parse().unwrap())
            })
            .collect()
    }

    /// Requests that were recorded, all and those with this code and flags.
    pub fn recorded(&self, code: &str, flags: &str) -> (u64, u64) {
        let all = self.metrics("istio_requests_total");
        let sum = |wanted: &dyn Fn(&BTreeMap<String, String>) -> bool| {
            all.iter()
                .filter(|(labels, _)| wanted(labels))
                .map(|(_, n)| n)
                .sum()
        };
        let these =
            sum(&|labels| labels["response_code"] == code && labels["response_flags"] == flags);
        (sum(&|_| true), these)
    }

    /// Waits until exactly `count` requests are recorded, all with this code and flags.
    pub async fn expect_records(&self, count: u64, code: &str, flags: &str) {
        let (all, these) = self.until_recorded(count, code, flags).await;
        assert_eq!(
            (all, these),
            (count, count),
            "{:?}",
            self.metrics("istio_requests_total")
        );
        let lines: Vec<String> = self.log.try_iter().collect();
        assert!(lines.concat().lines().count() as u64 <= count, "{lines:?}");
    }

    async fn until_recorded(&self, count: u64, code: &str, flags: &str) -> (u64, u64) {
        eventually("the records", || self.recorded(code, flags).0 >= count).await;
        self.recorded(code, flags)
    }
}
