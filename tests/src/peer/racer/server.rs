//! The serving end: a listener for each variant, a task for each connection.

use std::cell::RefCell;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use rand::RngExt;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::end::{Carried, End, Place, pause};
use super::tally::Tally;
use super::variant::{self, Accepts, Ends, Variant};
use crate::{poll, sys};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections that may carry data with their SYN and wait to be accepted.
const FASTOPEN_QUEUE: i32 = 1024;
/// How long a connection may take, reset or not.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where to listen.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Where to listen; `::` takes IPv4, too
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    address: IpAddr,
}

/// Serves until standard input ends, then waits for what is under way and prints the tally.
pub async fn serve(arguments: Arguments) -> Result<()> {
    let variants: &'static [Variant] = Vec::leak(variant::all());
    let tally = Rc::new(RefCell::new(Tally::new(variants)));
    let local = LocalSet::new();
    for (index, variant) in variants.iter().enumerate() {
        let address = SocketAddr::new(arguments.address, variant::port(index));
        let listener = listen(variant, address).with_context(|| format!("listen on {address}"))?;
        let tally = Rc::clone(&tally);
        local.spawn_local(accept(listener, index, variant, tally));
    }
    println!("listening");
    let over = async {
        let input = tokio::task::spawn_blocking(|| {
            // Whatever ends the input ends the server.
            let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        });
        input
            .await
            .context("waiting for the end of standard input")?;
        // The listeners' tasks hold one each, and every connection has one.
        let idle = variants.len() + 1;
        let waiting = async {
            while Rc::strong_count(&tally) > idle {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What never ends counts as failed there, by its own time-out.
        let _ = timeout(poll::patient(PATIENCE) * 2, waiting).await;
        anyhow::Ok(())
    };
    local.run_until(over).await?;
    println!("{}", tally.borrow().report());
    Ok(())
}

fn listen(variant: &Variant, address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if variant.accepts == Accepts::Deferred {
        sys::defer_accept(&socket)?;
    }
    sys::fastopen_queue(&socket, FASTOPEN_QUEUE)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn accept(
    listener: TcpListener,
    index: usize,
    variant: &'static Variant,
    tally: Rc<RefCell<Tally>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let tally = Rc::clone(&tally);
                tokio::task::spawn_local(async move {
                    let result =
                        match timeout(poll::patient(PATIENCE), talk(stream, client, variant)).await
                        {
                            Ok(result) => result,
                            Err(_) => Err(anyhow::anyhow!("stuck with {client}")),
                        };
                    tally.borrow_mut().add(index, variant, result);
                });
            }
            Err(error) => {
                let error = anyhow::Error::from(error).context("accept");
                tally.borrow_mut().add(index, variant, Err(error));
            }
        }
        if variant.accepts == Accepts::Late && rand::rng().random_ratio(1, 3) {
            pause(0..=3000).await;
        }
    }
}

async fn talk(
    mut stream: TcpStream,
    client: SocketAddr,
    variant: &Variant,
) -> Result<Option<Carried>> {
    stream.set_nodelay(variant.no_delay)?;
    let end = End {
        place: Place::Server,
        variant,
        client: Some(client),
        begun: None,
    };
    let aborting = variant.ends == Ends::ServerAborts;
    let carried = tokio::select! {
        carried = end.converse(&mut stream) => carried.with_context(|| format!("from {client}"))?,
        () = pause(0..=1500), if aborting => {
            stream.set_zero_linger()?;
            return Ok(None);
        }
    };
    match variant.ends {
        Ends::ClientCloses => end.receive_end(&mut stream).await?,
        Ends::ClientResets => match end.receive_end(&mut stream).await {
            Err(error) if is_reset(&error) => {}
            other => other?,
        },
        Ends::ServerCloses | Ends::HalfCloses | Ends::ClientAborts | Ends::ServerAborts => {}
    }
    Ok(Some(carried))
}

fn is_reset(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    })
}
