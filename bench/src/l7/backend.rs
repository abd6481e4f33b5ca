//! The backend: nginx with one worker and a small fixed answer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where backends speak HTTP/1.1.
pub const HTTP1_PORT: u16 = 9080;
/// Where backends speak HTTP/2 by prior knowledge.
pub const HTTP2_PORT: u16 = 9081;

/// What a backend of that version answers: about what Bookinfo's reviews does.
pub fn body(version: &str) -> String {
    format!(
        "{{\"id\":\"0\",\"podname\":\"reviews-{version}\",\"reviews\":[{{\"reviewer\":\"Reviewer1\",\
         \"text\":\"An extremely entertaining play\",\"rating\":{{\"stars\":5,\"color\":\"black\"}}}}]}}"
    )
}

/// Writes the configuration of a backend below `dir`; its file.
pub fn write(dir: &Path, version: &str) -> Result<PathBuf> {
    let servers = format!(
        "server {{\n listen {HTTP1_PORT} reuseport;\n listen {HTTP2_PORT} http2;\n location / {{\n  \
         default_type application/json;\n  return 200 '{}';\n }}\n}}\n",
        body(version)
    );
    write_nginx(dir, &format!("backend-{version}"), &servers)
}

/// Writes an nginx configuration with one worker and nothing logged, below a folder of its own.
pub fn write_nginx(dir: &Path, name: &str, http: &str) -> Result<PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let folder = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let text = format!(
        "user root;\nworker_processes 1;\ndaemon off;\nerror_log stderr error;\npid {folder}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nkeepalive_timeout 300s;\nkeepalive_requests 1000000000;\n\
         server_tokens off;\n{temporary}{http}}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
