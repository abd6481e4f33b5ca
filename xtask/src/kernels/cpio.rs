//! An archive that the kernel unpacks at boot: cpio in its "newc" form, see
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that grows.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Cpio {
    /// Adds a file that nobody runs. A name that is there already stays as it is.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, content);
    }

    /// Adds a program.
    pub fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, target.as_bytes());
    }

    /// Adds a folder and those above it.
    pub fn folder(&mut self, name: &str) {
        let name = name.trim_start_matches('/');
        if !name.is_empty() && !self.names.contains(name) {
            self.entry(name, FOLDER, b"");
        }
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name.trim_start_matches('/'))
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name = name.trim_start_matches('/');
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.folder(parent);
        }
        if !self.names.insert(name.to_owned()) {
            return;
        }
        self.header(name, mode, content.len());
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, name: &str, mode: u32, size: usize) {
        let inode = self.names.len();
        // magic, inode, mode, user, group, links, time, size, device ×2, its own device ×2, the name's
        // length with its zero byte, no checksum.
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}\
             {0:08x}{0:08x}{0:08x}{0:08x}{2:08x}{0:08x}{name}\0",
            0,
            1,
            name.len() + 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_folders_and_is_there_once() {
        let mut cpio = Cpio::default();
        cpio.program("/a/b/c", b"12345");
        cpio.file("a/b/c", b"other");
        assert!(cpio.has("/a") && cpio.has("a/b") && cpio.has("a/b/c"));
        let bytes = cpio.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("a/b/c\0") && text.contains("12345\0\0\0"));
        assert!(!text.contains("other"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
