//! One end of a connection: the conversation that its variant says, every byte checked.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream as Blocking};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::variant::{Ends, Speaks, Talk, Variant};
use super::wire::{ANSWER, Header, Incoming, UNKNOWN_END, end_of};

/// The largest read; one that lags takes less.
const READ: usize = 64 * 1024;
const LAGGING_READ: usize = 3000;

/// A socket whose reads and writes block the thread, for `async` code.
#[derive(Debug)]
pub(super) struct BlockingSocket(pub Blocking);

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Client,
    Server,
}

/// One end.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub place: Place,
    pub variant: &'a Variant,
    /// The client's address, as this end sees it; not known before a connection that its first send
    /// opens.
    pub client: Option<SocketAddr>,
    /// Bytes that the opening has sent already, of a stream that was announced so.
    pub begun: Option<(Header, u64)>,
}

/// What a whole conversation carried, headers and receipt included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub sent: u64,
    pub received: u64,
}

/// A direction that is being sent.
#[derive(Debug)]
struct Outgoing {
    header: Header,
    sent: u64,
    write: RangeInclusive<usize>,
}

impl End<'_> {
    fn talk(&self) -> &Talk {
        match self.place {
            Place::Client => &self.variant.client,
            Place::Server => &self.variant.server,
        }
    }

    /// What this end will send. Whoever speaks second answers to the id of whom it has heard.
    pub(super) fn announce(&self, heard: Option<Header>) -> Header {
        let mut rng = rand::rng();
        Header {
            id: heard.map_or_else(|| rng.random(), |heard| heard.id ^ ANSWER),
            // No turn's part is empty: its hearer would not wait for it.
            length: (rng.random_range(self.talk().bytes.clone()) as u64).max(self.variant.turns),
            client: self.client.map_or(UNKNOWN_END, end_of),
        }
    }

    /// The whole conversation, but for the end that the variant's last step makes.
    pub(super) async fn converse<S>(&self, stream: &mut S) -> Result<Carried>
    where
        S: AsyncRead + AsyncWrite + Unpin + Halves,
    {
        let mut incoming = Incoming::default();
        let leads = match self.variant.speaks {
            Speaks::Both => return self.together(stream).await,
            Speaks::Client => self.place == Place::Client,
            Speaks::Server => self.place == Place::Server,
        };
        let turns = self.variant.turns;
        let mut outgoing = None;
        for turn in 1..=turns {
            if leads {
                self.say(stream, &mut outgoing, None, turn).await?;
            }
            self.hear(stream, &mut incoming, turn, outgoing.as_ref())
                .await?;
            if !leads {
                self.say(stream, &mut outgoing, incoming.header(), turn)
                    .await?;
            }
        }
        let mut outgoing = outgoing.context("invariant: there is a turn")?;
        match self.place {
            Place::Server => {
                outgoing
                    .send_until(stream, outgoing.header.end(true))
                    .await?;
            }
            Place::Client => {
                let end = incoming.header().context("invariant: heard")?.end(true);
                self.receive_until(stream, &mut incoming, end).await?;
            }
        }
        Ok(Carried {
            sent: outgoing.sent,
            received: incoming.received(),
        })
    }

    /// Sends a turn's part.
    async fn say<S: AsyncWrite + Unpin + Halves>(
        &self,
        stream: &mut S,
        outgoing: &mut Option<Outgoing>,
        heard: Option<Header>,
        turn: u64,
    ) -> Result<()> {
        let outgoing = outgoing.get_or_insert_with(|| self.outgoing(heard));
        let end = outgoing.header.end_of_turn(turn, self.variant.turns);
        outgoing.send_until(stream, end).await?;
        if self.half_closes(Place::Client) {
            stream.end_sending().context("shut down the sending side")?;
        }
        Ok(())
    }

    /// Receives a turn's part.
    async fn hear<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        incoming: &mut Incoming,
        turn: u64,
        said: Option<&Outgoing>,
    ) -> Result<()> {
        let header = self.receive_header(stream, incoming).await?;
        if let Some(said) = said {
            ensure!(
                header.id == said.header.id ^ ANSWER,
                "the answer {:x} is not to {:x}",
                header.id,
                said.header.id
            );
        }
        let last = turn == self.variant.turns && self.variant.speaks == Speaks::Client;
        let end = if last && self.place == Place::Client {
            // Nothing is left to be said, so the receipt is right behind.
            header.end(true)
        } else {
            header.end_of_turn(turn, self.variant.turns)
        };
        self.receive_until(stream, incoming, end).await?;
        if self.half_closes(Place::Server) {
            self.receive_end(stream).await?;
        }
        Ok(())
    }

    fn half_closes(&self, place: Place) -> bool {
        self.variant.ends == Ends::HalfCloses && self.place == place
    }

    async fn together<S>(&self, stream: &mut S) -> Result<Carried>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut outgoing = self.outgoing(None);
        let mut incoming = Incoming::default();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let end = outgoing.header.end(false);
        let sending = outgoing.send_until(&mut writer, end);
        let receiving = async {
            let header = self.receive_header(&mut reader, &mut incoming).await?;
            let end = header.end(self.place == Place::Client);
            self.receive_until(&mut reader, &mut incoming, end).await
        };
        let (sent, received) = match self.place {
            Place::Client => tokio::join!(sending, receiving),
            // The receipt stands behind the stream, so both are done before it is sent.
            Place::Server => {
                let (sent, received) = tokio::join!(sending, receiving);
                if sent.is_ok() && received.is_ok() {
                    let end = outgoing.header.end(true);
                    (outgoing.send_until(&mut writer, end).await, received)
                } else {
                    (sent, received)
                }
            }
        };
        received?;
        sent?;
        Ok(Carried {
            sent: outgoing.sent,
            received: incoming.received(),
        })
    }

    fn outgoing(&self, heard: Option<Header>) -> Outgoing {
        let (header, sent) = self.begun.unwrap_or_else(|| (self.announce(heard), 0));
        Outgoing {
            header,
            sent,
            write: self.talk().write.clone(),
        }
    }

    async fn receive_header<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        incoming: &mut Incoming,
    ) -> Result<Header> {
        loop {
            if let Some(header) = incoming.header() {
                let known = self.client.map(end_of);
                ensure!(
                    known.is_none() || header.client == UNKNOWN_END || known == Some(header.client),
                    "stream {:x} is another connection's: this client is {:?}",
                    header.id,
                    self.client
                );
                return Ok(header);
            }
            self.receive_some(stream, incoming).await?;
        }
    }

    async fn receive_until<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        incoming: &mut Incoming,
        end: u64,
    ) -> Result<()> {
        while incoming.received() < end {
            self.receive_some(stream, incoming).await?;
        }
        // A full buffer is read, not only what is expected: what is too much shows, and a short read
        // means what it means to every reader that waits for edges.
        ensure!(
            incoming.received() == end,
            "{} bytes came where {end} were due: {:?}",
            incoming.received(),
            incoming.header()
        );
        Ok(())
    }

    async fn receive_some<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        incoming: &mut Incoming,
    ) -> Result<()> {
        let size = if self.talk().lags { LAGGING_READ } else { READ };
        let mut chunk = vec![0; size];
        let length = stream
            .read(&mut chunk)
            .await
            .with_context(|| format!("receive after {} bytes", incoming.received()))?;
        if length == 0 {
            let header = incoming.header();
            return Err(io::Error::from(ErrorKind::UnexpectedEof)).with_context(|| {
                format!("the end after {} bytes of {header:?}", incoming.received())
            });
        }
        incoming.take(&chunk[..length])?;
        if self.talk().lags && rand::rng().random_ratio(1, 16) {
            pause(300..=1500).await;
        }
        Ok(())
    }

    /// The peer's end of stream, and nothing before it.
    pub(super) async fn receive_end<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<()> {
        let mut byte = [0; 64];
        match stream.read(&mut byte).await.context("receive the end")? {
            0 => Ok(()),
            more => bail!("{more} bytes after the end: {:02x?}", &byte[..more]),
        }
    }
}

