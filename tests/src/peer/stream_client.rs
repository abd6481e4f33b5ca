//! `lab-peer stream-client`: opens connections and exchanges a stamped stream over each.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::poll;

use super::streams::{Carried, HEADER, Order, Plan, Side, Tally, header, new_id};

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags of a command line"
)]
pub(super) struct Arguments {
    /// `host:port`
    to: String,
    /// How many connections
    #[arg(short = 'n', long, default_value_t = 1)]
    connections: u64,
    /// How many at a time
    #[arg(short = 'c', long, default_value_t = 1)]
    concurrency: u64,
    /// Connect from this address
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// Connect and send the first bytes by `MSG_FASTOPEN`
    #[arg(long)]
    fastopen: bool,
    /// Connect without blocking, as what gives up after a time does, and block from then on
    #[arg(long)]
    connect_timeout: bool,
    /// Print a line `sent` once a stream is sent (with `--order first`)
    #[arg(long)]
    announce: bool,
    /// Keep every connection open until standard input ends
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    plan: Plan,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let tally = Tally::default();
    let next = AtomicU64::new(0);
    let held = Mutex::new(Vec::new());
    let work = || {
        while next.fetch_add(1, Ordering::SeqCst) < arguments.connections {
            match open(arguments) {
                Ok((stream, id)) => {
                    let result = exchange(arguments, &stream, id);
                    tally.add(Some(&stream), result);
                    if arguments.hold {
                        held.lock()
                            .expect("invariant: nothing panics here")
                            .push(stream);
                    }
                }
                Err(error) => tally.add(None, Err(error)),
            }
        }
    };
    if arguments.concurrency > 1 {
        std::thread::scope(|scope| {
            for _ in 0..arguments.concurrency {
                scope.spawn(work);
            }
        });
    } else {
        // A process of one thread is another thing to the kernel's part than one of several.
        work();
    }
    say(&tally.report().to_string())?;
    if arguments.hold {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    }
    Ok(())
}

/// A connection, and the id whose header is already on its way by `MSG_FASTOPEN`.
fn open(arguments: &Arguments) -> Result<(TcpStream, Option<u64>)> {
    let to = &arguments.to;
    let address = to
        .to_socket_addrs()
        .with_context(|| format!("find {to}"))?
        .next()
        .with_context(|| format!("{to} has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).context("socket")?;
    if let Some(bind) = arguments.bind {
        socket.set_reuse_address(true).context("set SO_REUSEADDR")?;
        socket
            .bind(&bind.into())
            .with_context(|| format!("bind {bind}"))?;
    }
    if !arguments.fastopen {
        let timeout = poll::patient(Duration::from_secs(arguments.plan.timeout_s));
        if arguments.plan.poll || arguments.connect_timeout {
            // Not blocking while it connects; blocking again afterwards, unless told otherwise.
            socket
                .connect_timeout(&address.into(), timeout)
                .with_context(|| format!("connect to {address}"))?;
        } else {
            socket
                .set_write_timeout(Some(timeout))
                .context("set SO_SNDTIMEO")?;
            socket
                .connect(&address.into())
                .with_context(|| format!("connect to {address}"))?;
        }
        return Ok((socket.into(), None));
    }
    let id = new_id();
    socket
        .set_nonblocking(arguments.plan.poll)
        .context("set O_NONBLOCK")?;
    let sent = socket
        .send_to_with_flags(
            &header(id, arguments.plan.bytes),
            &address.into(),
            libc::MSG_FASTOPEN,
        )
        .with_context(|| format!("connect to {address} by MSG_FASTOPEN"))?;
    ensure!(sent == HEADER, "MSG_FASTOPEN took {sent} bytes");
    Ok((socket.into(), Some(id)))
}

fn exchange(arguments: &Arguments, stream: &TcpStream, sent_id: Option<u64>) -> Result<Carried> {
    let side = Side::new(stream, &arguments.plan)?;
    if arguments.plan.order == Order::Last {
        return side.follow();
    }
    side.lead(sent_id.unwrap_or_else(new_id), sent_id.is_some(), || {
        if arguments.announce {
            // Nobody listens any more: then nobody waits for it.
            let _ = say(&json!("sent").to_string());
        }
    })
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").context("write to standard output")?;
    out.flush().context("write to standard output")
}
