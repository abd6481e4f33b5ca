//! The driving end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{Address, Load, Report, Traffic, as_file};
use crate::sys::{self, Poller};

/// How long an operation repeats before it is measured.
const WARM_UP: Duration = Duration::from_millis(20);

/// Runs a load against a server.
pub fn drive(load: &Load, address: &Address) -> io::Result<Report> {
    match load.traffic {
        Traffic::Ping => ping(load, address),
        Traffic::Stream => stream(load, address),
        Traffic::Parallel => parallel(load, address),
        Traffic::Connect => connect(load, address),
    }
}

/// Times operations one by one.
pub(super) struct Meter {
    size: usize,
    pub(super) start: Instant,
    cpu_before: f64,
    nanoseconds: Vec<u32>,
    connect_nanoseconds: Vec<u32>,
}

impl Meter {
    pub(super) fn start(size: usize) -> Self {
        Self {
            size,
            nanoseconds: Vec::with_capacity(1 << 20),
            connect_nanoseconds: Vec::new(),
            cpu_before: sys::processor_seconds(),
            start: Instant::now(),
        }
    }

    pub(super) fn record(&mut self, since: Instant) -> Instant {
        let now = Instant::now();
        self.nanoseconds.push(nanoseconds(now - since));
        now
    }

    pub(super) fn report(mut self) -> Report {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu_seconds = sys::processor_seconds() - self.cpu_before;
        let operations = self.nanoseconds.len() as u64;
        self.nanoseconds.sort_unstable();
        self.connect_nanoseconds.sort_unstable();
        Report {
            operations,
            bytes: operations * self.size as u64,
            seconds,
            cpu_seconds,
            p50_us: quantile_us(&self.nanoseconds, 0.5),
            p99_us: quantile_us(&self.nanoseconds, 0.99),
            connect_p50_us: quantile_us(&self.connect_nanoseconds, 0.5),
        }
    }
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

fn quantile_us(sorted: &[u32], quantile: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (last as f64 * quantile).round() as usize;
    f64::from(sorted[index]) / 1000.0
}

fn ping(load: &Load, address: &Address) -> io::Result<Report> {
    let mut connection = as_file(address.connect(load.traffic)?);
    let mut message = vec![0x5a; load.size];
    let mut round_trip = |connection: &mut File| {
        connection.write_all(&message)?;
        connection.read_exact(&mut message)
    };
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        round_trip(&mut connection)?;
    }
    let mut meter = Meter::start(load.size);
    let mut last = meter.start;
    while last - meter.start < load.duration {
        round_trip(&mut connection)?;
        last = meter.record(last);
    }
    Ok(meter.report())
}

/// Ends when the receiver has consumed everything: what is queued does not count as carried.
fn stream(load: &Load, address: &Address) -> io::Result<Report> {
    let socket = address.connect(load.traffic)?;
    let mut connection = as_file(socket.try_clone()?);
    let message = vec![0x5a; load.size];
    let (start, cpu_before) = (Instant::now(), sys::processor_seconds());
    let mut sent: u64 = 0;
    while start.elapsed() < load.duration {
        // Reading the clock for each tiny message would be part of what is measured.
        for _ in 0..32 {
            connection
                .write_all(&message)
                .map_err(|error| io::Error::new(error.kind(), format!("sending: {error}")))?;
        }
        sent += 32 * load.size as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    // A read that blocks could return EAGAIN when the FIN is acknowledged, if the socket is redirected to.
    let mut poller = Poller::new()?;
    poller.add(&connection, 0)?;
    while poller.wait(Duration::from_secs(1))?.next().is_none() {}
    let mut count = [0; 8];
    connection
        .read_exact(&mut count)
        .map_err(|error| io::Error::new(error.kind(), format!("waiting for the count: {error}")))?;
    let bytes = u64::from_le_bytes(count);
    if bytes != sent {
        return Err(io::Error::other(format!(
            "sent {sent} bytes, {bytes} arrived"
        )));
    }
    Ok(Report {
        operations: sent / load.size as u64,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: sys::processor_seconds() - cpu_before,
        ..Report::default()
    })
}

fn parallel(load: &Load, address: &Address) -> io::Result<Report> {
    let mut poller = Poller::new()?;
    let mut message = vec![0x5a; load.size];
    let mut connections = Vec::new();
    for number in 0..load.connections {
        let stream = as_file(address.connect(load.traffic)?);
        poller.add(&stream, number)?;
        connections.push((stream, 0, Instant::now()));
    }
    for (stream, _, sent) in &mut connections {
        *sent = Instant::now();
        stream.write_all(&message)?;
    }
    let mut meter = Meter::start(load.size);
    while meter.start.elapsed() < load.duration {
        for number in poller.wait(Duration::from_secs(1))? {
            let (stream, received, sent) = &mut connections[number];
            match stream.read(&mut message[*received..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => *received += length,
            }
            if *received == load.size {
                *received = 0;
                *sent = meter.record(*sent);
                stream.write_all(&message)?;
            }
        }
    }
    Ok(meter.report())
}

fn connect(load: &Load, address: &Address) -> io::Result<Report> {
    let mut message = vec![0x5a; load.size];
    let mut meter = Meter::start(load.size);
    let mut last = meter.start;
    while last - meter.start < load.duration {
        let before = Instant::now();
        let socket = address.connect(load.traffic)?;
        meter
            .connect_nanoseconds
            .push(nanoseconds(before.elapsed()));
        // Closed by a reset: a connection in TIME_WAIT would cost a port for a minute.
        if matches!(address, Address::Tcp(_)) {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let mut connection = as_file(socket);
        if load.size == 0 {
            // The server closes; else a client that outruns it would fill its backlog.
            let _ = connection.read(&mut [0])?;
        } else {
            connection.write_all(&message)?;
            connection.read_exact(&mut message)?;
        }
        drop(connection);
        last = meter.record(last);
    }
    Ok(meter.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        assert!((quantile_us(&[1000, 2000, 3000], 0.5) - 2.0).abs() < f64::EPSILON);
        assert!((quantile_us(&[1000, 2000, 3000], 0.99) - 3.0).abs() < f64::EPSILON);
        assert!(quantile_us(&[], 0.5).abs() < f64::EPSILON);
    }
}
