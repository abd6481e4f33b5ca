use std::path::PathBuf;

use super::{assert_refused, good, good_without_remarks, read};
use crate::config::model::{
    Acceleration, EndpointSlice, FailurePolicy, Pod, PodDefaults, PodPlace, Service, Spec, State,
    TargetPort, Transport,
};

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n")
}

fn good_service(spec: &str) -> Service {
    match good_without_remarks(&service(spec)).spec.clone() {
        Spec::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

fn pod(annotations: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations: {annotations}\n{rest}")
}

fn good_pod(annotations: &str, rest: &str) -> Pod {
    match good_without_remarks(&pod(annotations, rest)).spec.clone() {
        Spec::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn slice(rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: a-1\n  labels: \
         {{kubernetes.io/service-name: a}}\n{rest}"
    )
}

fn good_slice(rest: &str) -> EndpointSlice {
    match good_without_remarks(&slice(rest)).spec.clone() {
        Spec::EndpointSlice(slice) => slice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_is_read() {
    let service = good_service(
        "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], selector: {app: a}, \
         sessionAffinity: None, ports: [{name: http, port: 80, targetPort: web, appProtocol: \
         http2}, {name: dns, port: 53, targetPort: 5353, protocol: UDP}]}",
    );
    assert_eq!(service.cluster_ips.len(), 2);
    assert!(!service.headless);
    assert_eq!(service.selector["app"], "a");
    assert_eq!(service.ports[0].target, TargetPort::Name("web".to_owned()));
    assert_eq!(service.ports[0].app_protocol.as_deref(), Some("http2"));
    assert_eq!(service.ports[0].transport, Transport::Tcp);
    assert_eq!(service.ports[1].target, TargetPort::Number(5353));
    assert_eq!(service.ports[1].transport, Transport::Udp);
}

#[test]
fn a_service_without_an_address_is_headless_only_if_it_says_so() {
    let headless = good_service("{clusterIP: None, ports: [{port: 80}]}");
    assert!(headless.headless && headless.cluster_ips.is_empty());
    assert_eq!(headless.ports[0].target, TargetPort::Number(80));
    assert!(!good_service("{ports: [{port: 80}]}").headless);
    assert!(
        good_service("{type: ExternalName, externalName: x.y}")
            .cluster_ips
            .is_empty()
    );
}

#[test]
fn a_service_s_mistakes_are_told() {
    assert_refused(
        &service("{ports: [{port: 0}]}"),
        "spec.ports[0].port",
        4,
        "from 1 to 65535",
    );
    assert_refused(
        &service("{ports: [{name: a}]}"),
        "spec.ports[0].port",
        4,
        "is missing",
    );
    assert_refused(
        &service("{ports: [{port: 1}, {port: 2}]}"),
        "spec.ports[0]",
        4,
        "no name",
    );
    let twice = "{ports: [{name: a, port: 1}, {name: a, port: 2}]}";
    assert_refused(&service(twice), "spec.ports[1]", 4, "second port named");
    let twice = "{ports: [{name: a, port: 1}, {name: b, port: 1}]}";
    assert_refused(
        &service(twice),
        "spec.ports[1]",
        4,
        "second port with number 1",
    );
    assert_refused(
        &service("{clusterIP: 10.0}"),
        "spec.clusterIP",
        4,
        "but must be a text",
    );
    assert_refused(
        &service("{clusterIP: ten}"),
        "spec.clusterIP",
        4,
        "no IP address",
    );
    let quoted = "{ports: [{port: 80, targetPort: '8080'}]}";
    assert_refused(
        &service(quoted),
        "spec.ports[0].targetPort",
        4,
        "remove the quotes",
    );
    let lower = "{ports: [{port: 80, protocol: tcp}]}";
    assert_refused(
        &service(lower),
        "spec.ports[0].protocol",
        4,
        "did you mean `TCP`?",
    );
    let no_spec = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    assert_refused(no_spec, "spec", 1, "is missing");
}

#[test]
fn a_pod_is_read() {
    let pod = good_pod(
        "{zerohop.dev/netns: a-1, zerohop.dev/acceleration: off, zerohop.dev/failure-policy: \
         closed, zerohop.dev/acceleration-exclude-ports: '80, 443', other/x: '1'}",
        "spec: {nodeName: n1, serviceAccountName: sa, containers: [{name: c, ports: [{name: web, \
         containerPort: 8080}, {containerPort: 9}]}], initContainers: [{ports: [{name: side, \
         containerPort: 7}]}]}\nstatus: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}, {ip: \
         'fd00::2'}], conditions: [{type: Ready, status: 'False'}]}\n",
    );
    assert_eq!(pod.node_name.as_deref(), Some("n1"));
    assert_eq!(pod.service_account, "sa");
    assert_eq!(pod.addresses.len(), 2);
    assert!(!pod.ready);
    assert_eq!(pod.named_ports["web"], 8080);
    assert_eq!(pod.named_ports["side"], 7);
    assert_eq!(
        pod.place,
        Some(PodPlace::Netns(PathBuf::from("/run/netns/a-1")))
    );
    assert_eq!(pod.acceleration, Some(Acceleration::Off));
    assert_eq!(pod.acceleration_exclude_ports, Some(vec![80, 443]));
    assert_eq!(pod.failure_policy, Some(FailurePolicy::Closed));
}

#[test]
fn a_pod_that_says_little_has_the_defaults() {
    let pod = good_pod("{}", "status: {podIP: 10.0.0.2}\n");
    assert_eq!((pod.service_account.as_str(), pod.ready), ("default", true));
    assert_eq!(
        pod.addresses,
        ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(pod.node_name.is_none() && pod.place.is_none() && pod.acceleration.is_none());
    assert!(good_pod("{}", "status: {podIP: ''}\n").addresses.is_empty());
    assert!(
        good_pod(
            "{}",
            "status: {conditions: [{type: Ready, status: 'True'}]}\n"
        )
        .ready
    );
}

#[test]
fn a_pod_s_place_is_a_namespace_by_name_or_path_or_a_cgroup() {
    let place = |annotation: &str| good_pod(&format!("{{zerohop.dev/{annotation}}}"), "").place;
    assert_eq!(
        place("netns: /proc/1/ns/net"),
        Some(PodPlace::Netns("/proc/1/ns/net".into()))
    );
    let cgroup = PodPlace::Cgroup("/sys/fs/cgroup/a".into());
    assert_eq!(place("cgroup: /sys/fs/cgroup/a"), Some(cgroup));
}

#[test]
fn bad_annotations_of_ours_refuse_the_object() {
    for (annotation, name, words) in [
        (
            "netns: ../a",
            "netns",
            "neither an absolute path nor a name",
        ),
        ("netns: ''", "netns", "must not be empty"),
        ("cgroup: a", "cgroup", "no absolute path"),
        ("acceleration: fast", "acceleration", "one of auto, on, off"),
        (
            "failure-policy: fail",
            "failure-policy",
            "one of open, closed",
        ),
        (
            "acceleration-exclude-ports: '80,http'",
            "acceleration-exclude-ports",
            "\"http\" is no",
        ),
        (
            "acceleration-exclude-ports: 80",
            "acceleration-exclude-ports",
            "in quotes, \"80\"",
        ),
    ] {
        let text = pod(&format!("{{zerohop.dev/{annotation}}}"), "");
        assert_refused(
            &text,
            &format!("metadata.annotations[zerohop.dev/{name}]"),
            5,
            words,
        );
    }
    let both = pod("{zerohop.dev/netns: a, zerohop.dev/cgroup: /b}", "");
    assert_refused(
        &both,
        "metadata.annotations[zerohop.dev/cgroup]",
        5,
        "not both",
    );
}

#[test]
fn an_unknown_annotation_of_ours_is_warned_about() {
    let (_, report) = good(&pod("{zerohop.dev/accelerate: 'on'}", ""));
    assert_eq!(
        report.warnings,
        [
            "unknown annotation `zerohop.dev/accelerate` (line 5): ignored; did you mean \
             `zerohop.dev/acceleration`?"
        ]
    );
}

#[test]
fn a_namespace_has_defaults_for_its_pods() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: \
                {zerohop.dev/failure-policy: closed}}\n";
    let Spec::Namespace(PodDefaults {
        failure_policy,
        acceleration,
        ..
    }) = good_without_remarks(text).spec.clone()
    else {
        panic!("a Namespace");
    };
    assert_eq!(
        (failure_policy, acceleration),
        (Some(FailurePolicy::Closed), None)
    );
}

#[test]
fn an_endpoint_slice_is_read() {
    let slice = good_slice(
        "addressType: IPv4\nports: [{name: http, port: 8080}, {port: 53, protocol: UDP}]\n\
         endpoints:\n- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: a-x}}\n- {addresses: \
         [10.0.0.3], conditions: {ready: false}, targetRef: {kind: Node, name: n}}\n- \
         {addresses: [10.0.0.4], conditions: {ready: null}}\n",
    );
    assert_eq!(slice.service, "a");
    assert_eq!(
        (slice.ports[0].name.as_str(), slice.ports[0].port),
        ("http", 8080)
    );
    assert_eq!(slice.ports[1].transport, Transport::Udp);
    let ready: Vec<bool> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.ready)
        .collect();
    assert_eq!(ready, [true, false, true]);
    let pods: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.pod.as_deref())
        .collect();
    assert_eq!(pods, [Some("a-x"), None, None]);
}

#[test]
fn an_endpoint_slice_s_mistakes_are_told() {
    let nobody_s = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n";
    assert_refused(
        nobody_s,
        "metadata.labels[kubernetes.io/service-name]",
        3,
        "kubernetes.io/service-name is missing",
    );
    let empty = slice("endpoints:\n- {addresses: []}\n");
    assert_refused(&empty, "endpoints[0].addresses", 7, "needs an address");
    let wrong = slice("endpoints:\n- {addresses: [a.b]}\n");
    assert_refused(&wrong, "endpoints[0].addresses[0]", 7, "no IP address");
    let names = read(&slice(
        "addressType: FQDN\nendpoints:\n- {addresses: [a.b]}\n",
    ))
    .remove(0);
    assert_eq!(names.report.state, State::Ignored);
}

#[test]
fn fields_of_kubernetes_that_do_not_concern_the_mesh_are_no_news() {
    good_without_remarks(&service(
        "{ports: [{port: 80}], trafficDistribution: PreferClose}",
    ));
    good_without_remarks(&pod(
        "{}",
        "spec: {hostname: x, volumes: [{name: v, emptyDir: {}}]}\n",
    ));
}

#[test]
fn session_affinity_is_read_within_the_bounds_of_the_api() {
    let affinity = |text: &str| {
        good_service(&format!(
            "{{clusterIP: 10.0.0.1, ports: [{{port: 80}}]{text}}}"
        ))
        .session_affinity
        .map(|timeout| timeout.as_secs())
    };
    assert_eq!(affinity(""), None);
    assert_eq!(affinity(", sessionAffinity: None"), None);
    assert_eq!(affinity(", sessionAffinity: ClientIP"), Some(10_800));
    let config = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    assert_eq!(
        affinity(&format!(", sessionAffinity: ClientIP, {config}")),
        Some(60)
    );
    assert_eq!(affinity(&format!(", {config}")), None);
}
