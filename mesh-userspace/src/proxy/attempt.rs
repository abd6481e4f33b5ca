//! One try: a connection to one server, the request on it, the head of the answer.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::Request;

use super::{
    answer::Answer,
    body::{ContinueSignal, RequestBody},
    client::Client,
    failure::Failure,
    headers,
    outbound::Outbound,
    upstream::{Http1Connection, InFlight, Server},
};

/// Which version a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2 {
        /// By the port. Else it is what the client speaks, and a server that does not gets HTTP/1.1.
        declared: bool,
    },
}

impl Speak {
    /// Whether it is HTTP/2.
    pub fn is_http2(self) -> bool {
        self != Self::Http1
    }
}

/// Sends a request to a server. Where it fails and the request is still there, nothing of it was sent.
pub async fn send(
    client: &Client,
    server: &Rc<Server>,
    outbound: &mut Outbound,
    version: Speak,
    expects_continue: bool,
    connect_timeout: Duration,
) -> Result<Box<Answer>, Failure> {
    if let Speak::Http2 { declared } = version {
        if let Some(answer) =
            send_http2(client, server, outbound, declared, connect_timeout).await?
        {
            return Ok(answer);
        }
        headers::for_http1(outbound.request()).map_err(Failure::BadRequest)?;
    }
    if expects_continue && !outbound.request().body().is_empty() {
        hold_body(outbound.request());
    }
    send_http1(client, server.begin(), outbound, connect_timeout).await
}

async fn send_http1(
    client: &Client,
    in_flight: InFlight,
    outbound: &mut Outbound,
    connect_timeout: Duration,
) -> Result<Box<Answer>, Failure> {
    let address = in_flight.server().address;
    let mut idle = in_flight.server().take_idle();
    loop {
        let reused = idle.is_some();
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => connect_http1(client, address, connect_timeout).await?,
        };
        // A server may close an idle connection just when a request is on its way. What is safe to repeat
        // (RFC 9110, 9.2.2) goes to a fresh connection, whatever the retry policy says (RFC 9112, 9.3.1).
        let request = outbound.request();
        let repeatable = reused && request.body().is_empty() && request.method().is_idempotent();
        let mut error = match connection.send(outbound.take(), repeatable).await {
            Ok(answer) => return Ok(Answer::by_http1(answer, connection, in_flight)),
            Err(error) => error,
        };
        let again = error
            .take_message()
            .or_else(|| repeatable.then(|| connection.resend()).flatten());
        let unsent = again.is_some();
        if let Some(request) = again {
            outbound.put_back(request);
        }
        if !(unsent && reused) {
            return Err(Failure::from_hyper(address, error.into_error()));
        }
    }
}

async fn connect_http1(
    client: &Client,
    address: SocketAddr,
    timeout: Duration,
) -> Result<Box<Http1Connection>, Failure> {
    let connect = client.pod.upstreams.connect(address, timeout);
    let socket = connect
        .await
        .map_err(|source| Failure::Connect { address, source })?;
    Http1Connection::new(socket, client.worker.settings.preserve_header_case)
        .await
        .map_err(|source| Failure::from_hyper(address, source))
}

/// `None`: the server does not speak HTTP/2, and nothing was sent.
async fn send_http2(
    client: &Client,
    server: &Rc<Server>,
    outbound: &mut Outbound,
    declared: bool,
    connect_timeout: Duration,
) -> Result<Option<Box<Answer>>, Failure> {
    let in_flight = server.begin();
    let address = server.address;
    let mut fresh = false;
    loop {
        let connect = async || {
            fresh = true;
            let upstreams = &client.pod.upstreams;
            upstreams.connect(address, connect_timeout).await
        };
        let stream = server
            .http2_stream(declared, connect)
            .await
            .map_err(|source| Failure::Connect { address, source })?;
        let Some(mut stream) = stream else {
            return Ok(None);
        };
        let mut error = match stream.sender.try_send_request(outbound.take()).await {
            Ok(answer) => {
                let answer = Answer::by_http2(answer, stream.into_place(), in_flight);
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        let unsent = error.take_message();
        // The connection may have closed before it took the request: once more, on another one.
        let again = unsent.is_some() && !fresh;
        if let Some(request) = unsent {
            outbound.put_back(request);
        }
        if !again {
            return Err(Failure::from_hyper(address, error.into_error()));
        }
    }
}

fn hold_body(request: &mut Request<RequestBody>) {
    let signal = Arc::new(ContinueSignal::default());
    request.body_mut().hold_until(&signal);
    hyper::ext::on_informational(request, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            signal.open();
        }
    });
}
