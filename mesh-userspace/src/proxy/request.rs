//! The life of a request. The order of policies is written here and nowhere else.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_TYPE, LOCATION},
};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    answer::Answer,
    body::RequestBody,
    client::{self, Client, Served, Upgrade},
    failure::Failure,
    fault,
    forward::{self, To},
    headers::{self, Survey},
    outbound::Outbound,
    response_body::{ResponseBody, ResponseSource},
};
use crate::{
    config::model::DirectResponse,
    mesh::{
        model::{HttpRoute, RouteAction, Snapshot},
        route::{
            HttpDecision, HttpOutcome, NoUpstream, RequestFacts, apply_response_headers,
            pick_destination, redirect_location, route_http,
        },
    },
    telemetry::{RequestLine, RequestRecord, Target, series::RequestProtocol},
};

/// What was decided about a request.
enum Plan {
    /// The route's business: forward it, or answer it.
    Route {
        route: Arc<HttpRoute>,
        match_index: Option<usize>,
        /// Where a redirect points.
        location: Option<String>,
    },
    /// The mesh does not know the host: on to the address that was dialled.
    Passthrough,
}

/// Serves one request of a client; never fails towards hyper: a failure is an answer too.
pub async fn handle(client: Rc<Client>, request: Request<Incoming>) -> Served<ResponseBody> {
    let busy = client.busy.begin();
    let mut outbound = Outbound::new(request);
    let request = outbound.request();
    // One look at what is in force, for all decisions about this request.
    let snapshot = client.worker.snapshot();
    let mut record = Box::new(RequestRecord::start(
        client.worker.telemetry.clone(),
        client.source(&snapshot),
        || request_line(request),
    ));
    let survey = Survey::of(request.headers());
    record.request_bytes = survey.size;
    if survey.grpc {
        record.protocol = RequestProtocol::Grpc;
    }
    let http2 = request.version() == Version::HTTP_2;
    let connect = request.method() == Method::CONNECT;
    let downstream_upgrade = request.extensions_mut().remove::<OnUpgrade>();

    // The route first: all that follows is what it says. It sees the request as the client sent it, before
    // anybody rewrites it.
    let plan = decide(&client, &snapshot, &mut record, request);
    drop(snapshot);
    let answer = match plan {
        Ok(plan) => serve(&client, &mut record, &survey, plan, &mut outbound).await,
        Err(failure) => Err(failure),
    };
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            record.flag(failure.flags());
            local_reply(&mut record, failure.status(), failure.body(), survey.grpc)
        }
    };

    let status = answer.head.status;
    record.code = status.as_u16();
    record.response_bytes = answer.head_size;
    let switched = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    if switched && let Some(upstream) = answer.take_upgrade() {
        let upgrade = Upgrade {
            upstream,
            record,
            busy,
        };
        hand_over(
            &client,
            upgrade,
            http2.then_some(downstream_upgrade).flatten(),
        );
        let body = ResponseBody::new(ResponseSource::Ended, None, None, None);
        return Ok(Response::from_parts(answer.head, body));
    }
    let mut body = ResponseBody::new(answer.source, Some(record), answer.request, answer.deadline);
    body.busy = Some(busy);
    Ok(Response::from_parts(answer.head, body))
}

/// One request by its plan, policy by policy.
async fn serve(
    client: &Rc<Client>,
    record: &mut RequestRecord,
    survey: &Survey,
    plan: Plan,
    outbound: &mut Outbound,
) -> Result<Box<Answer>, Failure> {
    let (route, match_index, location) = match plan {
        Plan::Route {
            route,
            match_index,
            location,
        } => (route, match_index, location),
        Plan::Passthrough => {
            return forward::passthrough(client, record, survey, outbound).await;
        }
    };
    // Faults before anything is sent or answered: they stand for a bad network in front of the service. So
    // a delay does not use up the route's timeout, and an abort is not retried.
    if let Some(fault) = &route.fault {
        fault::inject(&client.worker, record, fault).await?;
    }
    let to = match &route.action {
        // Answers of the mesh's own need no upstream; the route's header operations still hold for them.
        RouteAction::Redirect(redirect) => {
            return Ok(redirected(&route, redirect.code, location.as_deref()));
        }
        RouteAction::DirectResponse(direct) => return Ok(direct_response(&route, direct)),
        // By weight, once per request: a retry goes to another endpoint of the same destination, or a
        // canary's share would depend on how often it fails.
        RouteAction::Forward(_) => pick_destination(&route, client.worker.random_u32())
            .ok_or_else(|| Failure::NoCluster("the route has no destination".into()))?,
    };
    // Then headers and rewrite, timeout, retries, endpoint, connect, send: see `forward`, which does the
    // first two once and the last three per try, all tries within the timeout.
    let to = To {
        route: &route,
        matched: match_index,
        destination: to,
    };
    forward::forward(client, record, survey, &to, outbound).await
}

