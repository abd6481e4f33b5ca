//! `zerohop_tcp_*`: what the kernel counted for each pair of workloads, service and way.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use mesh_common::{
    names::NameKind,
    traffic::{RTT_BOUNDS_US, Traffic, TrafficKey},
};

use super::{escaped, family, typed_family};
use crate::{
    kernel::{
        connections::open::{Open, least},
        node::{Counted, Kernel},
        tables::verdict_name,
    },
    telemetry::{OVERFLOW, SERIES_LIMIT, UNKNOWN},
};

/// Of each pair, by its labels as both formats want them.
type Pairs = BTreeMap<String, Counted>;

/// Reads one number of a pair.
type Total = fn(&Traffic) -> u64;
/// Reads one number of a pair's open connections; None: there is none to tell.
type Gauge = fn(&Counted) -> Option<f64>;

const TOTALS: [(&str, &str, Total); 7] = [
    (
        "zerohop_tcp_connections_opened",
        "Connections established.",
        |t| t.opened,
    ),
    (
        "zerohop_tcp_connections_closed",
        "Of those, closed ones.",
        |t| t.closed,
    ),
    (
        "zerohop_tcp_sent_bytes",
        "Payload bytes from the client, of open connections too.",
        |t| t.sent,
    ),
    (
        "zerohop_tcp_received_bytes",
        "Payload bytes to the client, of open connections too.",
        |t| t.received,
    ),
    (
        "zerohop_tcp_redirected_sent_bytes",
        "Of the sent bytes, those that went from socket to socket.",
        |t| t.redirected_sent,
    ),
    (
        "zerohop_tcp_redirected_received_bytes",
        "Of the received bytes, those that went from socket to socket.",
        |t| t.redirected_received,
    ),
    (
        "zerohop_tcp_retransmits",
        "Segments that TCP sent again.",
        |t| t.retransmits,
    ),
];

const GAUGES: [(&str, &str, Gauge); 3] = [
    (
        "zerohop_tcp_open_connections",
        "Connections that are open now.",
        #[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
        |pair| Some(pair.open.connections as f64),
    ),
    (
        "zerohop_tcp_smoothed_rtt_seconds",
        "Smoothed round trip of the open connections, on average.",
        |pair| seconds(pair.open.rtt_sum_us.checked_div(pair.open.with_rtt)?),
    ),
    (
        "zerohop_tcp_min_rtt_seconds",
        "Smallest round trip of any connection.",
        |pair| seconds(least(pair.open.min_rtt_us, pair.total.min_rtt_us)),
    ),
];

/// None where it is 0, unknown.
#[expect(clippy::cast_precision_loss, reason = "seconds as Prometheus has them")]
fn seconds(micros: u64) -> Option<f64> {
    (micros > 0).then_some(micros as f64 / 1e6)
}

/// Appends the families.
pub fn render(
    kernel: &Kernel,
    counted: &HashMap<TrafficKey, Counted>,
    out: &mut String,
    openmetrics: bool,
) {
    let pairs = labelled(counted, SERIES_LIMIT, |key| {
        let name = |kind, id| kernel.name(kind, id).unwrap_or_else(|| UNKNOWN.into());
        labels(
            &name(NameKind::Workload, key.source),
            &name(NameKind::Workload, key.destination),
            &name(NameKind::Service, key.service),
            verdict_name(key.way),
        )
    });
    render_pairs(&pairs, out, openmetrics);
}

fn labels(source: &str, destination: &str, service: &str, way: &str) -> String {
    format!(
        "source=\"{}\",destination=\"{}\",service=\"{}\",way=\"{way}\"",
        escaped(source),
        escaped(destination),
        escaped(service),
    )
}

/// The pairs by their labels. Those beyond `limit` share one series; which they are stays the same, as the
/// oldest numbers come first.
fn labelled(
    counted: &HashMap<TrafficKey, Counted>,
    limit: usize,
    labels_of: impl Fn(&TrafficKey) -> String,
) -> Pairs {
    let mut ordered: Vec<_> = counted.iter().collect();
    ordered.sort_unstable_by_key(|(key, _)| (key.source, key.destination, key.service, key.way));
    let mut pairs = Pairs::new();
    for (place, (key, one)) in ordered.into_iter().enumerate() {
        let labels = if place < limit {
            labels_of(key)
        } else {
            labels(OVERFLOW, OVERFLOW, OVERFLOW, verdict_name(key.way))
        };
        let sum = pairs.entry(labels).or_default();
        *sum = Counted {
            total: added(&sum.total, &one.total),
            open: Open::added(&sum.open, &one.open),
        };
    }
    pairs
}

