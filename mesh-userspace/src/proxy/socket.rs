//! A TCP socket as hyper and the byte pump want it: bytes that were read to find out the protocol come
//! first, and what passes is counted.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that passed a socket; shared with whoever watches it for inactivity.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Read from the peer.
    pub read: Cell<u64>,
    /// Written to the peer.
    pub written: Cell<u64>,
}

/// A copy of what is written, where it is asked for: a request's head that may have to be sent again.
/// Copying some hundred bytes is much cheaper than keeping a clone of the parsed head.
#[derive(Debug, Default)]
pub struct Tap {
    open: Cell<bool>,
    bytes: RefCell<Vec<u8>>,
}

/// The largest head that is kept.
const TAP_LIMIT: usize = 32 * 1024;

impl Tap {
    /// Forgets what it has; keeps what comes if `open`.
    pub fn reset(&self, open: bool) {
        self.open.set(open);
        if open {
            self.bytes.borrow_mut().clear();
        }
    }

    /// Everything that was written since the last reset; `None` where it was not asked for or too much.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.open.replace(false).then(|| self.bytes.take())
    }

    fn keep<'b>(&self, mut n: usize, bufs: impl Iterator<Item = &'b [u8]>) {
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + n > TAP_LIMIT {
            self.open.set(false);
            return;
        }
        for buf in bufs {
            let part = buf.len().min(n);
            bytes.extend_from_slice(&buf[..part]);
            n -= part;
        }
    }
}

/// Bytes up to which several buffers are joined for one `send`.
const JOIN_LIMIT: usize = 8 * 1024;

thread_local! {
    static JOINED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(JOIN_LIMIT));
}

/// A connected TCP socket of this worker.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    tap: Rc<Tap>,
    /// Read again before the stream.
    unread: Bytes,
    /// Bytes that were written already by somebody else: the next ones are swallowed.
    skip: usize,
    traffic: Rc<Traffic>,
}

impl Socket {
    /// Takes a connected stream; small writes go out at once from here on.
    pub fn new(stream: TcpStream) -> Self {
        // Fails only on a socket that is already dead, which the next read reports better.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            tap: Rc::default(),
            unread: Bytes::new(),
            skip: 0,
            traffic: Rc::default(),
        }
    }

    /// What passed so far.
    pub fn traffic(&self) -> &Rc<Traffic> {
        &self.traffic
    }

    /// What it writes, once somebody asks for it.
    pub fn tap(&self) -> &Rc<Tap> {
        &self.tap
    }

    /// Puts bytes back: they are read before anything else.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            self.unread = bytes;
        } else if !bytes.is_empty() {
            self.unread = [bytes, std::mem::take(&mut self.unread)].concat().into();
        }
    }

    /// The next `bytes` that are written were sent already.
    pub fn skip_written(&mut self, bytes: usize) {
        self.skip += bytes;
    }

    /// Closes so that the peer sees a reset, as it would have if the other end's reset had reached it.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        // If it can't be set, the peer sees an orderly end: the best that is left.
        let _ = socket.set_linger(Some(Duration::ZERO));
    }

    /// `send` goes straight to the socket where `writev` takes the way of files first: a head and a small
    /// body are joined for it.
    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let [only] = bufs {
            return stream.poll_write(cx, only);
        }
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() > JOIN_LIMIT {
            return stream.poll_write_vectored(cx, bufs);
        }
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            for buf in bufs {
                joined.extend_from_slice(buf);
            }
            stream.poll_write(cx, joined)
        })
    }

    fn wrote(&self, n: usize) {
        let written = &self.traffic.written;
        written.set(written.get() + n as u64);
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let n = if self.unread.is_empty() {
            // SAFETY: tokio's ReadBuf writes initialised bytes only and never de-initialises any, which
            // is what `as_mut` asks for.
            let mut inner = ReadBuf::uninit(unsafe { buf.as_mut() });
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut inner))?;
            let n = inner.filled().len();
            // SAFETY: these `n` bytes were just filled.
            unsafe { buf.advance(n) };
            n
        } else {
            let n = buf.remaining().min(self.unread.len());
            buf.put_slice(&self.unread[..n]);
            self.unread.advance(n);
            n
        };
        let read = &self.traffic.read;
        read.set(read.get() + n as u64);
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.skip > 0 {
            let n = self.skip.min(buf.len());
            self.skip -= n;
            return Poll::Ready(Ok(n));
        }
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if self.tap.open.get() {
            self.tap.keep(n, std::iter::once(buf));
        }
        self.wrote(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.skip > 0 {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let n = ready!(self.poll_send(cx, bufs))?;
        if self.tap.open.get() {
            self.tap.keep(n, bufs.iter().map(|buf| &**buf));
        }
        self.wrote(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
