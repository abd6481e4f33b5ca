//! Direct connections, open and new, through the comings and goings of many agents: no reset, no wrong byte.

use anyhow::Result;
use lab::soak::life;

#[test]
fn direct_connections_outlive_every_end_of_every_agent() -> Result<()> {
    let report = life::run(&life::Plan { cycles: 12 })?;
    println!("{report}");
    report.verdict()
}
