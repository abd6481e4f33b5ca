//! `lab-peer name-server`: a resolver that knows a few names and says what it was asked, a line of JSON
//! for each query.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::wire;

#[derive(Debug, Args)]
pub(in super::super) struct Arguments {
    /// Where to listen, UDP and TCP
    #[arg(long, default_value = "0.0.0.0:53")]
    listen: SocketAddr,
    /// A name that it knows: `example.com=192.0.2.7`
    #[arg(long = "knows", value_parser = known)]
    names: Vec<(String, Ipv4Addr)>,
}

type Names = HashMap<String, Ipv4Addr>;

pub(in super::super) fn run(arguments: Arguments) -> Result<()> {
    let names: Names = arguments.names.into_iter().collect();
    let udp = UdpSocket::bind(arguments.listen).context("bind for UDP")?;
    let tcp = TcpListener::bind(arguments.listen).context("bind for TCP")?;
    thread::scope(|scope| {
        scope.spawn(|| datagrams(&udp, &names));
        for stream in tcp.incoming() {
            let stream = stream.context("accept")?;
            let names = &names;
            scope.spawn(move || messages(stream, names));
        }
        Ok(())
    })
}

fn datagrams(socket: &UdpSocket, names: &Names) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        if let Ok(answer) = respond("udp", client, &buffer[..length], names) {
            socket.send_to(&answer, client)?;
        }
    }
}

fn messages(mut stream: TcpStream, names: &Names) -> Result<()> {
    let client = stream.peer_addr()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let answer = respond("tcp", client, &query, names)?;
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
}

fn respond(over: &str, client: SocketAddr, query: &[u8], names: &Names) -> Result<Vec<u8>> {
    let (name, ..) = wire::question(query)?;
    let answer = wire::respond(query, names.get(&name).copied())?;
    let line = json!({
        "over": over, "client": client.ip(), "name": name,
        "query": wire::hex(query), "answer": wire::hex(&answer),
    });
    println!("{line}");
    Ok(answer)
}

fn known(text: &str) -> Result<(String, Ipv4Addr), String> {
    let (name, address) = text.split_once('=').ok_or("NAME=ADDRESS")?;
    let address = address.parse().map_err(|error| format!("{error}"))?;
    Ok((name.to_owned(), address))
}
