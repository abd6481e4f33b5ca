//! `lab-peer stream-server`: accepts connections and exchanges a stamped stream over each.

use std::io::BufRead;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::{Context, Result};
use clap::Args;

use super::streams::{Order, Plan, Side, Tally, new_id};
use crate::sys;

#[derive(Clone, Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags of a command line"
)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7000")]
    listen: SocketAddr,
    /// End after so many connections; without it, when standard input ends
    #[arg(short = 'n', long)]
    connections: Option<u64>,
    /// Send everything back instead
    #[arg(long)]
    echo: bool,
    /// Have connections only once they carry data: `TCP_DEFER_ACCEPT`
    #[arg(long)]
    defer_accept: bool,
    /// One connection after the other, in one thread (`together` still needs a second)
    #[arg(long)]
    serial: bool,
    /// Close no connection before the end
    #[arg(long)]
    keep: bool,
    /// Accept nothing before a line comes on standard input
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    plan: Plan,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("listen on {}", arguments.listen))?;
    if arguments.defer_accept {
        sys::defer_accept(&listener).context("set TCP_DEFER_ACCEPT")?;
    }
    if arguments.hold {
        std::io::stdin().lock().read_line(&mut String::new())?;
    }
    let tally = Arc::new(Tally::default());
    if arguments.serial {
        let count = arguments
            .connections
            .context("--serial needs --connections")?;
        for stream in listener.incoming().take(count as usize) {
            serve(stream, arguments, &tally);
        }
    } else {
        serve_in_threads(listener, arguments, &tally)?;
    }
    println!("{}", tally.report());
    Ok(())
}

/// Until enough connections were served, or standard input has ended.
fn serve_in_threads(
    listener: TcpListener,
    arguments: &Arguments,
    tally: &Arc<Tally>,
) -> Result<()> {
    let (done, finished) = channel();
    if arguments.connections.is_none() {
        let done = done.clone();
        std::thread::spawn(move || {
            // Whatever ends the input ends the server.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = done.send(u64::MAX);
        });
    }
    let (shared, theirs) = (Arc::clone(tally), arguments.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (arguments, tally, done) = (theirs.clone(), Arc::clone(&shared), done.clone());
            std::thread::spawn(move || {
                serve(stream, &arguments, &tally);
                // The receiver has ended with all that it waited for.
                let _ = done.send(1);
            });
        }
    });
    let wanted = arguments.connections.unwrap_or(u64::MAX);
    let mut count = 0_u64;
    while count < wanted {
        count = count.saturating_add(finished.recv().context("the listener is gone")?);
    }
    Ok(())
}

fn serve(stream: std::io::Result<TcpStream>, arguments: &Arguments, tally: &Tally) {
    let stream = match stream.context("accept") {
        Ok(stream) => stream,
        Err(error) => return tally.add(None, Err(error)),
    };
    let result = Side::new(&stream, &arguments.plan).and_then(|side| match arguments.plan.order {
        _ if arguments.echo => side.echo(),
        Order::First => side.lead(new_id(), false, || ()),
        Order::Together | Order::Last => side.follow(),
    });
    tally.add(Some(&stream), result);
    if arguments.keep {
        // Ends with the process.
        std::mem::forget(stream);
    }
}
