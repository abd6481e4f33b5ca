//! The sign of life that the programs look for before they send a connection to the agent.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::kernel::node::Kernel;

/// A third of what the programs allow (`mesh_common::settings::HEARTBEAT_LIMIT_NS`).
const INTERVAL: Duration = Duration::from_secs(1);

/// A thread of its own: neither a large configuration nor a busy worker must look like death.
pub struct Heartbeat {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Heartbeat {
    /// Starts beating at once.
    pub fn start(kernel: Arc<Kernel>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || {
                loop {
                    if let Err(error) = kernel.beat() {
                        tracing::error!(%error, "writing the heartbeat");
                    }
                    match stopped.recv_timeout(INTERVAL) {
                        Err(mpsc::RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                    }
                }
                if let Err(error) = kernel.rest() {
                    tracing::error!(%error, "writing the heartbeat");
                }
            })?;
        Ok(Self { stop, thread })
    }

    /// Stops, and tells the programs so at once.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