/// Two pairs' totals as one.
fn added(a: &Traffic, b: &Traffic) -> Traffic {
    let mut rtt = a.rtt;
    for (slot, more) in rtt.iter_mut().zip(b.rtt) {
        *slot += more;
    }
    Traffic {
        opened: a.opened + b.opened,
        closed: a.closed + b.closed,
        sent: a.sent + b.sent,
        received: a.received + b.received,
        redirected_sent: a.redirected_sent + b.redirected_sent,
        redirected_received: a.redirected_received + b.redirected_received,
        retransmits: a.retransmits + b.retransmits,
        min_rtt_us: least(a.min_rtt_us, b.min_rtt_us),
        rtt_sum_us: a.rtt_sum_us + b.rtt_sum_us,
        rtt,
    }
}

fn render_pairs(pairs: &Pairs, out: &mut String, openmetrics: bool) {
    // Writing to a String can't fail.
    for (name, help, total) in TOTALS {
        family(out, name, help, openmetrics);
        for (labels, pair) in pairs {
            let _ = writeln!(out, "{name}_total{{{labels}}} {}", total(&pair.total));
        }
    }
    for (name, help, gauge) in GAUGES {
        typed_family(out, name, "gauge", help);
        for (labels, pair) in pairs {
            if let Some(value) = gauge(pair) {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
    }
    let name = "zerohop_tcp_rtt_seconds";
    typed_family(
        out,
        name,
        "histogram",
        "Smoothed round trips of connections when they closed.",
    );
    for (labels, pair) in pairs {
        let mut count = 0;
        for (place, more) in pair.total.rtt.iter().enumerate() {
            count += more;
            let bound = RTT_BOUNDS_US.get(place).map_or_else(
                || "+Inf".into(),
                |bound| (f64::from(*bound) / 1e6).to_string(),
            );
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let sum = seconds(pair.total.rtt_sum_us).unwrap_or_default();
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: u32, sent: u64) -> (TrafficKey, Counted) {
        let key = TrafficKey {
            source,
            ..TrafficKey::default()
        };
        let mut total = Traffic {
            opened: 1,
            sent,
            rtt_sum_us: 300,
            min_rtt_us: 40,
            ..Traffic::NOTHING
        };
        (total.rtt[0], total.rtt[2]) = (1, 1);
        let open = Open {
            connections: 2,
            with_rtt: 2,
            rtt_sum_us: 500,
            min_rtt_us: 60,
            ..Open::default()
        };
        (key, Counted { total, open })
    }

    #[test]
    fn a_pair_has_totals_gauges_and_a_cumulative_histogram() {
        let counted = HashMap::from([pair(1, 10)]);
        let pairs = labelled(&counted, 5, |_| labels("d/a", "d/\"b", "unknown", "direct"));
        let mut out = String::new();
        render_pairs(&pairs, &mut out, false);
        let labels = "source=\"d/a\",destination=\"d/\\\"b\",service=\"unknown\",way=\"direct\"";
        for line in [
            format!("zerohop_tcp_sent_bytes_total{{{labels}}} 10"),
            format!("zerohop_tcp_open_connections{{{labels}}} 2"),
            format!("zerohop_tcp_smoothed_rtt_seconds{{{labels}}} 0.00025"),
            format!("zerohop_tcp_min_rtt_seconds{{{labels}}} 0.00004"),
            format!("zerohop_tcp_rtt_seconds_bucket{{{labels},le=\"0.00005\"}} 1"),
            format!("zerohop_tcp_rtt_seconds_bucket{{{labels},le=\"0.00025\"}} 2"),
            format!("zerohop_tcp_rtt_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            format!("zerohop_tcp_rtt_seconds_sum{{{labels}}} 0.0003"),
            format!("zerohop_tcp_rtt_seconds_count{{{labels}}} 2"),
        ] {
            assert!(
                out.lines().any(|one| one == line),
                "{line} is not in\n{out}"
            );
        }
        assert!(out.contains("# TYPE zerohop_tcp_rtt_seconds histogram\n"));
    }

    #[test]
    fn pairs_beyond_the_limit_are_counted_together() {
        let counted: HashMap<_, _> = (1..=4).map(|source| pair(source, source.into())).collect();
        let pairs = labelled(&counted, 2, |key| key.source.to_string());
        let rest = pairs
            .iter()
            .find(|(labels, _)| labels.contains(OVERFLOW))
            .map(|(_, sum)| (sum.total.sent, sum.open.connections));
        assert_eq!((pairs.len(), rest), (3, Some((7, 4))));
    }
}
