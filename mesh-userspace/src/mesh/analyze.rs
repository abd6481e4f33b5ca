//! What only shows across objects: names that lead nowhere, rules that never act.
//!
//! Nothing here changes what is in force; each finding tells what the resolved mesh does with it.

mod destination_rules;
mod policies;
mod services;
mod virtual_services;
mod world;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use self::world::World;
use crate::config::model::{Location, Meta, Object, ObjectName, Report, State};

/// Something about an object that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Kind and name of the object.
    pub object: (&'static str, ObjectName),
    /// The line to look at.
    pub location: Location,
    /// The path of the field, `spec.http[0].route[0].destination.subset`.
    pub field: String,
    /// What is the matter, what comes of it, what to do.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works as it is, but may not be what was meant.
    Note,
    /// Something does not work.
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` (line {}): {}",
            self.field, self.location.line, self.message
        )
    }
}

/// All findings, by file and line.
pub fn findings(objects: &[Arc<Object>], domain: &str) -> Vec<Finding> {
    let world = World::new(objects, domain);
    let mut findings = Vec::new();
    virtual_services::check(&world, &mut findings);
    destination_rules::check(&world, &mut findings);
    services::check(&world, &mut findings);
    policies::check(&world, &mut findings);
    findings.sort_by(|one, other| {
        (&one.location, &one.field, &one.message).cmp(&(
            &other.location,
            &other.field,
            &other.message,
        ))
    });
    findings
}

/// Adds the findings to the reports of their objects, as warnings.
pub fn annotate(reports: &mut [Report], objects: &[Arc<Object>], domain: &str) {
    for finding in findings(objects, domain) {
        let (kind, name) = &finding.object;
        let of_object = |report: &&mut Report| {
            report.kind == *kind && report.namespace == *name.namespace && report.name == *name.name
        };
        // A rejected document of the same name may stand beside the good one that is in force.
        let report = reports
            .iter_mut()
            .filter(|report| report.state == State::Applied)
            .find(of_object);
        if let Some(report) = report {
            report.warnings.push(finding.to_string());
        }
    }
}

/// Findings about one object.
struct About<'f> {
    kind: &'static str,
    meta: &'f Meta,
    findings: &'f mut Vec<Finding>,
}

impl About<'_> {
    fn warn(&mut self, location: &Location, field: impl Into<String>, message: String) {
        self.say(Severity::Warning, location, field.into(), message);
    }

    fn note(&mut self, location: &Location, field: impl Into<String>, message: String) {
        self.say(Severity::Note, location, field.into(), message);
    }

    fn say(&mut self, severity: Severity, location: &Location, field: String, message: String) {
        self.findings.push(Finding {
            object: (self.kind, self.meta.name.clone()),
            location: location.clone(),
            field,
            message,
            severity,
        });
    }
}
