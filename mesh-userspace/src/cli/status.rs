//! `meshctl status`: the agent at a glance.

use std::net::SocketAddr;

use super::{
    acceleration,
    client::Client,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone},
    units,
};
use crate::admin::StatusAnswer;

/// Prints what the agent says of itself.
pub fn run(client: &Client, out: Output) -> Result<ExitStatus, CliError> {
    let value = client.get("/status")?;
    out.write(&value, |colour| {
        let answer: StatusAnswer = serde_json::from_value(value.clone())?;
        Ok::<_, CliError>(render(&answer, colour))
    })?;
    Ok(ExitStatus::Ok)
}

fn render(answer: &StatusAnswer, colour: bool) -> String {
    let status = &answer.status;
    let mut agent = Table::new([]);
    let mut line = |name: &str, value: Cell| agent.row([name.into(), value]);
    line("node", status.node.as_str().into());
    line(
        "version",
        format!("{} (map layout {})", status.version, status.layout).into(),
    );
    line("pid", status.pid.to_string().into());
    line("uptime", units::millis(status.uptime_ms).into());
    line(
        "ready",
        match &answer.not_ready_reason {
            None if answer.ready => Cell::new("yes").tone(Tone::Good),
            None => Cell::new("no").tone(Tone::Bad),
            Some(reason) => Cell::new(format!("no: {reason}")).tone(Tone::Bad),
        },
    );
    line("snapshot", status.snapshot.to_string().into());
    line(
        "acceleration",
        acceleration::state_cell(status.acceleration.state),
    );
    line("", Cell::new(&status.acceleration.reason).tone(Tone::Faint));
    for map in &status.other_socket_maps {
        let text = format!("{map} holds sockets, which stay plain TCP");
        line("", Cell::new(text).tone(Tone::Warning));
    }
    line("dns", Cell::new(if status.dns { "on" } else { "off" }));
    let config = &status.config;
    let tone = if config.rejected > 0 {
        Tone::Bad
    } else {
        Tone::Plain
    };
    let counts = format!(
        "{} applied, {} rejected, {} ignored, {} warnings, {} unsupported fields",
        config.applied, config.rejected, config.ignored, config.warnings, config.unsupported
    );
    line("config", Cell::new(counts).tone(tone));
    if let Some(error) = &status.last_config_error {
        line("last error", Cell::new(error).tone(Tone::Bad));
    }

    let mut pods = Table::new(["POD", "NETNS", "LISTENER", "DNS"]);
    for pod in &status.pods {
        let shown = |address: Option<SocketAddr>| {
            address
                .map(|address| address.to_string())
                .unwrap_or_default()
        };
        pods.row([
            pod.name.as_str().into(),
            pod.netns.as_str().into(),
            shown(pod.listener).into(),
            shown(pod.dns).into(),
        ]);
    }
    let mut programs = Table::new(["PROGRAM", "HOOK", "ID"]);
    for program in &status.programs {
        let (name, hook) = (program.name.as_str(), program.hook.as_str());
        programs.row([name.into(), hook.into(), Cell::number(program.id)]);
    }
    format!(
        "{}\n{}\n{}",
        agent.render(colour, ""),
        pods.render(colour, "no pods enrolled"),
        programs.render(colour, "no programs attached"),
    )
}
