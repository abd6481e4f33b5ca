//! Executables whose connections stay plain TCP.

/// An executable, by the name of its process (`/proc/PID/comm`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Executable {
    /// `TASK_COMM_LEN` bytes, padded with zeros; the last is always zero.
    pub name: [u8; 16],
}

impl Executable {
    /// Cut at 15 bytes, as the kernel cuts a process's name.
    pub fn new(executable: &str) -> Self {
        let mut name = [0; 16];
        let length = executable.len().min(name.len() - 1);
        name[..length].copy_from_slice(&executable.as_bytes()[..length]);
        Self { name }
    }

    /// The name without the padding; empty where it is not UTF-8.
    pub fn as_str(&self) -> &str {
        let length = self.name.iter().position(|&byte| byte == 0);
        let length = length.unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..length]).unwrap_or_default()
    }
}

crate::assert_layout!(Executable = 16);
