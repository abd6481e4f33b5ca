//! Queries over loopback, without any privilege: listeners as a pod has them, and a resolver of its own.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use domain::base::{MessageBuilder, Name, Rtype};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::{
    mesh::testing::{Mesh, object_name},
    proxy::PodSockets,
};

/// The address that a test's resolver is at; port 53 needs a privilege, so a Service stands for it.
const NAMESERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 53);
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

struct Loopback;

impl PodNetwork for Loopback {
    fn nameserver(&self, _: &PodSockets, slot: u32) -> io::Result<Option<Ipv4Addr>> {
        Ok((slot == 0).then_some(NAMESERVER))
    }

    fn datagram_socket(&self, _: &PodSockets) -> io::Result<Socket> {
        Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None)
    }

    fn stream_socket(&self, _: &PodSockets, _: &SocketAddr) -> io::Result<Socket> {
        Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)
    }
}

/// A pod that is served, by slot.
struct Served {
    dns: Dns,
    slots: Vec<SocketAddr>,
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A UDP socket and a TCP listener on one port.
fn pair() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind(loopback()).expect("a port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")) {
            return (udp, tcp);
        }
    }
}

/// Serves a pod whose resolver listens on `port`.
fn serve(port: u16) -> Served {
    let slice = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: dns, namespace: default}}\n\
         spec: {{clusterIP: {NAMESERVER}, ports: [{{name: tcp, port: 53}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: dns-1, namespace: default, labels: {{kubernetes.io/service-name: dns}}}}\n\
         ports: [{{name: tcp, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    );
    let snapshot = Mesh::bookinfo().yaml(&slice).snapshot();
    let snapshots = Arc::new(ArcSwap::from_pointee(snapshot));
    let network: Arc<dyn PodNetwork> = Arc::new(Loopback);
    let dns = Dns::start(&snapshots, &network).expect("a thread");
    let pairs: Vec<_> = (0..2).map(|_| pair()).collect();
    let slots = pairs
        .iter()
        .map(|(udp, _)| udp.local_addr().expect("bound"))
        .collect();
    for (udp, tcp) in &pairs {
        udp.set_nonblocking(true).expect("set");
        tcp.set_nonblocking(true).expect("set");
    }
    dns.add_pod(&PodSockets::new(object_name("default/ratings-v1")), pairs);
    Served { dns, slots }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let name: Name<Vec<u8>> = name.parse().expect("a name");
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_id(id);
    builder.push((name, Rtype::A)).expect("room");
    builder.finish()
}

fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).expect("short");
    let bytes = [&length.to_be_bytes(), message].concat();
    stream.write_all(&bytes).expect("sent");
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(PATIENCE).expect("set");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).expect("a message");
    message
}

/// Sends back what it gets, marked as an answer.
fn echo(udp: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            if udp.send_to(&buffer[..length], client).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_datagram_is_answered_or_comes_back_from_the_resolver_as_it_is() {
    let (udp, _tcp) = pair();
    let served = serve(udp.local_addr().expect("bound").port());
    echo(udp);
    let client = UdpSocket::bind(loopback()).expect("bound");
    client.set_read_timeout(PATIENCE).expect("set");
    let garbage = [7, 7, 1, 2, 3];
    let cases = [query(1, "reviews"), query(2, "example.com"), garbage.into()];
    for query in &cases {
        client.send_to(query, served.slots[0]).expect("sent");
        let mut buffer = [0; 2048];
        let (length, from) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from, served.slots[0]);
        assert_eq!(buffer[..2], query[..2]);
        let came_back = length == query.len();
        assert_eq!(came_back, query != &cases[0], "{query:?}");
    }
    let mut text = String::new();
    served.dns.counters().render(&mut text, false);
    assert!(text.contains("outcome=\"answered\"} 1\n"), "{text}");
    assert!(text.contains("outcome=\"forwarded\"} 2\n"), "{text}");
}

#[test]
fn a_query_to_the_listener_itself_has_no_resolver() {
    let served = serve(1);
    let client = UdpSocket::bind(loopback()).expect("bound");
    client.set_read_timeout(PATIENCE).expect("set");
    client
        .send_to(&query(3, "example.com"), served.slots[1])
        .expect("sent");
    let mut buffer = [0; 2048];
    let (length, _) = client.recv_from(&mut buffer).expect("an answer");
    assert_eq!(
        buffer[..length],
        crate::mesh::dns::failure(&query(3, "example.com")).expect("one")
    );
}

#[test]
fn several_queries_on_one_connection_are_each_answered() {
    let (_udp, tcp) = pair();
    let served = serve(tcp.local_addr().expect("bound").port());
    let mut client = TcpStream::connect(served.slots[0]).expect("connected");
    // Both at once, and one of them in two parts.
    send(&mut client, &query(1, "example.com"));
    let second = query(2, "reviews");
    let bytes = [&(second.len() as u16).to_be_bytes(), &second[..]].concat();
    client.write_all(&bytes[..9]).expect("sent");
    client.write_all(&bytes[9..]).expect("sent");
    let answer = receive(&mut client);
    assert_eq!(
        answer[..2],
        [0, 2],
        "the mesh's answer does not wait for the resolver's"
    );
    let (mut resolver, _) = tcp.accept().expect("a connection");
    assert_eq!(receive(&mut resolver), query(1, "example.com"));
    // Two messages for one query, as a zone transfer has them; the client has closed its half.
    client.shutdown(Shutdown::Write).expect("shut down");
    for part in [b"first".as_slice(), b"second"] {
        send(&mut resolver, part);
        assert_eq!(receive(&mut client), part);
    }
    drop(resolver);
    assert_eq!(client.read(&mut [0; 1]).expect("an end"), 0);
}

#[test]
fn what_is_no_dns_is_carried_both_ways() {
    let (_udp, tcp) = pair();
    let served = serve(tcp.local_addr().expect("bound").port());
    let mut client = TcpStream::connect(served.slots[0]).expect("connected");
    client.set_read_timeout(PATIENCE).expect("set");
    let hello = b"SSH-2.0-somebody\r\n";
    client.write_all(hello).expect("sent");
    let (mut server, _) = tcp.accept().expect("a connection");
    server.set_read_timeout(PATIENCE).expect("set");
    let mut heard = [0; 18];
    server.read_exact(&mut heard).expect("heard");
    assert_eq!(&heard, hello);
    server.write_all(b"welcome").expect("sent");
    let mut answer = [0; 7];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"welcome");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(server.read(&mut heard).expect("an end"), 0);
}
