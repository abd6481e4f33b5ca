//! Names by form and namespace, answers by type and size, and bytes that are no query.

use std::net::IpAddr;

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype,
        iana::{Opcode, Rcode},
        name::ToName,
    },
    rdata::{A, Aaaa, Srv},
};
use proptest::prelude::*;

use super::*;
use crate::mesh::testing::Mesh;

fn mesh() -> Snapshot {
    let mut mesh = Mesh::bookinfo()
        .service("other/reviews", "10.96.1.3", &[("http", 80)])
        .service("default/dual", "10.96.0.9,fd00::9", &[("http", 80)])
        .service("default/db", "", &[("tcp", 5432)])
        .pod_with("default/db-2", "10.0.0.22", "app=db", |pod| {
            pod.ready = false;
        })
        .service("default/idle", "", &[("tcp", 5432)])
        .service("default/many", "", &[("tcp", 5432)])
        .pod("default/db-0", "10.0.0.20", "app=db")
        .pod("default/db-1", "10.0.0.21", "app=db");
    for pod in 0..100 {
        let address = format!("10.0.9.{pod}");
        mesh = mesh.pod(&format!("default/many-{pod}"), &address, "app=many");
    }
    mesh.snapshot()
}

fn query(name: &str, kind: Rtype) -> Vec<u8> {
    let name: Name<Vec<u8>> = name.parse().expect("a name");
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    builder.push((name, kind)).expect("room");
    builder.finish()
}

fn with_edns(query: &[u8], size: u16) -> Vec<u8> {
    let message = Message::from_octets(query).expect("a message");
    let mut builder = MessageBuilder::new_vec().question();
    *builder.header_mut() = message.header();
    let question = message.sole_question().expect("a question");
    builder.push(question).expect("room");
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(size);
            Ok(())
        })
        .expect("room");
    builder.finish()
}

/// Addresses of the answer; None: it is forwarded.
fn ask(namespace: &str, name: &str, kind: Rtype) -> Option<Vec<IpAddr>> {
    match decide(&mesh(), namespace, &query(name, kind), Transport::Udp) {
        Decision::Answer(bytes) => Some(addresses(&bytes)),
        Decision::Forward => None,
    }
}

fn addresses(bytes: &[u8]) -> Vec<IpAddr> {
    let message = Message::from_octets(bytes).expect("a message");
    assert_eq!(message.header().rcode(), Rcode::NOERROR);
    let answers = message.answer().expect("answers");
    let v4 = answers.limit_to::<A>().map(|record| {
        let record = record.expect("a record");
        IpAddr::V4(record.data().addr())
    });
    let v6 = answers.limit_to::<Aaaa>().map(|record| {
        let record = record.expect("a record");
        IpAddr::V6(record.data().addr())
    });
    v4.chain(v6).collect()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    let parse = |text: &&str| text.parse().expect("an address");
    list.iter().map(parse).collect()
}

#[test]
fn a_service_is_known_by_its_four_names() {
    for name in [
        "reviews",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default.svc.cluster.local.",
        "Reviews.DEFAULT.svc.Cluster.Local",
    ] {
        assert_eq!(
            ask("default", name, Rtype::A),
            Some(ips(&["10.96.0.3"])),
            "{name}"
        );
    }
}

#[test]
fn a_short_name_means_the_asking_pods_namespace() {
    assert_eq!(ask("other", "reviews", Rtype::A), Some(ips(&["10.96.1.3"])));
    assert_eq!(ask("other", "ratings", Rtype::A), None);
    assert_eq!(
        ask("other", "ratings.default", Rtype::A),
        Some(ips(&["10.96.0.4"]))
    );
}

#[test]
fn what_is_not_a_services_name_is_forwarded() {
    for name in [
        ".",
        "svc",
        "default.svc",
        "example.com",
        "reviews.default.cluster.local",
        "reviews.default.svc.cluster.local.default.svc.cluster.local",
        "a.reviews.default.svc.cluster.local",
        "reviews.default.svc.example.com",
        "svc.cluster.local",
        "_http._tcp.reviews.default.svc.cluster.local",
    ] {
        assert_eq!(ask("default", name, Rtype::A), None, "{name}");
    }
}

#[test]
fn an_ipv4_name_has_no_ipv6_address_and_exists() {
    assert_eq!(ask("default", "reviews", Rtype::AAAA), Some(ips(&[])));
    assert_eq!(ask("default", "reviews", Rtype::HTTPS), Some(ips(&[])));
    assert_eq!(ask("default", "dual", Rtype::AAAA), Some(ips(&["fd00::9"])));
    assert_eq!(ask("default", "dual", Rtype::A), Some(ips(&["10.96.0.9"])));
}

#[test]
fn other_types_of_a_known_name_are_forwarded() {
    for kind in [Rtype::SRV, Rtype::TXT, Rtype::ANY, Rtype::MX, Rtype::SOA] {
        assert_eq!(ask("default", "reviews", kind), None, "{kind}");
    }
}

