//! DNS messages by hand: what a scenario sends and what came back, not read by what is tested.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};

/// A header's length.
const HEADER: usize = 12;
/// An OPT record of 4096 bytes with a cookie (RFC 7873), which nobody may change.
const EDNS: [u8; 23] = [
    0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
];

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;

/// A query that wants recursion.
pub(super) fn query(id: u16, name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if edns {
        bytes.extend(EDNS);
    }
    bytes
}

/// The name and type that a message asks for, and where its question ends.
pub(super) fn question(bytes: &[u8]) -> Result<(String, u16, usize)> {
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*bytes.get(at).context("cut short")?);
        let label = bytes.get(at + 1..at + 1 + length).context("cut short")?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(label)?);
    }
    let kind = number(bytes, at)?;
    Ok((name, kind, at + 4))
}

/// What an answer says: its code and addresses.
pub(super) fn answer(bytes: &[u8]) -> Result<(u8, Vec<IpAddr>)> {
    let (_, _, mut at) = question(bytes)?;
    let mut addresses = Vec::new();
    for _ in 0..number(bytes, 6)? {
        ensure!(bytes.get(at) == Some(&0xc0), "a name that is no pointer");
        let (kind, length) = (number(bytes, at + 2)?, number(bytes, at + 10)?);
        let data = bytes.get(at + 12..at + 12 + usize::from(length));
        let data = data.context("cut short")?;
        match kind {
            A => addresses.push(<[u8; 4]>::try_from(data)?.into()),
            AAAA => addresses.push(<[u8; 16]>::try_from(data)?.into()),
            _ => {}
        }
        at += 12 + usize::from(length);
    }
    Ok((bytes[3] & 15, addresses))
}

/// A resolver's answer: the query with an address, or with NXDOMAIN; what follows the question stays.
pub(super) fn respond(query: &[u8], address: Option<Ipv4Addr>) -> Result<Vec<u8>> {
    let (_, kind, end) = question(query)?;
    let mut bytes = query[..end].to_vec();
    bytes[2] |= 0x80;
    bytes[3] = if address.is_some() { 0x80 } else { 0x83 };
    if let (Some(address), A) = (address, kind) {
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address.octets());
    }
    bytes.extend(&query[end..]);
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize) -> Result<u16> {
    let pair = bytes.get(at..at + 2).context("cut short")?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
