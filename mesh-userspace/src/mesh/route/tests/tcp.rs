use crate::mesh::{
    model::Snapshot,
    route::{TcpOutcome, route_tcp},
    testing::{Mesh, workload},
};

/// What becomes of a connection by `from` to `dialled`: subsets or hosts, or what else happens.
fn outcome(snapshot: &Snapshot, from: &str, dialled: &str) -> String {
    let decision = route_tcp(
        snapshot,
        workload(snapshot, from),
        dialled.parse().expect("an address"),
    );
    match decision.outcome {
        TcpOutcome::Route(to) => {
            let route = decision.route.expect("a route");
            let hosts: Vec<String> = to
                .iter()
                .map(|(weight, one)| format!("{}:{} {weight}", one.host, one.port))
                .collect();
            format!("{} {}", route.index, hosts.join(" "))
        }
        TcpOutcome::Service(own) => format!("own {}:{}", own.host, own.port),
        TcpOutcome::Passthrough(address) => format!("pass {address}"),
        TcpOutcome::NoHealthyUpstream(why) => format!("503 {}", why.flag()),
    }
}

fn databases() -> Mesh {
    Mesh::default()
        .service("a/db", "10.96.0.1", &[("tcp", 5432), ("http", 80)])
        .service("a/new", "10.96.0.2", &[("tcp", 5432)])
        .service("a/empty", "10.96.0.3", &[("tcp", 5432)])
        .pod("a/db-1", "10.0.0.1", "app=db,role=writer")
        .pod("a/new-1", "10.0.0.2", "app=new")
        .pod("b/client", "10.0.0.3", "")
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: a}
spec:
  hosts: [db]
  tcp:
  - match: [{sourceNamespace: b, port: 5432}, {sourceLabels: {app: new}}]
    route:
    - {destination: {host: new}, weight: 1}
    - {destination: {host: db, port: {number: 5432}}, weight: 3}
  - match: [{sourceLabels: {role: writer}}]
    route: [{destination: {host: nobody}}]
",
        )
}

#[test]
fn the_first_tcp_route_for_the_client_takes_the_connection() {
    let snapshot = databases().snapshot();
    let split = "0 new.a.svc.cluster.local:5432 1 db.a.svc.cluster.local:5432 3";
    assert_eq!(outcome(&snapshot, "b/client", "10.96.0.1:5432"), split);
    assert_eq!(outcome(&snapshot, "a/new-1", "10.96.0.1:5432"), split);
    assert_eq!(outcome(&snapshot, "a/db-1", "10.96.0.1:5432"), "503 NC");
    let source = workload(&snapshot, "a/new-1");
    let decision = route_tcp(&snapshot, source, "10.96.0.1:5432".parse().unwrap());
    assert_eq!(decision.match_index, Some(1));
}

#[test]
fn without_a_matching_route_it_goes_to_the_service_itself() {
    let snapshot = databases().pod("c/client", "10.0.0.4", "").snapshot();
    assert_eq!(
        outcome(&snapshot, "c/client", "10.96.0.1:5432"),
        "own db.a.svc.cluster.local:5432"
    );
    assert_eq!(
        outcome(&snapshot, "b/client", "10.96.0.1:80"),
        "own db.a.svc.cluster.local:80",
        "a port that is declared HTTP has no TCP routes"
    );
    assert_eq!(outcome(&snapshot, "b/client", "10.96.0.3:5432"), "503 UH");
}

#[test]
fn what_is_no_service_port_passes() {
    let snapshot = databases().snapshot();
    for dialled in ["10.96.0.1:1", "10.0.0.1:5432", "192.0.2.1:80"] {
        assert_eq!(
            outcome(&snapshot, "b/client", dialled),
            format!("pass {dialled}")
        );
    }
}
