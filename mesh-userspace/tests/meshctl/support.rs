//! A folder of Bookinfo's manifests, and the binary run on it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use zerohop::{
    config::model::Report,
    mesh::{model::Snapshot, resolve::BuildOptions},
};

/// A folder that goes with the test.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("meshctl-{test}-{}-{number}", process::id()));
        fs::create_dir(&path).expect("a folder for the test");
        Self(path)
    }

    /// As [`Folder::published`], with the addresses that an API server would have given the services.
    pub fn bookinfo(test: &str) -> Self {
        let folder = Self::published(test);
        let file = folder.path().join("bookinfo.yaml");
        let text = fs::read_to_string(&file).expect("copied");
        let mut documents: Vec<_> = text.split("\n---\n").map(str::to_owned).collect();
        for (i, document) in documents.iter_mut().enumerate() {
            if document.contains("kind: Service\n") {
                let spec = format!("\nspec:\n  clusterIP: 10.96.0.{}\n", i + 1);
                *document = document.replace("\nspec:\n", &spec);
            }
        }
        folder.write("bookinfo.yaml", &documents.join("\n---\n"));
        folder
    }

    /// Bookinfo's services as they are published, a pod for each version, and its subsets.
    pub fn published(test: &str) -> Self {
        let folder = Self::new(test);
        folder.copy("platform/bookinfo.yaml");
        folder.copy("networking/destination-rule-all.yaml");
        let pods = [
            ("productpage", "v1", "10.0.0.10"),
            ("reviews", "v1", "10.0.0.11"),
            ("reviews", "v2", "10.0.0.12"),
            ("reviews", "v3", "10.0.0.13"),
            ("ratings", "v1", "10.0.0.14"),
            ("details", "v1", "10.0.0.15"),
        ];
        let pods: Vec<_> = pods
            .iter()
            .map(|(app, version, ip)| pod(app, version, ip))
            .collect();
        folder.write("pods.yaml", &pods.join("---\n"));
        folder
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }

    /// Copies one of Istio's Bookinfo manifests, as it is published, for the test's own time.
    pub fn copy(&self, name: &str) {
        let from = shared_data().join("istio/bookinfo").join(name);
        let text = fs::read_to_string(&from).unwrap_or_else(|e| {
            panic!(
                "{}: {e}: point ZEROHOP_SHARED_DATA at the shared data",
                from.display()
            )
        });
        let name = from.file_name().expect("a name").to_string_lossy();
        self.write(&name, &text);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The test's outcome does not depend on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pod(app: &str, version: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\n\
         metadata:\n  name: {app}-{version}\n  labels: {{app: {app}, version: {version}}}\n\
         spec: {{serviceAccountName: bookinfo-{app}}}\n\
         status: {{podIP: {ip}}}\n"
    )
}

/// Beside the workspace, unless the environment says otherwise.
pub fn shared_data() -> PathBuf {
    env::var_os("ZEROHOP_SHARED_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    )
}

/// Runs the binary, with an environment that sets none of its flags.
pub fn meshctl<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().expect("the binary runs")
}

/// Runs it with `-o json`; it must exit with 0.
pub fn meshctl_json(arguments: &[&str]) -> Value {
    let output = meshctl(arguments.iter().chain(&["-o", "json"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What an agent would make of a folder.
pub fn load(folder: &Path) -> (Snapshot, Vec<Report>) {
    let outcome = zerohop::config::load_paths(&[folder.to_owned()]);
    let options = BuildOptions {
        node_name: "node-1".into(),
        domain: "cluster.local".into(),
        version: 7,
    };
    (Snapshot::build(&outcome.objects, &options), outcome.reports)
}
