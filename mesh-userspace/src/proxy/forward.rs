//! Forwarding: the request as the upstream must see it, and tries until one answers.

use std::{net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Uri, Version, header::HOST, uri::Authority};

use super::{
    access::may_connect,
    answer::Answer,
    attempt::{self, Speak},
    balance,
    client::Client,
    failure::Failure,
    headers::{self, Survey},
    outbound::Outbound,
    retry,
    timeout::Timeouts,
    upstream::{Choices, Server},
};
use crate::{
    config::model::LoadBalancer,
    mesh::{
        model::{HttpRoute, Protocol, RetryPolicy, WeightedDestination, Workload},
        route::{apply_request_headers, apply_response_headers, apply_rewrite, upstream_authority},
    },
    telemetry::{RequestRecord, ResponseFlags},
};

/// Where a request goes, and by which route.
pub struct To<'a> {
    /// The route.
    pub route: &'a HttpRoute,
    /// Which of its matches held.
    pub matched: Option<usize>,
    /// The destination that was picked by weight.
    pub destination: &'a WeightedDestination,
}

/// Sends a request on to its destination.
pub async fn forward(
    client: &Rc<Client>,
    record: &mut RequestRecord,
    survey: &Survey,
    to: &To<'_>,
    outbound: &mut Outbound,
) -> Result<Box<Answer>, Failure> {
    let destination = &to.destination.destination;
    if let Some(service) = &destination.service {
        record.target.set(service);
    }
    if let Some(reason) = &destination.invalid {
        return Err(Failure::NoCluster(reason.clone()));
    }
    let request = outbound.request();
    let client_http2 = request.version() == Version::HTTP_2;
    let speak = speak(destination.protocol, client_http2);
    // This hop's fields go before the rule's operations: what a rule adds is meant for the upstream.
    headers::strip_request(request.headers_mut(), survey, speak.is_http2());
    rewrite(request, to).map_err(Failure::BadRequest)?;
    apply_request_headers(to.route, Some(to.destination), request.headers_mut());

    let random = || client.worker.random_u32() as usize;
    let choices = match destination.load_balancer {
        LoadBalancer::Passthrough => None,
        _ => Some(client.pod.upstreams.choices(destination, random)),
    };
    let mut tries = Tries {
        client,
        choices: choices.as_deref(),
        policy: Some(&to.route.retries),
        speak,
        survey,
        connect_timeout: destination.connect_timeout,
        timeouts: Timeouts::new(to.route.timeout, to.route.retries.per_try_timeout),
    };
    let mut answer = tries.run(record, outbound).await?;
    answer.pass_on(client_http2);
    apply_response_headers(to.route, Some(to.destination), &mut answer.head.headers);
    Ok(answer)
}

/// Sends a request on to the address that its client dialled: no rule speaks of it.
pub async fn passthrough(
    client: &Rc<Client>,
    record: &mut RequestRecord,
    survey: &Survey,
    outbound: &mut Outbound,
) -> Result<Box<Answer>, Failure> {
    let request = outbound.request();
    let client_http2 = request.version() == Version::HTTP_2;
    let speak = speak(Protocol::Auto, client_http2);
    headers::strip_request(request.headers_mut(), survey, speak.is_http2());
    let mut tries = Tries {
        client,
        choices: None,
        policy: None,
        speak,
        survey,
        connect_timeout: super::tcp::CONNECT_TIMEOUT,
        timeouts: Timeouts::new(None, None),
    };
    let mut answer = tries.run(record, outbound).await?;
    answer.pass_on(client_http2);
    Ok(answer)
}

/// HTTP/2 where the destination says so, else what the client speaks.
fn speak(declared: Protocol, client_http2: bool) -> Speak {
    match declared {
        Protocol::Grpc | Protocol::Http2 => Speak::Http2 { declared: true },
        _ if client_http2 => Speak::Http2 { declared: false },
        _ => Speak::Http1,
    }
}