impl Outgoing {
    async fn send_until<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, end: u64) -> Result<()> {
        let mut chunk = Vec::new();
        while self.sent < end {
            let size = rand::rng().random_range(self.write.clone()) as u64;
            chunk.resize(size.min(end - self.sent) as usize, 0);
            self.header.fill(self.sent, &mut chunk);
            stream
                .write_all(&chunk)
                .await
                .with_context(|| format!("send after {} bytes of {:?}", self.sent, self.header))?;
            self.sent += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Some microseconds, by chance.
pub(super) async fn pause(microseconds: RangeInclusive<u64>) {
    let pause = rand::rng().random_range(microseconds);
    tokio::time::sleep(Duration::from_micros(pause)).await;
}

/// Whose sending side can be ended alone.
pub(super) trait Halves {
    fn end_sending(&self) -> io::Result<()>;
}

impl Halves for TcpStream {
    fn end_sending(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}

impl Halves for BlockingSocket {
    fn end_sending(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

/// A blocking read that gives EAGAIN lies, unless it waited for its time-out: it is not tried again.
impl AsyncRead for BlockingSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = &self.0;
        let length = io::Read::read(&mut socket, into.initialize_unfilled())?;
        into.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BlockingSocket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = &self.0;
        Poll::Ready(io::Write::write(&mut socket, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}
