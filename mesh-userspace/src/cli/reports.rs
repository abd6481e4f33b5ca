//! `meshctl config`: what became of each document; also the table that `analyze` prints.

use serde_json::Value;

use super::{
    client::Client,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone, clean},
};
use crate::config::model::{Report, State};

/// Prints the agent's reports, all or of one kind or object.
pub fn run(
    client: &Client,
    kind: Option<&str>,
    name: Option<&str>,
    out: Output,
) -> Result<ExitStatus, CliError> {
    let mut value = client.get("/config")?;
    if let (Some(kind), Value::Array(reports)) = (kind, &mut value) {
        reports.retain(|report| is_named(report, kind, name));
        if let (true, Some(name)) = (reports.is_empty(), name) {
            return Err(CliError::NotFound(format!(
                "the agent has read no {kind} {name}: `meshctl config {kind}` lists those there are"
            )));
        }
    }
    out.write(&value, |colour| {
        let reports: Vec<Report> = serde_json::from_value(value.clone())?;
        Ok::<_, CliError>(render(&reports, colour))
    })?;
    Ok(ExitStatus::Ok)
}

fn is_named(report: &Value, kind: &str, name: Option<&str>) -> bool {
    let field = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or_default();
    let named = match name.map(|name| (name, name.split_once('/'))) {
        None => true,
        Some((_, Some((namespace, name)))) => {
            field("namespace") == namespace && field("name") == name
        }
        Some((name, None)) => field("name") == name,
    };
    named && is_kind(field("kind"), kind)
}

/// As kubectl takes a kind: any case, plural, or its short name.
fn is_kind(kind: &str, asked: &str) -> bool {
    let asked = asked.to_ascii_lowercase();
    let long = match asked.as_str() {
        "vs" => "virtualservice",
        "dr" => "destinationrule",
        "svc" => "service",
        "po" => "pod",
        "ns" => "namespace",
        "gw" => "gateway",
        "se" => "serviceentry",
        "sa" => "serviceaccount",
        "cm" => "configmap",
        other => other,
    };
    let kind = kind.to_ascii_lowercase();
    kind == long
        || long
            .strip_suffix('s')
            .is_some_and(|singular| kind == singular)
        || long
            .strip_suffix("es")
            .is_some_and(|singular| kind == singular)
        || long
            .strip_suffix("ies")
            .is_some_and(|stem| kind == format!("{stem}y"))
}

/// A row per document; below it, why, and what is wrong with its fields.
pub fn render(reports: &[Report], colour: bool) -> String {
    let mut table = Table::new(["STATE", "KIND", "NAME", "WHERE", "REMARKS"]);
    for report in reports {
        let (state, tone) = match report.state {
            State::Applied => ("applied", Tone::Good),
            State::Rejected => ("rejected", Tone::Bad),
            State::Ignored => ("ignored", Tone::Faint),
        };
        table.row([
            Cell::new(state).tone(tone),
            report.kind.as_str().into(),
            full_name(report).into(),
            format!("{}:{}", report.file, report.line).into(),
            remarks(report).into(),
        ]);
    }
    let mut out = table.render(colour, "no documents");
    for report in reports {
        details(&mut out, report);
    }
    out
}

fn full_name(report: &Report) -> String {
    if report.namespace.is_empty() {
        report.name.clone()
    } else {
        format!("{}/{}", report.namespace, report.name)
    }
}

fn remarks(report: &Report) -> String {
    let count = |n: usize, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let parts = [
        count(report.warnings.len(), "warning", "warnings"),
        count(
            report.unsupported.len(),
            "unsupported field",
            "unsupported fields",
        ),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn details(out: &mut String, report: &Report) {
    let rejected = report.state == State::Rejected;
    let reason = report.reason.as_deref().filter(|_| rejected);
    if reason.is_none() && report.warnings.is_empty() && report.unsupported.is_empty() {
        return;
    }
    let mut line = |text: &str| {
        out.push_str(&clean(text));
        out.push('\n');
    };
    line("");
    line(&format!(
        "{}:{}: {} {}",
        report.file,
        report.line,
        report.kind,
        full_name(report)
    ));
    if let Some(reason) = reason {
        // It starts with the field.
        line(&format!("  rejected: {reason}"));
    }
    for warning in &report.warnings {
        line(&format!("  warning: {warning}"));
    }
    for field in &report.unsupported {
        line(&format!("  unsupported: {field}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_may_be_short_or_plural_in_any_case() {
        for asked in ["VirtualService", "virtualservices", "vs", "VS"] {
            assert!(is_kind("VirtualService", asked), "{asked}");
        }
        assert!(is_kind("Gateway", "gateways"));
        assert!(is_kind("ServiceEntry", "serviceentries"));
        assert!(!is_kind("Service", "VirtualService"));
        assert!(!is_kind("VirtualService", "service"));
    }

    #[test]
    fn a_rejection_says_where_and_why() {
        let report = Report {
            file: "rules.yaml".into(),
            line: 12,
            kind: "VirtualService".into(),
            namespace: "default".into(),
            name: "reviews".into(),
            state: State::Rejected,
            field: Some("spec.http[0].timeout".into()),
            reason: Some("spec.http[0].timeout: \"1x\" is no duration".into()),
            warnings: vec!["spec.foo (line 14) is not a field".into()],
            unsupported: vec![],
        };
        let text = render(&[report], false);
        assert!(
            text.contains(
                "rejected   VirtualService   default/reviews   rules.yaml:12   1 warning\n"
            )
        );
        assert!(text.contains("  rejected: spec.http[0].timeout: \"1x\" is no duration\n"));
        assert!(text.contains("  warning: spec.foo (line 14) is not a field\n"));
    }
}