#[test]
fn a_headless_service_is_its_ready_endpoints_in_turn() {
    let mut found = ask("default", "db", Rtype::A).expect("an answer");
    found.sort();
    assert_eq!(found, ips(&["10.0.0.20", "10.0.0.21"]));
    assert_eq!(ask("default", "idle", Rtype::A), Some(ips(&[])));
    let firsts: std::collections::BTreeSet<IpAddr> = (0..8u8)
        .map(|id| {
            let mut query = query("db", Rtype::A);
            query[1] = id;
            match decide(&mesh(), "default", &query, Transport::Udp) {
                Decision::Answer(bytes) => addresses(&bytes)[0],
                Decision::Forward => panic!("db is known"),
            }
        })
        .collect();
    assert_eq!(firsts.len(), 2, "each address comes first at times");
}

#[test]
fn an_answer_keeps_to_what_the_client_takes() {
    let snapshot = mesh();
    let plain = query("many", Rtype::A);
    let cases = [
        (plain.clone(), Transport::Udp, 512, true),
        (with_edns(&plain, 100), Transport::Udp, 512, true),
        (with_edns(&plain, 1232), Transport::Udp, 1232, true),
        (with_edns(&plain, 4096), Transport::Udp, 4096, false),
        (plain, Transport::Tcp, 65535, false),
    ];
    for (query, transport, limit, cut) in cases {
        let Decision::Answer(bytes) = decide(&snapshot, "default", &query, transport) else {
            panic!("many is known");
        };
        let message = Message::from_octets(&bytes[..]).expect("a message");
        let asked = Message::from_octets(&query[..]).expect("a message");
        assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
        assert_eq!(message.header().tc(), cut, "{limit}");
        assert_eq!(message.opt().is_some(), asked.opt().is_some());
        assert_eq!(addresses(&bytes).len() == 100, !cut);
        assert!(!addresses(&bytes).is_empty());
    }
}

#[test]
fn the_question_comes_back_as_it_was_written() {
    let query = query("ReViEwS.default", Rtype::A);
    let Decision::Answer(bytes) = decide(&mesh(), "default", &query, Transport::Udp) else {
        panic!("reviews is known");
    };
    assert_eq!(bytes[12..query.len()], query[12..]);
    let header = Message::from_octets(&bytes[..])
        .expect("a message")
        .header();
    assert!(header.qr() && header.aa() && header.rd() && header.ra() && !header.ad());
    // The record's name is a pointer to the question's.
    assert_eq!(bytes[query.len()..query.len() + 2], [0xc0, 12]);
}

#[test]
fn what_is_no_plain_query_is_forwarded() {
    let good = query("reviews", Rtype::A);
    let change = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        decide(&mesh(), "default", &bytes, Transport::Udp)
    };
    assert_ne!(change(&|_| {}), Decision::Forward);
    // An answer, an update, two questions, none, a class of its own, a newer EDNS, cut short.
    assert_eq!(change(&|bytes| bytes[2] |= 0x80), Decision::Forward);
    assert_eq!(
        change(&|bytes| bytes[2] = Opcode::UPDATE.to_int() << 3),
        Decision::Forward
    );
    assert_eq!(change(&|bytes| bytes[5] = 2), Decision::Forward);
    assert_eq!(change(&|bytes| bytes[5] = 0), Decision::Forward);
    assert_eq!(
        change(&|bytes| *bytes.last_mut().expect("a class") = 3),
        Decision::Forward
    );
    assert_eq!(
        change(&|bytes| {
            *bytes = with_edns(bytes, 1232);
            let version = bytes.len() - 5;
            bytes[version] = 1;
        }),
        Decision::Forward
    );
    assert_eq!(
        change(&|bytes| bytes.truncate(bytes.len() - 1)),
        Decision::Forward
    );
}

#[test]
fn a_failure_is_the_query_with_servfail() {
    let query = query("example.com", Rtype::A);
    let bytes = failure(&query).expect("a query");
    let answer = Message::from_octets(&bytes[..]).expect("a message");
    assert_eq!(answer.header().rcode(), Rcode::SERVFAIL);
    assert_eq!(bytes[..2], query[..2]);
    assert_eq!(bytes[12..], query[12..]);
    assert_eq!(failure(&bytes), None, "an answer is not answered");
}

#[test]
fn a_resolver_that_is_a_service_is_reached_at_a_ready_endpoint() {
    let snapshot = Mesh::default()
        .service("kube-system/dns", "10.96.0.10", &[("dns-tcp", 53)])
        .pod("kube-system/dns-0", "10.0.0.53", "app=dns")
        .service("kube-system/none", "10.96.0.11", &[("dns-tcp", 53)])
        .snapshot();
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let reached = |dialled| resolver(&snapshot, at(dialled), Transport::Tcp, 7);
    assert_eq!(reached("10.96.0.10:53"), at("10.0.0.53:53"));
    assert_eq!(reached("10.96.0.11:53"), at("10.96.0.11:53"));
    assert_eq!(reached("192.0.2.1:53"), at("192.0.2.1:53"));
}

