//! Connections whose bytes are not read: a decision, an endpoint, and bytes both ways.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use super::{
    access::may_connect,
    balance,
    client::Client,
    pump::{Flow, pump},
    socket::Socket,
    upstream::Server,
};
use crate::{
    config::model::LoadBalancer,
    mesh::{
        model::{Destination, Workload},
        route::{TcpOutcome, pick_weighted, route_tcp},
    },
    telemetry::{ConnectionRecord, ResponseFlags, Target},
};

/// Connects that are tried, each to another endpoint if there is one: nothing was sent yet.
const CONNECTS: usize = 3;

/// For addresses that no `DestinationRule` speaks of (Istio's default).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

enum Plan {
    Destination(Arc<Destination>),
    Address(SocketAddr),
    Refuse(ResponseFlags),
}

struct Connected {
    socket: Socket,
    server: Rc<Server>,
    workload: Option<Arc<Workload>>,
}

/// Carries one connection to its end.
pub async fn serve(client: &Rc<Client>, mut downstream: Socket) {
    let (plan, target, source) = decide(client);
    let open = |destination: Option<&Arc<Workload>>, upstream, flags| {
        ConnectionRecord::open(
            client.worker.telemetry.clone(),
            source.clone(),
            destination,
            target.clone(),
            upstream,
            flags,
        )
    };
    let connected = match &plan {
        Plan::Refuse(flags) => Err((None, *flags)),
        Plan::Address(address) => connect_to(client, *address, None, CONNECT_TIMEOUT)
            .await
            .map_err(|()| (Some(*address), ResponseFlags::UF)),
        Plan::Destination(destination) => connect(client, destination).await,
    };
    let mut upstream = match connected {
        Ok(connected) => connected,
        Err((address, flags)) => {
            drop(open(None, address, flags));
            // An orderly end would look like a server that had nothing to say.
            return downstream.reset();
        }
    };
    let address = Some(upstream.server.address);
    let mut record = open(upstream.workload.as_ref(), address, ResponseFlags::NONE);
    let _in_flight = upstream.server.begin();
    let _busy = client.busy.begin();
    let ended = pump(
        &mut downstream,
        &mut upstream.socket,
        |flow, bytes| match flow {
            Flow::Received => record.received(bytes),
            Flow::Sent => record.sent(bytes),
        },
    )
    .await;
    if ended.is_err() {
        // Whichever side reset, the other one is told the same.
        downstream.reset();
        upstream.socket.reset();
    }
}

fn decide(client: &Client) -> (Plan, Target, Arc<Workload>) {
    let snapshot = client.worker.snapshot();
    let source = client.source(&snapshot);
    let decision = route_tcp(&snapshot, &source, client.dialled);
    let target = match decision.service {
        Some(service) => Target::Service(service.clone()),
        None => Target::Passthrough,
    };
    let plan = match decision.outcome {
        TcpOutcome::Route(destinations) => {
            let random = client.worker.random_u32();
            match pick_weighted(destinations, |(weight, _)| *weight, random) {
                Some((_, destination)) => Plan::Destination(destination.clone()),
                None => Plan::Refuse(ResponseFlags::NC),
            }
        }
        TcpOutcome::Service(destination) => Plan::Destination(destination.clone()),
        TcpOutcome::Passthrough(address) => Plan::Address(address),
        TcpOutcome::NoHealthyUpstream(reason) => Plan::Refuse(match reason {
            crate::mesh::route::NoUpstream::NoCluster(_) => ResponseFlags::NC,
            crate::mesh::route::NoUpstream::NoEndpoint(_) => ResponseFlags::UH,
        }),
    };
    (plan, target, source)
}

async fn connect(
    client: &Client,
    destination: &Arc<Destination>,
) -> Result<Connected, (Option<SocketAddr>, ResponseFlags)> {
    if destination.invalid.is_some() {
        return Err((None, ResponseFlags::NC));
    }
    if destination.load_balancer == LoadBalancer::Passthrough {
        let address = client.dialled;
        return connect_to(client, address, None, destination.connect_timeout)
            .await
            .map_err(|()| (Some(address), ResponseFlags::UF));
    }
    let worker = &client.worker;
    let choices = client
        .pod
        .upstreams
        .choices(destination, || worker.random_u32() as usize);
    let mut tried = Vec::new();
    for _ in 0..CONNECTS.min(choices.servers.len()) {
        let Some(index) = worker.with_rng(|rng| balance::pick(&choices, &tried, rng)) else {
            break;
        };
        let address = choices.servers[index].address;
        let workload = destination.endpoints[index].workload.clone();
        match connect_to(client, address, workload, destination.connect_timeout).await {
            Ok(connected) => return Ok(connected),
            Err(()) => tried.push(address),
        }
    }
    match tried.last() {
        Some(address) => Err((Some(*address), ResponseFlags::UF)),
        None => Err((None, ResponseFlags::UH)),
    }
}

async fn connect_to(
    client: &Client,
    address: SocketAddr,
    workload: Option<Arc<Workload>>,
    timeout: Duration,
) -> Result<Connected, ()> {
    let allowed = {
        let snapshot = client.worker.snapshot();
        let source = client.source(&snapshot);
        let server = workload
            .as_ref()
            .or_else(|| snapshot.workload_by_address.get(&address.ip()));
        may_connect(client, &source, server, address)
    };
    if !allowed {
        return Err(());
    }
    let upstreams = &client.pod.upstreams;
    match upstreams.connect(address, timeout).await {
        Ok(socket) => Ok(Connected {
            socket,
            server: upstreams.server(address),
            workload,
        }),
        Err(error) => {
            tracing::debug!(pod = %client.pod.name, %address, %error, "connect failed");
            Err(())
        }
    }
}
