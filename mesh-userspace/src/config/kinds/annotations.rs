//! The `zerohop.dev/…` annotations of Pods and Namespaces.

use std::path::{Path, PathBuf};

use crate::config::{
    fields::{Cursor, Fields, Parsed, closest},
    model::{Acceleration, FailurePolicy, PodDefaults, PodPlace},
};

const PREFIX: &str = "zerohop.dev/";

/// Where `ip netns` keeps the namespaces that have a name.
const NETNS_FOLDER: &str = "/run/netns";

/// What the annotations of one object say.
#[derive(Debug, Default)]
pub struct Annotations {
    /// `netns` or `cgroup`.
    pub place: Option<PodPlace>,
    /// The ones that a Namespace may have for its pods.
    pub defaults: PodDefaults,
}

/// Reads the annotations of a document; a bad value refuses it, an unknown name is warned about.
pub fn annotations(root: &Fields<'_>) -> Parsed<Annotations> {
    const KNOWN: [&str; 5] = [
        "netns",
        "cgroup",
        "acceleration",
        "acceleration-exclude-ports",
        "failure-policy",
    ];
    let mut found = Annotations::default();
    let Some(metadata) = root.optional("metadata", Cursor::fields)? else {
        return Ok(found);
    };
    let Some(annotations) = metadata.get("annotations") else {
        return Ok(found);
    };
    for (name, value) in annotations.entries()? {
        let Some(name) = name.strip_prefix(PREFIX) else {
            continue;
        };
        match name {
            "netns" | "cgroup" => {
                if found.place.is_some() {
                    return Err(value.reject(
                        "a Pod has either zerohop.dev/netns or zerohop.dev/cgroup, not both",
                    ));
                }
                found.place = Some(place(name, &value)?);
            }
            "acceleration" => {
                found.defaults.acceleration = Some(value.one_of(&[
                    ("auto", Acceleration::Auto),
                    ("on", Acceleration::On),
                    ("off", Acceleration::Off),
                ])?);
            }
            "acceleration-exclude-ports" => {
                found.defaults.acceleration_exclude_ports = Some(ports(&value)?);
            }
            "failure-policy" => {
                found.defaults.failure_policy = Some(value.one_of(&[
                    ("open", FailurePolicy::Open),
                    ("closed", FailurePolicy::Closed),
                ])?);
            }
            unknown => {
                let hint = closest(unknown, &KNOWN).map_or_else(String::new, |known| {
                    format!("; did you mean `{PREFIX}{known}`?")
                });
                value.context().warn(format!(
                    "unknown annotation `{PREFIX}{unknown}` (line {}): ignored{hint}",
                    value.line()
                ));
            }
        }
    }
    Ok(found)
}

fn place(name: &str, value: &Cursor<'_>) -> Parsed<PodPlace> {
    let text = value.filled_string()?;
    if name == "cgroup" {
        return if text.starts_with('/') {
            Ok(PodPlace::Cgroup(PathBuf::from(text)))
        } else {
            Err(value.reject(format!(
                "{text:?} is no absolute path of a cgroup v2 folder"
            )))
        };
    }
    if text.starts_with('/') {
        return Ok(PodPlace::Netns(PathBuf::from(text)));
    }
    if text.contains('/') || text == "." || text == ".." {
        return Err(value.reject(format!(
            "{text:?} is neither an absolute path nor a name below {NETNS_FOLDER}"
        )));
    }
    Ok(PodPlace::Netns(Path::new(NETNS_FOLDER).join(text)))
}

fn ports(value: &Cursor<'_>) -> Parsed<Vec<u16>> {
    let text = value.string()?;
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    items
        .map(|item| match item.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(value.reject(format!(
                "{item:?} is no port: write ports from 1 to 65535 with commas, \"80,443\""
            ))),
        })
        .collect()
}