#[test]
fn a_resolver_is_reached_at_its_port_of_the_querys_transport_and_family() {
    let snapshot = Mesh::default()
        .yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: kube-system}\n\
             spec: {clusterIPs: [10.96.0.10, 'fd00:96::10'], selector: {app: dns}, ports: [\
             {name: dns, port: 53, targetPort: 5353, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 5354}]}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {name: udp, namespace: kube-system}\n\
             spec: {clusterIP: 10.96.0.11, selector: {app: dns}, ports: [{port: 53, protocol: UDP}]}\n",
        )
        .pod_with("kube-system/dns-0", "10.0.0.53", "app=dns", |pod| {
            pod.addresses.push("fd00::53".parse().expect("an address"));
        })
        .snapshot();
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let cases = [
        ("10.96.0.10:53", Transport::Udp, "10.0.0.53:5353"),
        ("10.96.0.10:53", Transport::Tcp, "10.0.0.53:5354"),
        ("[fd00:96::10]:53", Transport::Udp, "[fd00::53]:5353"),
        ("10.96.0.11:53", Transport::Tcp, "10.0.0.53:53"),
    ];
    for (dialled, transport, reached) in cases {
        assert_eq!(resolver(&snapshot, at(dialled), transport, 3), at(reached));
    }
}

#[test]
fn a_named_port_is_a_service_record() {
    let snapshot = Mesh::bookinfo()
        .yaml(
            "apiVersion: v1\nkind: Service\nmetadata: {name: both, namespace: default}\n\
             spec: {clusterIP: 10.96.0.77, ports: [{name: dns, port: 53, protocol: UDP}, \
             {name: dns-tcp, port: 54}]}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {name: bare, namespace: default}\n\
             spec: {clusterIP: None, ports: [{name: dns, port: 53, protocol: UDP}]}\n",
        )
        .snapshot();
    let place = |name: &str| {
        let query = query(name, Rtype::SRV);
        let Decision::Answer(bytes) = decide(&snapshot, "default", &query, Transport::Udp) else {
            return None;
        };
        let message = Message::from_octets(&bytes[..]).expect("a message");
        let mut answers = message.answer().expect("a section").limit_to::<Srv<_>>();
        let record = answers.next().expect("a record").expect("a good one");
        assert!(answers.next().is_none());
        let data = record.data();
        assert_eq!((data.priority(), data.weight()), (0, 100));
        Some((data.port(), data.target().to_string()))
    };
    let host = "both.default.svc.cluster.local".to_owned();
    for name in ["_dns._udp.both", "_DNS._UDP.both.default.svc.cluster.local"] {
        assert_eq!(place(name), Some((53, host.clone())), "{name}");
    }
    assert_eq!(place("_dns-tcp._tcp.both.default"), Some((54, host)));
    for other in [
        "_dns._tcp.both",
        "_dns._sctp.both",
        "_dns.both",
        "both",
        "_dns._udp.bare",
        "_dns._udp.elsewhere",
    ] {
        assert_eq!(place(other), None, "{other}");
    }
}

/// Bytes that often are nearly a query.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..600);
    let nearly = (
        "[a-zA-Z.]{0,12}(default|svc|cluster|local|reviews|db|many)?",
        prop::collection::vec((0usize..80, any::<u8>()), 0..4),
        any::<[u8; 2]>(),
        prop::option::of(any::<u16>()),
        prop::sample::select(vec![Rtype::A, Rtype::AAAA, Rtype::HTTPS, Rtype::TXT]),
    )
        .prop_filter_map("a name", |(name, changes, id, size, kind)| {
            let name: Name<Vec<u8>> = name.parse().ok()?;
            let mut bytes = query(&name.to_string(), kind);
            if let Some(size) = size {
                bytes = with_edns(&bytes, size);
            }
            bytes[..2].copy_from_slice(&id);
            for (place, byte) in changes {
                if let Some(there) = bytes.get_mut(place) {
                    *there = byte;
                }
            }
            Some(bytes)
        });
    prop_oneof![anything, nearly]
}

proptest! {
    #[test]
    fn any_bytes_are_answered_for_what_they_ask_or_forwarded(bytes in bytes(), tcp in any::<bool>()) {
        let snapshot = mesh();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        for answer in [
            match decide(&snapshot, "default", &bytes, transport) {
                Decision::Answer(answer) => Some(answer),
                Decision::Forward => None,
            },
            failure(&bytes),
        ].into_iter().flatten() {
            let asked = Message::from_octets(&bytes[..]).expect("it was a query");
            let message = Message::from_octets(&answer[..]).expect("an answer is a message");
            prop_assert_eq!(message.header().id(), asked.header().id());
            prop_assert!(message.header().qr());
            prop_assert!(message.header_counts().qdcount() <= 1);
            if let (Ok(there), Ok(here)) = (message.sole_question(), asked.sole_question()) {
                prop_assert!(there.qname().name_eq(here.qname()));
                prop_assert_eq!(there.qtype(), here.qtype());
                prop_assert_eq!(there.qclass(), here.qclass());
            }
            for record in message.answer().expect("answers") {
                prop_assert!(record.is_ok());
            }
        }
    }
}