/// Path and host as the route wants them.
fn rewrite<B>(request: &mut Request<B>, to: &To<'_>) -> Result<(), &'static str> {
    let bad_path = "the rewritten path is not a path";
    let bad_host = "the rewritten host is not a host";
    if let Some(rewrite) = &to.route.rewrite {
        let matched = to
            .matched
            .and_then(|index| to.route.matches.get(index)?.uri.as_ref());
        let old = request.uri().path_and_query();
        let old = old.map_or("/", |both| both.as_str());
        if let Some(new) = apply_rewrite(rewrite, matched, old) {
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.path_and_query = Some(new.parse().map_err(|_| bad_path)?);
            *request.uri_mut() = Uri::from_parts(uri).map_err(|_| bad_path)?;
        }
    }
    if let Some(authority) = upstream_authority(to.route, Some(to.destination)) {
        let host = HeaderValue::from_str(authority).map_err(|_| bad_host)?;
        if request.uri().authority().is_some() && request.method() != Method::CONNECT {
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.authority = Some(Authority::try_from(authority).map_err(|_| bad_host)?);
            *request.uri_mut() = Uri::from_parts(uri).map_err(|_| bad_host)?;
        }
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// All tries of one request.
struct Tries<'a> {
    client: &'a Rc<Client>,
    /// Absent: to the address that the client dialled.
    choices: Option<&'a Choices>,
    policy: Option<&'a RetryPolicy>,
    speak: Speak,
    survey: &'a Survey,
    connect_timeout: Duration,
    timeouts: Timeouts,
}

impl Tries<'_> {
    async fn run(
        &mut self,
        record: &mut RequestRecord,
        outbound: &mut Outbound,
    ) -> Result<Box<Answer>, Failure> {
        if self.speak.is_http2() {
            headers::for_http2(outbound.request(), &self.client.dialled.to_string())
        } else {
            headers::for_http1(outbound.request())
        }
        .map_err(Failure::BadRequest)?;
        if self.policy.is_some_and(|policy| {
            retry::needs_replay(policy, self.survey.grpc, self.speak.is_http2())
        }) {
            outbound.keep();
        }
        self.timeouts.start(outbound.tally());
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut retries = 0;
        loop {
            let server = self.pick(record, &tried)?;
            record.attempts += 1;
            let outcome = {
                // Pinned here, not handed over: it is large.
                let attempt = pin!(attempt::send(
                    self.client,
                    &server,
                    outbound,
                    self.speak,
                    self.survey.expects_continue,
                    self.connect_timeout,
                ));
                self.timeouts.within_try(attempt).await.unwrap_or_else(Err)
            };
            if !self.wants_retry(&outcome) {
                return self.finish(outcome, outbound);
            }
            let allowed = self.policy.map_or(0, |policy| policy.attempts);
            if retries >= allowed || !outbound.restore() {
                if retries >= allowed && allowed > 0 {
                    record.flag(ResponseFlags::URX);
                }
                return self.finish(outcome, outbound);
            }
            drop(outcome);
            retries += 1;
            tried.push(server.address);
            self.pause(retries).await?;
        }
    }

    /// The endpoint of the next try.
    fn pick(
        &self,
        record: &mut RequestRecord,
        tried: &[SocketAddr],
    ) -> Result<Rc<Server>, Failure> {
        let Some(choices) = self.choices else {
            let snapshot = self.client.worker.snapshot();
            let pod = snapshot.workload_by_address.get(&self.client.dialled.ip());
            self.judge(record, pod, self.client.dialled)?;
            record.upstream = Some(self.client.dialled);
            return Ok(self.client.pod.upstreams.server(self.client.dialled));
        };
        let index = self
            .client
            .worker
            .with_rng(|rng| balance::pick(choices, tried, rng))
            .ok_or(Failure::NoHealthyUpstream)?;
        let workload: Option<&Arc<Workload>> =
            choices.destination.endpoints[index].workload.as_ref();
        record.destination = workload.cloned();
        record.upstream = Some(choices.servers[index].address);
        self.judge(record, workload, choices.servers[index].address)?;
        Ok(choices.servers[index].clone())
    }

    fn judge(
        &self,
        record: &RequestRecord,
        server: Option<&Arc<Workload>>,
        address: SocketAddr,
    ) -> Result<(), Failure> {
        if may_connect(self.client, &record.source, server, address) {
            Ok(())
        } else {
            Err(Failure::AccessDenied)
        }
    }

    fn wants_retry(&self, outcome: &Result<Box<Answer>, Failure>) -> bool {
        let Some(policy) = self.policy else {
            return false;
        };
        match outcome {
            Ok(answer) => {
                let head = &answer.head;
                retry::on_response(&policy.on, self.survey.grpc, head.status, &head.headers)
            }
            Err(failure) => retry::on_failure(&policy.on, failure),
        }
    }

    async fn pause(&mut self, retry: u32) -> Result<(), Failure> {
        let Some(policy) = self.policy else {
            return Ok(());
        };
        let pause = self
            .client
            .worker
            .with_rng(|rng| retry::backoff(policy, retry, rng));
        self.timeouts.restart_try();
        self.timeouts.within_all(tokio::time::sleep(pause)).await
    }

    fn finish(
        &mut self,
        outcome: Result<Box<Answer>, Failure>,
        outbound: &Outbound,
    ) -> Result<Box<Answer>, Failure> {
        let mut answer = outcome?;
        if let Some(tally) = outbound.tally() {
            if !tally.ended.get() {
                answer.detach_upload();
            }
            answer.request = Some(tally.clone());
        }
        answer.deadline = self.timeouts.remaining();
        Ok(answer)
    }
}
