//! An end that holds many connections open, and asks over one after the other, by chance.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use super::client::Meter;
use super::{Address, Traffic, as_file};

/// Opens `connections` to the addresses in turn, each with one question and its answer, and prints what
/// that took. Then, for each line on standard input, a number of seconds, asks over connections by chance
/// for so long, and prints what that took. Ends with its input.
pub fn hold(size: usize, addresses: &[Address], connections: usize) -> io::Result<()> {
    let mut message = vec![0x5a; size];
    let mut open = Vec::with_capacity(connections);
    let mut meter = Meter::start(size);
    let mut last = meter.start;
    for address in addresses.iter().cycle().take(connections) {
        let mut connection = as_file(address.connect(Traffic::Ping)?);
        ask(&mut connection, &mut message)?;
        open.push(connection);
        last = meter.record(last);
    }
    println!("{}", serde_json::json!(meter.report()));
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for line in io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse().map_err(io::Error::other)?;
        let duration = Duration::from_secs_f64(seconds);
        let mut meter = Meter::start(size);
        let mut last = meter.start;
        while last - meter.start < duration {
            let number = chance.below(open.len());
            ask(&mut open[number], &mut message)?;
            last = meter.record(last);
        }
        println!("{}", serde_json::json!(meter.report()));
    }
    Ok(())
}

fn ask(connection: &mut File, message: &mut [u8]) -> io::Result<()> {
    connection.write_all(message)?;
    connection.read_exact(message)
}

/// Marsaglia's xorshift (2003): chance that costs nothing beside a system call.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
