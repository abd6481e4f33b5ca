//! A configuration of a size: services that nobody dials, with pods of another node behind them.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;

use crate::Manifests;

/// How many services, and how many pods behind each.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Services, 65,000 at most; each with one TCP port.
    pub services: u32,
    /// Pods behind each.
    pub endpoints: u32,
}

/// Services that are written to one file.
const SERVICES_A_FILE: u32 = 250;
/// Far from the lab's own addresses.
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 0);
const PODS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);

impl Crowd {
    /// The address of the service `number`.
    pub fn service(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(SERVICES) + number)
    }

    /// Writes it all into the folder; gives the files.
    pub fn write(self, into: &Manifests) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut first = 0;
        while first < self.services {
            let last = self.services.min(first + SERVICES_A_FILE);
            let text: String = (first..last).map(|number| self.document(number)).collect();
            files.push(into.write(&format!("crowd-{first}.yaml"), &text)?);
            first = last;
        }
        Ok(files)
    }

    fn document(self, number: u32) -> String {
        let address = Self::service(number);
        let mut text = format!(
            "---\n\
             apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: service-{number}, namespace: crowd}}\n\
             spec: {{clusterIP: {address}, selector: {{app: app-{number}}}, \
             ports: [{{name: tcp, port: 8080, targetPort: 8080}}]}}\n"
        );
        for pod in 0..self.endpoints {
            let address = Ipv4Addr::from(u32::from(PODS) + number * self.endpoints + pod);
            let _ = write!(
                text,
                "---\n\
                 apiVersion: v1\n\
                 kind: Pod\n\
                 metadata: {{name: service-{number}-5f6d7c8b9-{pod:05}, namespace: crowd, \
                 labels: {{app: app-{number}}}}}\n\
                 spec: {{nodeName: another-node, serviceAccountName: app-{number}}}\n\
                 status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
            );
        }
        text
    }
}
