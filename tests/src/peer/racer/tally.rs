//! What came of the connections, by variant.

use std::io::{self, ErrorKind};

use anyhow::{Error, Result};
use serde_json::{Map, Value, json};

use super::end::Carried;
use super::variant::Variant;

const ERRORS_KEPT: usize = 12;

/// Counts by variant.
#[derive(Debug)]
pub(super) struct Tally {
    rows: Vec<Row>,
    errors: Vec<String>,
    /// Connects that found their port still in use, and were tried from another.
    pub retried: u64,
}

#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    ok: u64,
    cut: u64,
    failed: u64,
    sent: u64,
    received: u64,
}

impl Tally {
    pub(super) fn new(variants: &[Variant]) -> Self {
        let row = |variant: &Variant| Row {
            name: variant.name,
            ok: 0,
            cut: 0,
            failed: 0,
            sent: 0,
            received: 0,
        };
        Self {
            rows: variants.iter().map(row).collect(),
            errors: Vec::new(),
            retried: 0,
        }
    }

    /// Adds a connection of a variant. One that is cut off on purpose may end with any error that says
    /// so, and no other.
    pub(super) fn add(&mut self, index: usize, variant: &Variant, result: Result<Option<Carried>>) {
        let row = &mut self.rows[index];
        match result {
            Ok(Some(carried)) => {
                row.ok += 1;
                row.sent += carried.sent;
                row.received += carried.received;
            }
            Ok(None) => row.cut += 1,
            Err(error) if variant.aborts() && says_cut(&error) => row.cut += 1,
            Err(error) => {
                row.failed += 1;
                if self.errors.len() < ERRORS_KEPT {
                    let text = format!("{}: {error:#}", variant.name);
                    eprintln!("{text}");
                    self.errors.push(text);
                }
            }
        }
    }

    /// Connections that have ended, however.
    pub(super) fn ended(&self) -> u64 {
        self.rows
            .iter()
            .map(|row| row.ok + row.cut + row.failed)
            .sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.failed).sum()
    }

    pub(super) fn report(&self) -> Value {
        let mut variants = Map::new();
        for row in &self.rows {
            let counts = json!({
                "ok": row.ok, "cut": row.cut, "failed": row.failed,
                "sent": row.sent, "received": row.received,
            });
            variants.insert(row.name.to_owned(), counts);
        }
        json!({"variants": variants, "errors": self.errors, "retried": self.retried})
    }
}

/// Whether an error is one that a reset by the other end, or an end before the time, gives.
fn says_cut(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            )
        })
    })
}
