//! What processes take: processor time and memory, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks per second in /proc/PID/stat: 100 on every Linux that this runs on.
const TICKS: u32 = 100;

/// What some processes take, all together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_mib: f64,
    /// The most that it ever was.
    pub peak_mib: f64,
}

impl Usage {
    /// Of these processes and their descendants.
    pub fn of(roots: &[u32]) -> Result<Self> {
        let mut usage = Self::default();
        for process in with_descendants(roots)? {
            let stat = stat(process)?;
            usage.cpu += stat.cpu;
            let path = format!("/proc/{process}/status");
            let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            usage.resident_mib += mib(&status, "VmRSS:")?;
            usage.peak_mib += mib(&status, "VmHWM:")?;
        }
        Ok(usage)
    }
}

/// These processes and their descendants.
pub fn with_descendants(roots: &[u32]) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let number = entry.file_name().to_string_lossy().parse::<u32>();
        // A process may end between the listing and the reading.
        if let Ok(process) = number
            && let Ok(stat) = stat(process)
        {
            parents.push((process, stat.parent));
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while next < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[next]);
        let children: Vec<u32> = children.map(|(process, _)| *process).collect();
        found.extend(children);
        next += 1;
    }
    Ok(found)
}

struct Stat {
    parent: u32,
    cpu: Duration,
}

fn stat(process: u32) -> Result<Stat> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_stat(&text).with_context(|| format!("{path} is not as proc(5) says: {text}"))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in brackets, may hold spaces and brackets itself.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // proc(5): ppid is field 4, utime 14, stime 15; the name was field 2.
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu: Duration::from_secs(1) / TICKS * ticks,
    })
}

fn mib(status: &str, name: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {name} in a process's status"))? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_fields() {
        let line = "7 (a (b) c) S 3 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 1 1\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.parent, 3);
        assert_eq!(stat.cpu, Duration::from_secs(2));
    }

    #[test]
    fn this_process_takes_memory() {
        let usage = Usage::of(&[std::process::id()]).unwrap();
        assert!(usage.resident_mib > 0.0 && usage.peak_mib >= usage.resident_mib);
    }
}
