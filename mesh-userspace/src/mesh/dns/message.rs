//! DNS messages (RFC 1035, EDNS by RFC 6891): which are answered, and the answers' bytes.

use domain::{
    base::{
        Message, MessageBuilder, Name, Question, Rtype, StaticCompressor, Ttl,
        iana::{Class, Opcode, Rcode},
        message_builder::{AnswerBuilder, PushError},
        name::ParsedName,
        opt::OptRecord,
        rdata::ComposeRecordData,
    },
    rdata::{A, Aaaa, Srv},
};

use super::{
    name::{Addresses, lookup},
    srv::{self, Place},
};
use crate::mesh::model::Snapshot;

/// How long an answer holds, in seconds: as Kubernetes' own DNS has it, endpoints come and go.
const TTL: Ttl = Ttl::from_secs(5);

/// What a client that does not say takes over UDP (RFC 1035, 4.2.1), in bytes.
const PLAIN_UDP: u16 = 512;

/// An OPT record without options, in bytes: room is kept for it.
const OPT_LENGTH: usize = 11;

/// A message's header, in bytes.
const HEADER: usize = 12;

/// In the header's third byte: it is an answer.
const RESPONSE: u8 = 0x80;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Longer answers are cut, and marked so that the client asks again over TCP.
    Udp,
    /// Messages of at most 65535 bytes.
    Tcp,
}

/// What becomes of a message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is answered with these bytes.
    Answer(Vec<u8>),
    /// It goes to the pod's own resolver as it is.
    Forward,
}

type Ask<'a> = Question<ParsedName<&'a [u8]>>;
type Opt<'a> = OptRecord<&'a [u8]>;

/// Decides about a message that a pod of `namespace` sent.
pub fn decide(
    snapshot: &Snapshot,
    namespace: &str,
    query: &[u8],
    transport: Transport,
) -> Decision {
    answer(snapshot, namespace, query, transport).map_or(Decision::Forward, Decision::Answer)
}

fn answer(
    snapshot: &Snapshot,
    namespace: &str,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    if !is_query(query) {
        return None;
    }
    let message = Message::from_octets(query).ok()?;
    let question = message.sole_question().ok()?;
    let counts = message.header_counts();
    let plain = message.header().opcode() == Opcode::QUERY
        && question.qclass() == Class::IN
        && counts.ancount() == 0
        && counts.nscount() == 0;
    let opt = message.opt();
    // What else stands there (a signature, a version of EDNS to come) is for somebody who reads it.
    let known_extras = match &opt {
        Some(opt) => counts.arcount() == 1 && opt.version() == 0,
        None => counts.arcount() == 0,
    };
    if !plain || !known_extras {
        return None;
    }
    let found = match question.qtype() {
        // The last two describe how to reach a host: that this one has no such record is known, and an
        // outside resolver would say that there is no such host.
        Rtype::A | Rtype::AAAA | Rtype::HTTPS | Rtype::SVCB => {
            Found::Addresses(lookup(snapshot, namespace, &text_of(&question)?)?)
        }
        Rtype::SRV => Found::Place(srv::lookup(snapshot, namespace, &text_of(&question)?)?),
        _ => return None,
    };
    let limit = match (transport, &opt) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(opt)) => opt.udp_payload_size().max(PLAIN_UDP),
        (Transport::Udp, None) => PLAIN_UDP,
    };
    // Out of memory, or an invariant of the library: the resolver does what it can.
    write(&message, &question, opt.as_ref(), &found, limit.into()).ok()
}

/// What a name has of the type that is asked for.
enum Found {
    /// For A, AAAA; and for types that a host does not have.
    Addresses(Addresses),
    /// For SRV.
    Place(Place),
}

/// The queried name in lower case; None where it has characters that no Service's and no port's name has.
fn text_of(question: &Ask<'_>) -> Option<String> {
    let mut text = String::new();
    for label in question.qname() {
        if label.is_root() {
            break;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label.as_slice() {
            if !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_' {
                return None;
            }
            text.push(byte.to_ascii_lowercase().into());
        }
    }
    Some(text)
}

fn write(
    query: &Message<&[u8]>,
    question: &Ask<'_>,
    opt: Option<&Opt<'_>>,
    found: &Found,
    limit: usize,
) -> Result<Vec<u8>, PushError> {
    let target = StaticCompressor::new(Vec::new());
    let builder = MessageBuilder::from_target(target).map_err(|_| PushError::ShortBuf)?;
    let mut answers = builder.start_answer(query, Rcode::NOERROR)?;
    answers.header_mut().set_aa(true);
    answers.header_mut().set_ra(true);
    answers.set_push_limit(limit - if opt.is_some() { OPT_LENGTH } else { 0 });
    // Another first address for each query: most clients take the first.
    let turn = usize::from(query.header().id());
    let records = match (question.qtype(), found) {
        (Rtype::A, Found::Addresses(addresses)) => {
            let data = turned(&addresses.v4, turn).map(|address| A::new(*address));
            push(&mut answers, question, data)
        }
        (Rtype::AAAA, Found::Addresses(addresses)) => {
            let data = turned(&addresses.v6, turn).map(|address| Aaaa::new(*address));
            push(&mut answers, question, data)
        }
        (_, Found::Place(place)) => {
            let target: Result<Name<Vec<u8>>, _> = place.host.parse();
            let target = target.map_err(|_| PushError::ShortBuf)?;
            let data = Srv::new(srv::PRIORITY, srv::WEIGHT, place.port, target);
            push(&mut answers, question, std::iter::once(data))
        }
        _ => Ok(()),
    };
    if records.is_err() {
        answers.header_mut().set_tc(true);
    }
    answers.clear_push_limit();
    let mut additional = answers.additional();
    if let Some(opt) = opt {
        additional.opt(|own| {
            own.set_udp_payload_size(u16::MAX);
            own.set_dnssec_ok(opt.dnssec_ok());
            Ok(())
        })?;
    }
    Ok(additional.finish().into_target())
}

fn turned<T>(all: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let start = turn.checked_rem(all.len()).unwrap_or_default();
    all[start..].iter().chain(&all[..start])
}

/// As many records as there is room for.
fn push<D: ComposeRecordData>(
    answers: &mut AnswerBuilder<StaticCompressor<Vec<u8>>>,
    question: &Ask<'_>,
    records: impl Iterator<Item = D>,
) -> Result<(), PushError> {
    for data in records {
        answers.push((question.qname(), Class::IN, TTL, data))?;
    }
    Ok(())
}

/// The answer to a query that no resolver answers (SERVFAIL, so that the client tries its next one at
/// once). None: it was no query.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    if !is_query(query) {
        return None;
    }
    let query = Message::from_octets(query).ok()?;
    let builder = MessageBuilder::new_vec();
    let mut answer = builder.start_answer(&query, Rcode::SERVFAIL).ok()?;
    answer.header_mut().set_ra(true);
    Some(answer.finish())
}

/// Whether bytes can be the start of a query: the header says so.
pub fn is_query(bytes: &[u8]) -> bool {
    let [_, _, flags, _, 0, 1, ..] = *bytes else {
        return false;
    };
    bytes.len() >= HEADER && flags & RESPONSE == 0
}