/// Asks the mesh. The plan borrows nothing of the snapshot: a request may outlive it.
fn decide(
    client: &Client,
    snapshot: &Snapshot,
    record: &mut RequestRecord,
    request: &Request<RequestBody>,
) -> Result<Plan, Failure> {
    let authority = headers::authority(request).map_err(Failure::BadRequest)?;
    let dialled;
    let authority = if let Some(authority) = authority {
        authority
    } else {
        // HTTP/1.0 without a Host: it can only mean whom it dialled.
        dialled = client.dialled.to_string();
        &dialled
    };
    let facts = RequestFacts {
        source: &record.source,
        dialled: client.dialled,
        scheme: "http",
        method: request.method(),
        uri: request.uri(),
        authority,
        headers: request.headers(),
    };
    let decision = route_http(snapshot, &facts);
    let target = target(&decision);
    let plan = plan(&decision, &facts);
    record.target = target;
    if let Ok(Plan::Route { route, .. }) = &plan {
        record.route = Some(route.clone());
    }
    plan
}

fn plan(decision: &HttpDecision<'_>, facts: &RequestFacts<'_>) -> Result<Plan, Failure> {
    let location = match &decision.outcome {
        HttpOutcome::NotFound => return Err(Failure::NoRoute),
        HttpOutcome::Redirect(redirect) => Some(redirect_location(redirect, facts)),
        _ => None,
    };
    match (decision.route, &decision.outcome) {
        // Whether a destination can take it is found out by the pick: faults come first.
        (Some(route), _) => Ok(Plan::Route {
            route: route.clone(),
            match_index: decision.match_index,
            location,
        }),
        (None, HttpOutcome::Passthrough(_)) => Ok(Plan::Passthrough),
        (None, HttpOutcome::NoHealthyUpstream(NoUpstream::NoEndpoint(_))) => {
            Err(Failure::NoHealthyUpstream)
        }
        (None, HttpOutcome::NoHealthyUpstream(reason)) => {
            Err(Failure::NoCluster(reason.to_string()))
        }
        (None, _) => Err(Failure::NoRoute),
    }
}

/// The service in metrics, until a destination is picked: the one that was asked for.
fn target(decision: &HttpDecision<'_>) -> Target {
    match (decision.service, &decision.outcome) {
        (Some(service), _) => Target::Service(service.clone()),
        (None, HttpOutcome::Passthrough(_)) => Target::Passthrough,
        (None, _) => Target::Unknown,
    }
}

fn redirected(route: &HttpRoute, code: u16, location: Option<&str>) -> Box<Answer> {
    let mut answer = Answer::local(
        StatusCode::from_u16(code).unwrap_or(StatusCode::FOUND),
        Bytes::new(),
    );
    if let Some(Ok(location)) = location.map(HeaderValue::from_str) {
        answer.head.headers.insert(LOCATION, location);
    }
    apply_response_headers(route, None, &mut answer.head.headers);
    answer
}

fn direct_response(route: &HttpRoute, direct: &DirectResponse) -> Box<Answer> {
    let status = StatusCode::from_u16(direct.status).unwrap_or(StatusCode::OK);
    let body = direct.body.clone().unwrap_or_default();
    let mut answer = Answer::local(status, body.into());
    apply_response_headers(route, None, &mut answer.head.headers);
    answer
}

/// The mesh's own words. A gRPC client gets them as gRPC has it: status 200, the rest in fields.
fn local_reply(
    record: &mut RequestRecord,
    status: StatusCode,
    body: Bytes,
    grpc: bool,
) -> Box<Answer> {
    if !grpc {
        return Answer::local(status, body);
    }
    let grpc_status = Failure::grpc_status(status);
    record.grpc_status = Some(grpc_status);
    let mut answer = Answer::local(StatusCode::OK, Bytes::new());
    let fields = &mut answer.head.headers;
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert("grpc-status", HeaderValue::from(grpc_status));
    if let Ok(message) = HeaderValue::from_bytes(&body) {
        fields.insert("grpc-message", message);
    }
    answer
}

/// Lets the bytes of a switched exchange flow as soon as its head is written.
fn hand_over(client: &Rc<Client>, upgrade: Upgrade, http2: Option<OnUpgrade>) {
    match http2 {
        // A stream of an HTTP/2 connection: hyper hands it out by itself.
        Some(downstream) => {
            tokio::task::spawn_local(async move {
                if let Ok(downstream) = downstream.await {
                    client::splice(downstream, upgrade).await;
                }
            });
        }
        // The whole connection: its task takes it when hyper is done with it.
        None => {
            client.upgrade.replace(Some(upgrade));
        }
    }
}

fn request_line(request: &Request<RequestBody>) -> RequestLine {
    let path = request.uri().path_and_query();
    let authority = headers::authority(request).ok().flatten();
    RequestLine {
        method: request.method().clone(),
        path: path.map_or("/", |both| both.as_str()).to_owned(),
        version: request.version(),
        authority: authority.unwrap_or("-").to_owned(),
    }
}
