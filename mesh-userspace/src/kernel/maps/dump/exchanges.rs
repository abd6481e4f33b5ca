//! UDP sockets that talk to services, and which endpoints stand for these.

use mesh_common::datagram::CONNECTED;
use serde_json::json;

use super::{Entries, MapsError, PinnedMaps, at};
use crate::kernel::datagrams;

impl PinnedMaps {
    /// By the sockets' cookies.
    pub(super) fn exchanges(&self, workload: &dyn Fn(u32) -> String) -> Result<Entries, MapsError> {
        let path = self.directory.join("exchanges");
        let sockets = datagrams::read(&path).map_err(|source| MapsError::Read {
            path: path.clone(),
            source,
        })?;
        let mut entries: Entries = sockets
            .iter()
            .map(|socket| {
                let services: Vec<_> = datagrams::taken(socket)
                    .map(|entry| {
                        json!({
                            "service": at(entry.service_address, entry.service_port),
                            "endpoint": at(entry.endpoint_address, entry.endpoint_port),
                            "connected": entry.used == CONNECTED,
                        })
                    })
                    .collect();
                let value = json!({
                    "source": workload(socket.source), "netns": socket.netns.to_string(),
                    "sent": socket.clock, "services": services,
                });
                (json!(socket.cookie.to_string()), value)
            })
            .collect();
        entries.sort_by_cached_key(|(key, _)| key.to_string());
        Ok(entries)
    }
}
