use mesh_common::PortBe;

use super::*;
use crate::mesh::testing::Mesh;

const HOST: &str = "web.shop.svc.cluster.local";

/// A record of a client that was sent directly to `server`, a pod with a name.
fn record(ids: &mut Ids, server: &str) -> ConnectionRecord {
    let server: SocketAddr = server.parse().expect("an address");
    ConnectionRecord {
        connection: Connection {
            cookie: 1,
            remote_address: server.ip().into(),
            remote_port: PortBe::new(server.port()),
            role: Role::Client as u32,
            way: Verdict::Direct as u32,
            service: ids.id(NameKind::Service, HOST),
            destination: ids.id(NameKind::Workload, "shop/web"),
            ..Connection::default()
        },
        ..ConnectionRecord::default()
    }
}

fn web() -> Mesh {
    Mesh::default().service("shop/web", "10.96.0.1", &[("tcp", 80)])
}

fn is_dead(mesh: &Mesh, change: impl FnOnce(&mut Connection)) -> bool {
    let mut ids = Ids::default();
    let mut record = record(&mut ids, "10.0.0.7:80");
    change(&mut record.connection);
    !find(&[record], &mesh.snapshot(), &ids).is_empty()
}

#[test]
fn an_endpoint_is_gone_when_neither_its_service_nor_a_pod_has_its_address() {
    assert!(is_dead(&web(), |_| {}));
    assert!(is_dead(
        &web().pod("shop/other", "10.0.0.8", "app=web"),
        |_| {}
    ));
    let still_there = web().pod("shop/web", "10.0.0.7", "app=web");
    assert!(!is_dead(&still_there, |_| {}));
}

#[test]
fn an_endpoint_that_is_not_ready_or_left_its_service_keeps_its_connections() {
    let unready = web().pod_with("shop/web", "10.0.0.7", "app=web", |pod| pod.ready = false);
    assert!(!is_dead(&unready, |_| {}));
    let relabelled = web().pod("shop/web", "10.0.0.7", "app=debug");
    assert!(!is_dead(&relabelled, |_| {}));
}

#[test]
fn what_nobody_can_know_to_be_gone_is_left_alone() {
    assert!(
        !is_dead(&Mesh::default(), |_| {}),
        "the service is not known"
    );
    assert!(
        !is_dead(&web(), |one| one.destination = 0),
        "no pod behind it"
    );
    assert!(
        !is_dead(&web(), |one| one.service = 0),
        "no service was dialled"
    );
    assert!(!is_dead(&web(), |one| one.way = Verdict::Agent as u32));
    assert!(!is_dead(&web(), |one| one.role = Role::Server as u32));
}

#[test]
fn one_looks_for_the_dead_where_something_went() {
    let mut lookout = Lookout::default();
    let one = web().pod("shop/web", "10.0.0.7", "app=web").snapshot();
    let two = web()
        .pod("shop/web", "10.0.0.7", "app=web")
        .pod("shop/other", "10.0.0.8", "")
        .snapshot();
    assert!(lookout.is_due(&one), "an earlier agent may have left some");
    assert!(lookout.is_due(&one), "once more");
    assert!(!lookout.is_due(&one));
    assert!(!lookout.is_due(&two), "something came");
    assert!(lookout.is_due(&one), "a pod went");
    assert!(lookout.is_due(&one), "once more");
    assert!(!lookout.is_due(&one));
}
