//! `lab-peer bookinfo`: one of Bookinfo's servers.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::bookinfo::{Flaw, PORT, Server};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value_t = PORT)]
    port: u16,
    #[command(subcommand)]
    app: App,
}

#[derive(Debug, Subcommand)]
enum App {
    Productpage {
        #[arg(long, default_value = "details:9080")]
        details: String,
        #[arg(long, default_value = "reviews:9080")]
        reviews: String,
        #[arg(long, default_value = "ratings:9080")]
        ratings: String,
    },
    Details,
    Reviews {
        /// The name that it answers with
        #[arg(long, default_value = "reviews")]
        pod: String,
        /// The colour of the stars; without it there are none
        #[arg(long)]
        stars: Option<String>,
        #[arg(long, default_value = "ratings:9080")]
        ratings: String,
    },
    Ratings {
        /// The first so many tries of each x-request-id fail
        #[arg(long, default_value_t = 0)]
        fail_first: u32,
        /// Every so manieth request fails
        #[arg(long, default_value_t = 0)]
        fail_every: u64,
        /// Every answer is so many milliseconds late
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let server = match arguments.app {
        App::Details => Server::Details,
        App::Productpage {
            details,
            reviews,
            ratings,
        } => Server::Productpage {
            details,
            reviews,
            ratings,
        },
        App::Reviews {
            pod,
            stars,
            ratings,
        } => Server::Reviews {
            pod,
            stars: stars.map(|color| (ratings, color)),
        },
        App::Ratings {
            fail_first,
            fail_every,
            delay_ms,
        } => Server::Ratings(Flaw {
            fail_first,
            fail_every,
            delay: Duration::from_millis(delay_ms),
        }),
    };
    server.serve(arguments.port).await
}
