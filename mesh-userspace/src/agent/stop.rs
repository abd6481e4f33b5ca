//! The agent while it runs, and its ends: a signal, or another agent that takes over.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
};

use tokio::{
    net::UnixListener,
    sync::oneshot,
    task::{self, JoinHandle},
};

use super::{
    AgentError,
    control::ControlThread,
    events::EventsThread,
    handover::{HandoverError, Label, give::Successor},
    only_one::OnlyOne,
    signals::Signals,
    system,
};
use crate::{cli::agent_args::HandedOver, dns::Dns, kernel::node::Kernel, proxy::Proxy};

/// Everything that has to end in order.
pub struct Running {
    pub bpffs: PathBuf,
    /// The folder that this agent pins below.
    pub layout: String,
    pub handed_over: HandedOver,
    pub only_one: OnlyOne,
    /// Where it answers, and one more descriptor of it.
    pub admin: (SocketAddr, TcpListener),
    pub control: ControlThread,
    pub kernel: Arc<Kernel>,
    pub dns: Option<Arc<Dns>>,
    pub proxy: Arc<Proxy>,
    pub events: EventsThread,
    /// Ends the admin server; ends with it.
    pub admin_server: (oneshot::Sender<()>, JoinHandle<()>),
}

enum End {
    Signal(&'static str),
    HandedOver,
    /// The programs are those of an agent that wanted to take over, and did not come to serve.
    Displaced(HandoverError),
}

impl Running {
    /// Serves, and ends as it should.
    pub async fn until_the_end(self, signals: &mut Signals) -> Result<(), AgentError> {
        let end = self
            .wait(signals)
            .await
            .map_err(system("waiting for another agent"))?;
        match end {
            End::Signal(signal) => {
                self.stop(signal).await;
                Ok(())
            }
            End::HandedOver => {
                self.leave(signals).await;
                Ok(())
            }
            End::Displaced(error) => {
                self.stop("another agent").await;
                Err(AgentError::Displaced(error))
            }
        }
    }

    async fn wait(&self, signals: &mut Signals) -> io::Result<End> {
        let claim = self.only_one.again()?;
        claim.set_nonblocking(true)?;
        let claim = UnixListener::from_std(claim)?;
        loop {
            let stream = tokio::select! {
                signal = signals.next() => return Ok(End::Signal(signal)),
                accepted = claim.accept() => accepted?.0.into_std()?,
            };
            match self.hand_over(stream).await {
                Ok(()) => return Ok(End::HandedOver),
                Err(error) if !self.kernel.in_force() => return Ok(End::Displaced(error)),
                Err(error) => tracing::warn!(%error, "no other agent has taken over"),
            }
        }
    }

    /// Gives everything to a new agent, and returns when that one serves. Where it does not come to that,
    /// this one goes on.
    async fn hand_over(&self, stream: UnixStream) -> Result<(), HandoverError> {
        let bpffs = self.bpffs.clone();
        let successor = blocking(move || Successor::meet(stream, &bpffs)).await?;
        tracing::info!(
            layout = successor.layout(),
            "another agent is about to take over"
        );
        let all = self.everything(&successor).await;
        let given = match all {
            Ok(all) => blocking(move || successor.give(all)).await,
            Err(source) => Err(HandoverError::Talk {
                operation: "duplicating the listeners",
                source,
            }),
        };
        if given.is_err() {
            self.control.resume();
        }
        given
    }

    async fn everything(&self, successor: &Successor) -> io::Result<Vec<(Label, OwnedFd)>> {
        let pods = self.control.pause().await?;
        let (address, listener) = &self.admin;
        let mut all: Vec<(Label, OwnedFd)> = vec![
            (Label::Claim, self.only_one.again()?.into()),
            (Label::Admin(*address), listener.try_clone()?.into()),
        ];
        // Where the clients of these wanted to go is in this layout's maps, which the other does not read.
        // It listens elsewhere, and these are served until the programs send nobody here.
        if successor.layout() == self.layout {
            all.extend(pods);
        }
        Ok(all)
    }

    /// Another agent serves, on the same sockets where it could take them.
    async fn leave(self, signals: &mut Signals) {
        tracing::info!("another agent has taken over: what was begun here is finished");
        drop((self.only_one, self.admin));
        // The ring is the other's to read.
        self.events.stop();
        let (stop, serving) = self.admin_server;
        let _ = stop.send(());
        self.control.leave().await;
        if let Some(dns) = self.dns {
            dns.drain().await;
        }
        tokio::select! {
            () = self.proxy.leave() => {}
            _ = signals.next() => {
                self.proxy.drain().await;
                return;
            }
        }
        let _ = serving.await;
        if self.handed_over == HandedOver::Wait {
            tracing::info!("nothing is left to do: waiting for SIGTERM");
            signals.next().await;
        }
    }

    async fn stop(self, why: &str) {
        tracing::info!(signal = why, "stopping: requests under way are finished");
        let (stop, serving) = self.admin_server;
        // New connections get their failure policy before the first listener goes.
        self.control.stop().await;
        if let Some(dns) = self.dns {
            dns.drain().await;
        }
        self.proxy.drain().await;
        self.events.stop();
        let _ = stop.send(());
        let _ = serving.await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HandoverError> + Send + 'static,
) -> Result<T, HandoverError> {
    task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(HandoverError::Talk {
            operation: "running in another thread",
            source: io::Error::other(error),
        })
    })
}
