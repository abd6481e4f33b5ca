//! What goes over a connection in one direction: a header that says whose it is, then stamped bytes.
//!
//! The header: id, length, a hash of the client's end, and a sum of the three, 8 bytes each. Every
//! later byte follows from the id and its offset, so a byte that is lost, doubled, swapped or another
//! connection's does not match.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use crate::peer::stamp;

/// Bytes of the header.
pub(super) const HEADER: u64 = 32;
/// What the server adds to its stream when it has everything of the client's.
pub(super) const RECEIPT: u64 = 8;
/// What an answering stream's id differs by.
pub(super) const ANSWER: u64 = 0x5555_5555_5555_5555;
/// In place of the client's end, where the client did not know it yet.
pub(super) const UNKNOWN_END: u64 = 0;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whose bytes these are.
    pub id: u64,
    /// How many follow the header, without the receipt.
    pub length: u64,
    /// [`end_of`] the client's address; [`UNKNOWN_END`] where it did not know it.
    pub client: u64,
}

/// A direction that is being received.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    head: Vec<u8>,
    header: Option<Header>,
    received: u64,
}

/// A number for a client's address and port, the same for an IPv4 one and its IPv6-mapped form.
pub(super) fn end_of(client: SocketAddr) -> u64 {
    let octets = match client.ip().to_canonical() {
        std::net::IpAddr::V4(address) => u128::from(u32::from(address)),
        std::net::IpAddr::V6(address) => u128::from(address),
    };
    let folded = (octets >> 64) as u64 ^ octets as u64;
    stamp::word(folded, u64::from(client.port())) | 1
}

impl Header {
    fn sum(self) -> u64 {
        stamp::word(self.id ^ self.client.rotate_left(32), self.length)
    }

    fn bytes(self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        for (place, word) in
            bytes
                .chunks_exact_mut(8)
                .zip([self.id, self.length, self.client, self.sum()])
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let word = |index: usize| {
            let bytes = bytes[index * 8..][..8].try_into();
            u64::from_le_bytes(bytes.expect("invariant: 8 bytes"))
        };
        let header = Self {
            id: word(0),
            length: word(1),
            client: word(2),
        };
        ensure!(
            header.sum() == word(3),
            "the first {HEADER} bytes are no header: {bytes:02x?}"
        );
        Ok(header)
    }

    /// Where the stream ends, receipt included where `receipt`.
    pub(super) fn end(self, receipt: bool) -> u64 {
        HEADER + self.length + if receipt { RECEIPT } else { 0 }
    }

    /// Where part `turn` of `turns` ends.
    pub(super) fn end_of_turn(self, turn: u64, turns: u64) -> u64 {
        HEADER + self.length * turn / turns
    }

    /// Writes the direction's bytes from `place` on.
    pub(super) fn fill(self, place: u64, bytes: &mut [u8]) {
        let head = self.bytes();
        let mut rest = bytes;
        if place < HEADER {
            let part = &head[place as usize..];
            let length = part.len().min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&part[..length]);
            rest = later;
        }
        stamp::fill(self.id, place.saturating_sub(HEADER), rest);
    }
}

impl Incoming {
    /// What was announced, once the whole header is there.
    pub(super) fn header(&self) -> Option<Header> {
        self.header
    }

    /// How many bytes have come, header included.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Checks bytes that have come.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.header.is_none() {
            let missing = HEADER as usize - self.head.len();
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            self.head.extend_from_slice(head);
            self.received += head.len() as u64;
            bytes = rest;
            if self.head.len() == HEADER as usize {
                self.header = Some(Header::parse(&self.head)?);
            }
        }
        let Some(header) = self.header else {
            return Ok(());
        };
        let offset = self.received - HEADER;
        if let Some(wrong) = stamp::first_mismatch(header.id, offset, bytes) {
            let index = (wrong - offset) as usize;
            let shown = &bytes[index..bytes.len().min(index + 16)];
            let found = stamp::find(header.id, header.length + RECEIPT, shown);
            bail!(
                "stream {:x} of {} bytes is wrong at {wrong}: {shown:02x?}, which {}",
                header.id,
                header.length,
                found.map_or("is nowhere in it".to_owned(), |place| format!(
                    "is at {place} of it"
                ))
            );
        }
        self.received += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Header = Header {
        id: 7,
        length: 100,
        client: 9,
    };

    fn wire() -> Vec<u8> {
        let mut bytes = vec![0; STREAM.end(true) as usize];
        STREAM.fill(0, &mut bytes);
        bytes
    }

    #[test]
    fn a_direction_is_taken_however_it_is_cut() -> Result<()> {
        let wire = wire();
        for cut in 0..wire.len() {
            let mut incoming = Incoming::default();
            incoming.take(&wire[..cut])?;
            incoming.take(&wire[cut..])?;
            assert_eq!(incoming.header(), Some(STREAM));
            assert_eq!(incoming.received(), STREAM.end(true));
            let mut again = wire[..cut].to_vec();
            again.resize(wire.len(), 0);
            STREAM.fill(cut as u64, &mut again[cut..]);
            assert_eq!(again, wire, "filled from {cut}");
        }
        Ok(())
    }

    #[test]
    fn what_is_lost_or_swapped_is_refused_with_its_place() {
        let wire = wire();
        let mut lost = wire.clone();
        lost.drain(40..48);
        let error = Incoming::default()
            .take(&lost)
            .expect_err("8 bytes are missing");
        assert!(error.to_string().contains("wrong at 8"), "{error}");
        assert!(error.to_string().contains("is at 16 of it"), "{error}");
        assert!(Incoming::default().take(&wire[1..]).is_err());
    }

    #[test]
    fn an_end_is_the_same_in_both_forms() {
        let plain: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().expect("an address");
        let other: SocketAddr = "10.0.0.1:81".parse().expect("an address");
        assert_eq!(end_of(plain), end_of(mapped));
        assert_ne!(end_of(plain), end_of(other));
    }
}
