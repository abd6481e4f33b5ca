//! Queries over TCP: messages with their length before them (RFC 1035, 4.2.2; RFC 7766), several on one
//! connection. What does not begin as a query is carried as the bytes that it is.

use std::{io, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinHandle,
    time::timeout,
};

use super::pod::{PAUSE, Pod};
use crate::mesh::dns::{self, Decision, Transport};

/// How long a client may be silent on a connection of which no resolver knows.
const IDLE: Duration = Duration::from_secs(30);

/// How long the connection to a resolver may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a resolver may take for what is outstanding when the client has closed its half.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Of a message's length, in bytes.
const LENGTH: usize = 2;

/// A length and a header, in bytes.
const BEGINNING: usize = LENGTH + 12;

/// Serves what connects to a pod's slot, until it is aborted.
pub async fn serve(pod: Rc<Pod>, slot: u32, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                // Closing tells a client of too many.
                let Ok(permit) = pod.streams.clone().try_acquire_owned() else {
                    continue;
                };
                let pod = pod.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = connection(&pod, slot, client).await {
                        tracing::debug!(pod = %pod.sockets.pod, slot, %error, "a connection for names");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(pod = %pod.sockets.pod, %error, "accept failed, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(pod: &Rc<Pod>, slot: u32, client: TcpStream) -> io::Result<()> {
    let _ = client.set_nodelay(true);
    let (read, write) = client.into_split();
    let mut messages = Messages::new(read);
    let begins = timeout(IDLE, messages.fill(BEGINNING)).await??;
    let start = &messages.buffer[..];
    if begins && dns::is_query(&start[LENGTH..]) && length_of(start) >= BEGINNING {
        queries(pod, slot, messages, write).await
    } else {
        carry(pod, slot, messages, write).await
    }
}

/// Messages, each answered here or by the resolver, in whatever order.
async fn queries(
    pod: &Rc<Pod>,
    slot: u32,
    mut messages: Messages,
    client: OwnedWriteHalf,
) -> io::Result<()> {
    let client = Rc::new(Mutex::new(client));
    let counters = &pod.shared.counters;
    let mut upstream: Option<Upstream> = None;
    loop {
        let message = match &mut upstream {
            None => timeout(IDLE, messages.next()).await??,
            Some(upstream) => tokio::select! {
                message = messages.next() => message?,
                // As the client would have seen it.
                _ = &mut upstream.relay.0 => return Ok(()),
            },
        };
        let Some(message) = message else { break };
        let query = &message[LENGTH..];
        match pod.decide(query, Transport::Tcp) {
            Decision::Answer(answer) => {
                write(&client, &answer).await?;
                counters.answered();
            }
            Decision::Forward => {
                if upstream.is_none() {
                    match connect(pod, slot).await {
                        Ok(stream) => upstream = Some(Upstream::new(stream, client.clone())),
                        Err(error) => {
                            tracing::debug!(pod = %pod.sockets.pod, slot, %error, "a query has no resolver");
                            counters.failed();
                            if let Some(answer) = dns::failure(query) {
                                write(&client, &answer).await?;
                            }
                        }
                    }
                }
                if let Some(upstream) = &mut upstream {
                    upstream.write.write_all(&message).await?;
                    counters.forwarded();
                }
            }
        }
    }
    if let Some(mut upstream) = upstream {
        upstream.write.shutdown().await?;
        // What comes later has nobody who waits for it.
        let _ = timeout(LAST_ANSWERS, &mut upstream.relay.0).await;
    }
    Ok(())
}

/// Bytes both ways: this is no DNS, and the one who was dialled may know what it is.
async fn carry(pod: &Pod, slot: u32, messages: Messages, client: OwnedWriteHalf) -> io::Result<()> {
    let Messages { read, buffer } = messages;
    if buffer.is_empty() {
        return Ok(());
    }
    let mut upstream = connect(pod, slot).await?;
    upstream.write_all(&buffer).await?;
    let mut client = read.reunite(client).map_err(io::Error::other)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

async fn connect(pod: &Pod, slot: u32) -> io::Result<TcpStream> {
    let resolver = pod.resolver(slot)?;
    let socket = pod.shared.network.stream_socket(&pod.sockets, &resolver)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = timeout(CONNECT, socket.connect(resolver)).await??;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn write(client: &Mutex<OwnedWriteHalf>, answer: &[u8]) -> io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    // One write: some clients take one read for a message.
    let message = [&length.to_be_bytes(), answer].concat();
    client.lock().await.write_all(&message).await
}

/// A connection to a resolver; its messages go to the client as they come.
struct Upstream {
    write: OwnedWriteHalf,
    relay: Relay,
}

impl Upstream {
    fn new(stream: TcpStream, client: Rc<Mutex<OwnedWriteHalf>>) -> Self {
        let (read, write) = stream.into_split();
        let mut answers = Messages::new(read);
        let relay = tokio::task::spawn_local(async move {
            while let Ok(Some(message)) = answers.next().await {
                if client.lock().await.write_all(&message).await.is_err() {
                    break;
                }
            }
        });
        Self {
            write,
            relay: Relay(relay),
        }
    }
}

/// Ends with its owner.
struct Relay(JoinHandle<()>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Messages out of a stream.
struct Messages {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl Messages {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read,
            buffer: BytesMut::new(),
        }
    }

    /// Reads until there are `length` bytes. False: the stream ends before. Loses nothing when dropped.
    async fn fill(&mut self, length: usize) -> io::Result<bool> {
        while self.buffer.len() < length {
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next one with its length. None: the stream ends, be it in the middle of one.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if !self.fill(LENGTH).await? {
            return Ok(None);
        }
        let length = length_of(&self.buffer);
        if !self.fill(length).await? {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Of the message that a buffer begins with, its length included.
fn length_of(buffer: &[u8]) -> usize {
    LENGTH + usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))
}
