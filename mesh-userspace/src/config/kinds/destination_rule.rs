//! Istio `DestinationRule` (`networking/v1alpha3/destination_rule.proto`).

use std::collections::HashMap;

use super::{NotActedOn, ParsedSpec, istio};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{DestinationRule, LoadBalancer, Meta, Spec, Subset, TrafficPolicy},
};

/// The fields below `spec`.
pub const SPEC_FIELDS: &[&str] = &[
    "host",
    "trafficPolicy",
    "subsets",
    "exportTo",
    "workloadSelector",
];

/// Reads and validates a `DestinationRule`.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let spec = istio::spec(root, SPEC_FIELDS)?;
    let rule = DestinationRule {
        host: spec.required("host", istio::host)?,
        export_to: istio::export_to(&spec)?,
        traffic_policy: spec
            .optional("trafficPolicy", traffic_policy)?
            .unwrap_or_default(),
        subsets: subsets(&spec)?,
    };
    let selective = spec.unsupported("workloadSelector");
    spec.finish_with(|name| match name {
        "loadBalancer" | "connectionPool" | "outlierDetection" | "tls" => {
            Some("indent it below `trafficPolicy`".to_owned())
        }
        _ => None,
    });
    if selective {
        let reason = "workloadSelector is not supported: without it the rule would be in force \
                      for workloads that it is not meant for";
        return Ok(Err(NotActedOn(reason.to_owned())));
    }
    Ok(Ok(Spec::DestinationRule(rule)))
}

fn subsets(spec: &Fields<'_>) -> Parsed<Vec<Subset>> {
    let mut lines: HashMap<String, u32> = HashMap::new();
    spec.list("subsets", |item| {
        let fields = item.fields()?;
        let subset = Subset {
            location: item.location(),
            name: fields.required("name", istio::subset_name)?,
            labels: fields
                .optional("labels", Cursor::string_map)?
                .unwrap_or_default(),
            traffic_policy: fields
                .optional("trafficPolicy", traffic_policy)?
                .unwrap_or_default(),
        };
        fields.finish();
        match lines.insert(subset.name.clone(), item.line()) {
            Some(first) => Err(fields.reject_at(
                "name",
                format!(
                    "is the second subset {:?}: the first is on line {first}",
                    subset.name
                ),
            )),
            None => Ok(subset),
        }
    })
}

fn traffic_policy(cursor: &Cursor<'_>) -> Parsed<TrafficPolicy> {
    let fields = cursor.fields()?;
    let policy = TrafficPolicy {
        load_balancer: fields.optional("loadBalancer", load_balancer)?.flatten(),
        connect_timeout: fields
            .optional("connectionPool", connection_pool)?
            .flatten(),
    };
    fields.any_unsupported(&[
        "outlierDetection",
        "tls",
        "portLevelSettings",
        "tunnel",
        "proxyProtocol",
        "retryBudget",
    ]);
    fields.finish();
    Ok(policy)
}

fn load_balancer(cursor: &Cursor<'_>) -> Parsed<Option<LoadBalancer>> {
    let fields = cursor.fields()?;
    let simple = fields.optional("simple", |cursor| {
        cursor.one_of(&[
            ("LEAST_REQUEST", LoadBalancer::LeastRequest),
            ("ROUND_ROBIN", LoadBalancer::RoundRobin),
            ("RANDOM", LoadBalancer::Random),
            ("PASSTHROUGH", LoadBalancer::Passthrough),
            ("LEAST_CONN", LoadBalancer::LeastRequest),
            ("UNSPECIFIED", LoadBalancer::LeastRequest),
        ])
    })?;
    let consistent_hash = fields.unsupported("consistentHash");
    fields.any_unsupported(&[
        "backendUtilization",
        "localityLbSetting",
        "warmup",
        "warmupDurationSecs",
        "zoneAwareLbSetting",
    ]);
    fields.finish();
    if consistent_hash && simple.is_some() {
        return Err(cursor.reject("has both `simple` and `consistentHash`: keep one of them"));
    }
    Ok(simple)
}

fn connection_pool(cursor: &Cursor<'_>) -> Parsed<Option<std::time::Duration>> {
    let fields = cursor.fields()?;
    let connect_timeout = fields.optional("tcp", |tcp| {
        let fields = tcp.fields()?;
        let connect_timeout = fields.optional("connectTimeout", Cursor::duration)?;
        fields.any_unsupported(&[
            "maxConnections",
            "tcpKeepalive",
            "maxConnectionDuration",
            "idleTimeout",
        ]);
        fields.finish();
        Ok(connect_timeout)
    })?;
    fields.optional("http", |http| {
        let fields = http.fields()?;
        fields.any_unsupported(&[
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "idleTimeout",
            "h2UpgradePolicy",
            "useClientProtocol",
            "maxConcurrentStreams",
            "http2KeepAlive",
        ]);
        fields.finish();
        Ok(())
    })?;
    fields.finish();
    Ok(connect_timeout.flatten())
}
