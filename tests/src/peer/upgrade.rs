//! `lab-peer upgrade`: HTTP/1.1 `Upgrade: echo`, then stamped bytes both ways.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to ask for
    url: Uri,
    /// How many bytes go there and back
    #[arg(long, default_value_t = 1_000_000)]
    bytes: u64,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let authority = arguments.url.authority().context("the URL has no host")?;
    let stream = TcpStream::connect(authority.as_str())
        .await
        .context("connect")?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver.with_upgrades());
    let request = Request::get(arguments.url.path())
        .header("host", authority.as_str())
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Empty::<Bytes>::new())?;
    let response = sender
        .send_request(request)
        .await
        .context("ask for the upgrade")?;
    let status = response.status();
    ensure!(
        status == StatusCode::SWITCHING_PROTOCOLS,
        "no upgrade: {status}"
    );
    let upgraded = hyper::upgrade::on(response).await.context("upgrade")?;
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let length = arguments.bytes;
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        let mut chunk = vec![0; 10_000];
        while sent < length {
            let size = (length - sent).min(chunk.len() as u64) as usize;
            stamp::fill(stamp::HTTP_STREAM, sent, &mut chunk[..size]);
            writer.write_all(&chunk[..size]).await?;
            sent += size as u64;
        }
        writer.shutdown().await?;
        Ok::<_, std::io::Error>(sent)
    });
    let mut received = Vec::new();
    reader
        .read_to_end(&mut received)
        .await
        .context("read what comes back")?;
    let sent = sending.await?.context("send")?;
    let matching = stamp::matches_until(stamp::HTTP_STREAM, &received);
    println!(
        "{}",
        json!({
            "status": status.as_u16(), "sent": sent, "received": received.len(),
            "stampedTo": matching,
        })
    );
    Ok(())
}
