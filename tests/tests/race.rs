//! The soak of connections that race, for a moment: `cargo xtask soak race` runs it for long.

use anyhow::Result;
use lab::soak::race::{self, Plan};

fn plan(connections: u64, acceleration: &str) -> Plan {
    Plan {
        connections,
        seconds: 120,
        concurrency: 64,
        disturb: 1,
        only: Vec::new(),
        acceleration: acceleration.to_owned(),
    }
}

fn run(plan: &Plan) -> Result<()> {
    let report = race::run(plan)?;
    println!("{report}");
    report.verdict()
}

#[test]
fn no_byte_is_lost_or_out_of_order_however_connections_meet_and_part() -> Result<()> {
    run(&plan(4000, "auto"))
}

#[test]
fn nor_where_servers_that_speak_first_are_redirected() -> Result<()> {
    run(&plan(4000, "on"))
}
