//! What the kernel will find is what is decided, for any policies and any connection.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::model::{
        AuthorizationRule, ConditionMatch, MutualTls, ObjectName, OperationMatch, Pattern,
        PolicyAction, SourceMatch, Values,
    },
    mesh::{
        access::{Authentication, Policy},
        model::Snapshot,
        testing::Mesh,
    },
};

/// Addresses that are near each other, so that blocks contain and miss them.
fn address() -> impl Strategy<Value = IpAddr> + Clone {
    prop_oneof![
        4 => (0..4_u8, 0..4_u8).prop_map(|(c, d)| Ipv4Addr::new(10, 0, c, d).into()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => (0..4_u16).prop_map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()),
    ]
}

fn block() -> impl Strategy<Value = IpBlock> + Clone {
    (address(), 0..=32_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv6() {
            length * 4
        } else {
            length
        };
        IpBlock::new(address, length).expect("few enough bits")
    })
}

fn port() -> impl Strategy<Value = u16> + Clone {
    prop_oneof![1..6_u16, Just(u16::MAX)]
}

fn values<T: std::fmt::Debug + Clone>(
    one: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Values<T>> {
    (vec(one.clone(), 0..3), vec(one, 0..2)).prop_map(|(any, none)| Values { any, none })
}

fn namespace() -> impl Strategy<Value = Pattern> + Clone {
    prop::sample::select(vec!["a", "b", "a*", "*b", "*", "nobody"]).prop_map(Pattern::parse)
}

fn nothing<T: std::fmt::Debug + Clone + 'static>() -> BoxedStrategy<Values<T>> {
    Just(Values::default()).boxed()
}

fn source() -> impl Strategy<Value = SourceMatch> {
    let account = (
        prop::option::of("[ab]"),
        prop::sample::select(vec!["x", "y"]),
    );
    let account = account.prop_map(|(namespace, name)| (namespace, name.to_owned()));
    (
        prop_oneof![nothing(), values(block()).boxed()],
        prop_oneof![nothing(), values(namespace()).boxed()],
        prop_oneof![nothing(), nothing(), values(account).boxed()],
    )
        .prop_map(|(address, namespace, service_account)| SourceMatch {
            address,
            namespace,
            service_account,
            ..SourceMatch::default()
        })
}

fn operation() -> impl Strategy<Value = OperationMatch> {
    values(port()).prop_map(|port| OperationMatch { port })
}

fn rule() -> impl Strategy<Value = AuthorizationRule> {
    let condition = prop_oneof![
        source().prop_map(ConditionMatch::Source),
        operation().prop_map(ConditionMatch::Operation),
    ];
    (
        vec(source(), 0..3),
        vec(operation(), 0..3),
        vec(condition, 0..2),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(from, to, when, needs_request)| AuthorizationRule {
            from,
            to,
            when,
            needs_request,
        })
}

fn mode() -> impl Strategy<Value = MutualTls> {
    prop::sample::select(vec![
        MutualTls::Disable,
        MutualTls::Permissive,
        MutualTls::Strict,
    ])
}

prop_compose! {
    fn access()(
        mode in mode(),
        ports in prop::collection::btree_map(port(), mode(), 0..3),
        policies in vec((prop::bool::ANY, vec(rule(), 0..4)), 0..4),
    ) -> WorkloadAccess {
        let authentication = Authentication {
            mode,
            policy: Some(ObjectName::new("a", "peers")),
            ports,
            ports_policy: Some(ObjectName::new("a", "ports")),
        };
        let of_action = |wanted: bool| {
            let policies = policies.iter().enumerate();
            policies.filter(move |(_, (deny, _))| *deny == wanted).map(|(index, (deny, rules))| Policy {
                name: ObjectName::new("a", format!("policy-{index}")),
                action: if *deny { PolicyAction::Deny } else { PolicyAction::Allow },
                rules: rules.clone(),
            })
        };
        let policies = of_action(true).chain(of_action(false)).collect();
        WorkloadAccess { authentication, policies }
    }
}

/// Pods of two namespaces and two accounts, at some of the addresses that are asked about.
fn pods() -> Snapshot {
    let mut mesh = Mesh::default();
    for (index, (namespace, account)) in [("a", "x"), ("a", "y"), ("b", "x"), ("ab", "y")]
        .into_iter()
        .enumerate()
    {
        let name = format!("{namespace}/pod-{index}");
        mesh = mesh.pod_with(&name, &format!("10.0.{index}.1"), "", |pod| {
            pod.service_account = account.into();
            pod.addresses
                .push(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, index as u16).into());
        });
    }
    mesh.snapshot()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_compiled_is_what_is_decided(
        access in access(),
        connections in vec((address(), prop_oneof![port(), 1..=u16::MAX]), 40),
    ) {
        let snapshot = pods();
        let access = Arc::new(access);
        let mut ids = Ids::default();
        let pods = snapshot.workloads.values().map(AsRef::as_ref);
        let set = Compiler::new(pods).set(&access, &mut ids);
        for (address, port) in connections {
            let client = Client {
                address: IpBlock::host(address),
                workload: snapshot.workload_by_address.get(&address).map(AsRef::as_ref),
            };
            let decided = verdict(access.decide(&client, port), &mut ids);
            prop_assert_eq!(set.verdict(address, port), decided, "{} {}", address, port);
        }
    }
}

#[test]
fn who_is_judged_as_those_around_needs_no_entry() {
    let snapshot = pods();
    let strict = Arc::new(WorkloadAccess {
        authentication: Authentication {
            mode: MutualTls::Strict,
            policy: Some(ObjectName::new("a", "peers")),
            ..Authentication::default()
        },
        policies: Vec::new(),
    });
    let mut ids = Ids::default();
    let pods = || snapshot.workloads.values().map(AsRef::as_ref);
    let set = Compiler::new(pods()).set(&strict, &mut ids);
    // Everybody, and four pods with two addresses each.
    assert_eq!(set.sources.len(), 9);
    let shared = Arc::clone(&strict);
    let mut compiler = Compiler::new(pods());
    let (one, other) = (
        compiler.set(&strict, &mut ids),
        compiler.set(&shared, &mut ids),
    );
    assert!(Arc::ptr_eq(&one, &other));
    let deny_all = Arc::new(WorkloadAccess {
        policies: vec![Policy {
            name: ObjectName::new("a", "all"),
            action: PolicyAction::Deny,
            rules: vec![AuthorizationRule::default()],
        }],
        authentication: strict.authentication.clone(),
    });
    // One for strangers, who have no TLS, and eight for those whom the policy refuses.
    assert_eq!(
        Compiler::new(pods()).set(&deny_all, &mut ids).sources.len(),
        9
    );
}
