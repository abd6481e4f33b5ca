//! The serving end.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use socket2::Socket;

use super::{Address, Traffic, as_file};
use crate::sys::Poller;

/// The largest read: as large as the largest message.
const BUFFER: usize = 256 * 1024;

/// Serves until it is killed; prints `listening` when it does. On one thread: what a process with more
/// of them may expect of a socket is another matter.
pub fn serve(traffic: Traffic, size: usize, address: &Address) -> io::Result<()> {
    let listener = address.listen()?;
    println!("listening");
    match traffic {
        Traffic::Parallel => echo_many(&listener, size, address),
        Traffic::Ping | Traffic::Stream | Traffic::Connect => loop {
            let (socket, _) = listener.accept()?;
            address.prepare(&socket, traffic)?;
            let mut connection = as_file(socket);
            let served = match traffic {
                Traffic::Ping => echo(&mut connection, size),
                Traffic::Stream => count(&mut connection),
                _ => answer(&mut connection, size),
            };
            // A client that is done may reset its connection.
            served.or_else(|error| match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Ok(())
                }
                _ => Err(error),
            })?;
        },
    }
}

fn echo(connection: &mut File, size: usize) -> io::Result<()> {
    let mut message = vec![0; size];
    loop {
        connection.read_exact(&mut message)?;
        connection.write_all(&message)?;
    }
}

fn count(connection: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut total: u64 = 0;
    loop {
        match connection.read(&mut buffer)? {
            0 => return connection.write_all(&total.to_le_bytes()),
            length => total += length as u64,
        }
    }
}

fn answer(connection: &mut File, size: usize) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    let mut message = vec![0; size];
    connection.read_exact(&mut message)?;
    connection.write_all(&message)
}

/// One connection of many: how much of its message has come.
struct Connection {
    stream: File,
    received: usize,
}

fn echo_many(listener: &Socket, size: usize, address: &Address) -> io::Result<()> {
    const LISTENER: usize = usize::MAX;
    let mut poller = Poller::new()?;
    poller.add(listener, LISTENER)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut message = vec![0; size];
    loop {
        for number in poller.wait(Duration::from_secs(1))? {
            if number == LISTENER {
                let (socket, _) = listener.accept()?;
                address.prepare(&socket, Traffic::Parallel)?;
                let stream = as_file(socket);
                poller.add(&stream, connections.len())?;
                connections.push(Some(Connection {
                    stream,
                    received: 0,
                }));
                continue;
            }
            let Some(connection) = connections.get_mut(number).and_then(Option::as_mut) else {
                continue;
            };
            // Level-triggered: one read per event, which does not block.
            match connection.stream.read(&mut message[connection.received..]) {
                Ok(0) | Err(_) => connections[number] = None,
                Ok(length) => {
                    connection.received += length;
                    let whole = connection.received == size;
                    if whole {
                        connection.received = 0;
                    }
                    // A client that is done does not wait for the last answers.
                    if whole && connection.stream.write_all(&message).is_err() {
                        connections[number] = None;
                    }
                }
            }
        }
    }
}
