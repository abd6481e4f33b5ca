//! Bytes both ways between two streams until both directions have ended, half-close intact.
//!
//! Reading goes through one buffer per worker: an idle connection holds none. Only what a slow receiver
//! did not take is kept with the connection.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, Write};

/// Bytes per read.
const BUFFER: usize = 64 * 1024;

/// Reads in one direction before other tasks get their turn.
const TURNS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// A stream of bytes in hyper's terms.
pub trait Stream: Read + Write + Unpin {}

impl<S: Read + Write + Unpin> Stream for S {}

/// What to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From the client.
    Received,
    /// To the client.
    Sent,
}

/// A direction broke: one of the two peers is gone.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Broken(#[from] io::Error);

#[derive(Default)]
struct Direction {
    /// Read, not yet taken by the receiver.
    kept: Vec<u8>,
    taken: usize,
    read_ended: bool,
    ended: bool,
}

/// Runs until both have ended or one broke. `passed` hears of every chunk when it was written.
pub async fn pump(
    client: &mut impl Stream,
    server: &mut impl Stream,
    mut passed: impl FnMut(Flow, u64),
) -> Result<(), Broken> {
    let (mut request, mut response) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        let there = request.poll(cx, client, server, &mut |n| passed(Flow::Received, n))?;
        let back = response.poll(cx, server, client, &mut |n| passed(Flow::Sent, n))?;
        if there.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
        passed: &mut impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            ready!(self.poll_kept(cx, to, passed))?;
            if self.read_ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_chunk(cx, from, to, passed))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads a chunk and writes as much of it as the receiver takes.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
        passed: &mut impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, buf.unfilled()))?;
            let mut chunk = buf.filled();
            if chunk.is_empty() {
                self.read_ended = true;
            }
            while !chunk.is_empty() {
                let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, chunk)? else {
                    self.kept.extend_from_slice(chunk);
                    break;
                };
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                passed(written as u64);
                chunk = &chunk[written..];
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_kept(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Stream,
        passed: &mut impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.taken < self.kept.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.taken..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            passed(written as u64);
            self.taken += written;
        }
        self.kept = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }
}
