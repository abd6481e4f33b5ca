//! What is open now, by pair of workloads.

use std::collections::HashMap;

use mesh_common::{
    connection::{ConnectionRecord, Role},
    traffic::{Traffic, TrafficKey},
};

/// The open connections of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    /// How many.
    pub connections: u64,
    /// Smoothed round trips of those that have one, added up, in microseconds.
    pub rtt_sum_us: u64,
    /// How many have one.
    pub with_rtt: u64,
    /// The smallest round trip among them, in microseconds; 0: none has one.
    pub min_rtt_us: u64,
    /// What they carried and sent again, as in [`Traffic`].
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) redirected_sent: u64,
    pub(crate) redirected_received: u64,
    pub(crate) retransmits: u64,
}

impl Open {
    /// The totals of what has closed, with what the open ones carried so far.
    pub fn added_to(&self, closed: Traffic) -> Traffic {
        Traffic {
            sent: closed.sent + self.sent,
            received: closed.received + self.received,
            redirected_sent: closed.redirected_sent + self.redirected_sent,
            redirected_received: closed.redirected_received + self.redirected_received,
            retransmits: closed.retransmits + self.retransmits,
            ..closed
        }
    }

    /// Two pairs' as one.
    pub fn added(a: &Self, b: &Self) -> Self {
        Self {
            connections: a.connections + b.connections,
            rtt_sum_us: a.rtt_sum_us + b.rtt_sum_us,
            with_rtt: a.with_rtt + b.with_rtt,
            min_rtt_us: least(a.min_rtt_us, b.min_rtt_us),
            sent: a.sent + b.sent,
            received: a.received + b.received,
            redirected_sent: a.redirected_sent + b.redirected_sent,
            redirected_received: a.redirected_received + b.redirected_received,
            retransmits: a.retransmits + b.retransmits,
        }
    }

    /// A socket that stands for its connection: the client's, or the server's of a client that is not
    /// enrolled here.
    fn count(&mut self, record: &ConnectionRecord) {
        self.connections += 1;
        if record.rtt_us == 0 {
            return;
        }
        self.with_rtt += 1;
        self.rtt_sum_us += u64::from(record.rtt_us);
        self.min_rtt_us = least(self.min_rtt_us, record.min_rtt_us.into());
    }
}

/// The smaller of two, of which 0 is none.
pub fn least(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, known) | (known, 0) => known,
        (one, other) => one.min(other),
    }
}

/// Adds the records up as the programs do when they close.
pub fn of(records: &[ConnectionRecord]) -> HashMap<TrafficKey, Open> {
    let mut pairs: HashMap<TrafficKey, Open> = HashMap::new();
    for record in records {
        let connection = &record.connection;
        let key = TrafficKey {
            source: connection.source,
            destination: connection.destination,
            service: connection.service,
            way: connection.way,
        };
        let open = pairs.entry(key).or_default();
        let redirected = connection.redirected_bytes;
        open.retransmits += u64::from(record.retransmits);
        if connection.role == Role::Client as u32 {
            open.count(record);
            open.sent += record.tcp_sent + redirected;
            open.received += record.tcp_received;
            open.redirected_sent += redirected;
        } else if connection.source == 0 {
            open.count(record);
            open.sent += record.tcp_received;
            open.received += record.tcp_sent;
        } else {
            // The client's end counts what went by TCP both ways.
            open.received += redirected;
            open.redirected_received += redirected;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use mesh_common::connection::Connection;

    use super::*;

    fn record(role: Role, source: u32, redirected_bytes: u64) -> ConnectionRecord {
        ConnectionRecord {
            connection: Connection {
                role: role as u32,
                source,
                destination: 2,
                redirected_bytes,
                ..Connection::default()
            },
            tcp_sent: 10,
            tcp_received: 7,
            rtt_us: 100,
            min_rtt_us: 40,
            retransmits: 1,
            ..ConnectionRecord::default()
        }
    }

    #[test]
    fn both_ends_of_a_pair_are_one_connection() {
        let records = [
            record(Role::Client, 1, 1000),
            record(Role::Server, 1, 500),
            record(Role::Client, 1, 0),
            record(Role::Server, 0, 0),
        ];
        let pairs = of(&records);
        let key = |source| TrafficKey {
            source,
            destination: 2,
            ..TrafficKey::default()
        };
        let closed = Traffic {
            closed: 3,
            sent: 1,
            ..Traffic::default()
        };
        let (here, from_afar) = (pairs[&key(1)], pairs[&key(0)]);
        let total = here.added_to(closed);
        assert_eq!((here.connections, total.closed), (2, 3));
        assert_eq!((total.sent, total.received), (1 + 1020, 514));
        assert_eq!(
            (total.redirected_sent, total.redirected_received),
            (1000, 500)
        );
        assert_eq!(
            (total.retransmits, here.rtt_sum_us, here.min_rtt_us),
            (3, 200, 40)
        );
        let afar = from_afar.added_to(Traffic::default());
        assert_eq!(
            (from_afar.connections, afar.sent, afar.received),
            (1, 7, 10)
        );
    }

    #[test]
    fn none_is_no_minimum() {
        assert_eq!((least(0, 5), least(5, 0), least(7, 5)), (5, 5, 5));
    }
}
