//! What the kernel has taken: memory of its own, from /proc/meminfo.

use std::fs;

use anyhow::{Context, Result};

/// Bytes that the kernel has taken for what it cannot give back at will: sockets, what hangs on them,
/// entries of maps. Descriptors' inodes count elsewhere; they are the same in every arm.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Slabs that are not caches, memory per processor, and whole pages.
    pub bytes: f64,
}

impl Taken {
    /// Now.
    pub fn now() -> Result<Self> {
        let path = "/proc/meminfo";
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let mut bytes = 0.0;
        for name in ["SUnreclaim:", "Percpu:", "VmallocUsed:"] {
            bytes += kib(&text, name).with_context(|| format!("no {name} in {path}"))? * 1024.0;
        }
        Ok(Self { bytes })
    }

    /// What was taken since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
        }
    }
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_taken_something() {
        assert!(Taken::now().unwrap().bytes > 1e6);
        assert_eq!(
            kib("Slab: 7 kB\nSUnreclaim:  12 kB\n", "SUnreclaim:"),
            Some(12.0)
        );
    }
}
