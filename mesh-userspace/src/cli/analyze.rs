//! `meshctl analyze`: validates manifests, with no agent and no privilege.

use super::{
    args::AnalyzeArgs, error::CliError, exit::ExitStatus, folder, output::Output, reports,
};
use crate::{
    config::{
        self,
        model::{Report, State},
    },
    mesh,
};

/// Prints what would become of each document; the answer is "no" where one would be rejected.
pub fn run(arguments: &AnalyzeArgs, out: Output) -> Result<ExitStatus, CliError> {
    let paths: Vec<_> = arguments
        .files
        .iter()
        .chain(&arguments.config_dir)
        .cloned()
        .collect();
    for path in &paths {
        path.metadata().map_err(|source| CliError::Folder {
            path: path.clone(),
            source,
        })?;
    }
    let outcome = config::load_paths(&paths);
    let mut reports = outcome.reports;
    mesh::analyze::annotate(&mut reports, &outcome.objects, folder::DOMAIN);
    let value = serde_json::to_value(&reports)?;
    out.write(&value, |colour| {
        Ok::<_, CliError>(reports::render(&reports, colour))
    })?;
    let rejected: Vec<&Report> = reports
        .iter()
        .filter(|report| report.state == State::Rejected)
        .collect();
    if !out.is_table() {
        // Whoever pipes JSON into a program still wants to read what is wrong.
        for report in &rejected {
            eprintln!("meshctl: {}", report.rejection());
        }
    }
    Ok(if rejected.is_empty() {
        ExitStatus::Ok
    } else {
        ExitStatus::No
    })
}
