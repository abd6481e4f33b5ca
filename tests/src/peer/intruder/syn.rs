//! A SYN written by hand: whatever source it claims, whatever stands in front of it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Args;
use socket2::{Domain, SockAddr};

use super::{Ends, families, raw_socket};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where it says that it comes from
    #[arg(long)]
    from: SocketAddr,
    /// Where it goes to
    #[arg(long)]
    to: SocketAddr,
    /// IPv4: this many words of options before the TCP header
    #[arg(long, default_value_t = 0)]
    options: u8,
    /// IPv6: this many destination options headers before the TCP header
    #[arg(long, default_value_t = 0)]
    extensions: usize,
    /// In two fragments
    #[arg(long)]
    fragments: bool,
}

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Where a packet is cut: fragments are of multiples of eight bytes.
const CUT: usize = 8;

pub(super) fn send(arguments: &Arguments) -> Result<()> {
    let Arguments { from, to, .. } = *arguments;
    let ends = families(from, to)?;
    let (domain, packets) = match &ends {
        Ends::V4(source, destination) => {
            let pseudo = [
                &source.octets()[..],
                &destination.octets(),
                &[0, TCP, 0, 20],
            ]
            .concat();
            let segment = segment(arguments, &pseudo);
            (
                Domain::IPV4,
                ipv4(arguments, source.octets(), destination.octets(), &segment),
            )
        }
        Ends::V6(source, destination) => {
            let length = [0, 0, 0, 20, 0, 0, 0, TCP];
            let pseudo = [&source.octets()[..], &destination.octets(), &length].concat();
            let segment = segment(arguments, &pseudo);
            (
                Domain::IPV6,
                ipv6(arguments, source.octets(), destination.octets(), &segment),
            )
        }
    };
    let socket = raw_socket(domain)?;
    // Raw IPv6 takes no port.
    let to = SockAddr::from(SocketAddr::new(to.ip(), 0));
    for packet in packets {
        socket
            .send_to(&packet, &to)
            .context("sending by a raw socket")?;
    }
    Ok(())
}

/// A TCP header that asks for a connection.
fn segment(arguments: &Arguments, pseudo: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(arguments.from.port().to_be_bytes());
    header.extend(arguments.to.port().to_be_bytes());
    header.extend(0x1234_5678_u32.to_be_bytes());
    header.extend([0; 4]);
    // Five words, SYN, a window; checksum and urgent pointer.
    header.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(&[pseudo, &header].concat());
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv4(arguments: &Arguments, from: [u8; 4], to: [u8; 4], segment: &[u8]) -> Vec<Vec<u8>> {
    const MORE: u16 = 0x2000;
    let words = 5 + arguments.options;
    let header = |payload: usize, place: u16| {
        let length = u16::from(words) * 4 + payload as u16;
        let mut header = vec![0x40 | words, 0];
        header.extend(length.to_be_bytes());
        header.extend([0x77, 0x01]);
        header.extend(place.to_be_bytes());
        header.extend([64, TCP, 0, 0]);
        header.extend(from);
        header.extend(to);
        // "No operation", as often as it takes.
        header.resize(usize::from(words) * 4, 1);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    if !arguments.fragments {
        return vec![[header(segment.len(), 0), segment.to_vec()].concat()];
    }
    let (first, rest) = segment.split_at(CUT);
    vec![
        [header(first.len(), MORE), first.to_vec()].concat(),
        [header(rest.len(), (CUT / 8) as u16), rest.to_vec()].concat(),
    ]
}

fn ipv6(arguments: &Arguments, from: [u8; 16], to: [u8; 16], segment: &[u8]) -> Vec<Vec<u8>> {
    let header = |next: u8, payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(from);
        packet.extend(to);
        packet.extend(payload);
        packet
    };
    let mut payload = Vec::new();
    for place in 1..=arguments.extensions {
        let last = place == arguments.extensions;
        // One option that pads: four bytes of zeros.
        payload.extend([
            if last { TCP } else { DESTINATION_OPTIONS },
            0,
            1,
            4,
            0,
            0,
            0,
            0,
        ]);
    }
    payload.extend(segment);
    let first = match arguments.extensions {
        0 => TCP,
        _ => DESTINATION_OPTIONS,
    };
    if !arguments.fragments {
        return vec![header(first, &payload)];
    }
    let fragment = |at: u16, more: u16, part: &[u8]| {
        let mut fragment = vec![first, 0];
        fragment.extend((at | more).to_be_bytes());
        fragment.extend([0x77, 0, 0, 1]);
        fragment.extend(part);
        header(FRAGMENT, &fragment)
    };
    let (start, rest) = payload.split_at(CUT);
    vec![fragment(0, 1, start), fragment(CUT as u16, 0, rest)]
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
