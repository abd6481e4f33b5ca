//! `meshctl maps`: what is pinned, typed, with or without an agent.

use serde_json::{Map, Value, json};

use super::{
    args::{Global, MapsCommand},
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table},
};
use crate::kernel::maps;

/// Lists, dumps or looks up.
pub fn run(global: &Global, command: &MapsCommand, out: Output) -> Result<ExitStatus, CliError> {
    let maps = maps::open(&global.bpffs, global.node_name.as_deref())?;
    match command {
        MapsCommand::List => list(&maps, out)?,
        MapsCommand::Dump { name } => dump(&maps.dump(name)?, out)?,
        MapsCommand::Get { name, key } => {
            let value = maps.get(name, key)?.ok_or_else(|| {
                CliError::NotFound(format!(
                    "{name} has no entry {key}: `meshctl maps dump {name}` shows those there are"
                ))
            })?;
            out.write(&value, |_| {
                Ok::<_, CliError>(format!("{}\n", brief(&value)))
            })?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn list(maps: &maps::PinnedMaps, out: Output) -> Result<(), CliError> {
    let maps = maps.list()?;
    let value = maps
        .iter()
        .map(|map| {
            json!({
                "name": map.name,
                "kind": map.kind,
                "keySize": map.key_size,
                "valueSize": map.value_size,
                "maxEntries": map.max_entries,
                "entries": map.entries,
                "memory": map.memory,
                "path": map.path.display().to_string(),
            })
        })
        .collect();
    out.write(&value, |colour| {
        let mut table = Table::new([
            "NAME", "KIND", "KEY", "VALUE", "ENTRIES", "CAPACITY", "MEMORY", "PATH",
        ]);
        for map in &maps {
            table.row([
                Cell::new(map.name.clone()),
                Cell::new(map.kind.clone()),
                Cell::number(map.key_size),
                Cell::number(map.value_size),
                Cell::number(map.entries),
                Cell::number(map.max_entries),
                Cell::new(format!("{} KiB", map.memory.div_ceil(1024))),
                Cell::new(map.path.display().to_string()),
            ]);
        }
        Ok(table.render(colour, "no maps"))
    })
}

fn dump(entries: &[(Value, Value)], out: Output) -> Result<(), CliError> {
    let value = entries
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    out.write(&value, |colour| {
        let mut table = Table::new(["KEY", "VALUE"]);
        for (key, value) in entries {
            table.row([Cell::new(brief(key)), Cell::new(brief(value))]);
        }
        Ok(table.render(colour, "empty"))
    })
}

/// A key or value on one line: `source=1 port=9080`; nested values as JSON.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields_brief(fields),
        other => other.to_string(),
    }
}

fn fields_brief(fields: &Map<String, Value>) -> String {
    let pairs = fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_on_a_line() {
        assert_eq!(
            brief(&json!({"address": "10.0.0.1", "port": 80, "x": [1]})),
            "address=10.0.0.1 port=80 x=[1]"
        );
        assert_eq!(brief(&json!("10.0.0.1:80")), "10.0.0.1:80");
        assert_eq!(brief(&json!(7)), "7");
    }
}
