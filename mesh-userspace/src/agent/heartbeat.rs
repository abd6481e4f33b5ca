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
    stop: mpsc::Sender<Last>,
    thread: JoinHandle<()>,
}

/// What becomes of the sign of life.
enum Last {
    /// The programs are told that there is no agent.
    Rest,
    /// Another agent gives it.
    Leave,
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
                        Ok(Last::Leave) => return,
                        Ok(Last::Rest) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
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
        self.end(Last::Rest);
    }

    /// Stops, and leaves it to another agent, which gives signs of life already.
    pub fn leave(self) {
        self.end(Last::Leave);
    }

    fn end(self, last: Last) {
        let _ = self.stop.send(last);
        let _ = self.thread.join();
    }
}
