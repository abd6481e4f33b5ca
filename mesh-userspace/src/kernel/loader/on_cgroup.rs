//! Programs on the cgroup: behind the links that are there, or by new ones, and never a moment without.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use aya::programs::ProgramFd;
use aya_obj::generated::bpf_attach_type;
use mesh_common::names::programs;

use super::{LoadError, PinDir, classify};
use crate::kernel::{owners, sys};

/// In the order in which they are attached: whoever watches and pairs first, whoever redirects connects
/// last, so that a half-attached node decides nothing that it cannot follow. One more comes and goes:
/// [`super::Guard`].
pub(super) const HOOKS: [(&str, bpf_attach_type); 10] = [
    (programs::SETSOCKOPT, bpf_attach_type::BPF_CGROUP_SETSOCKOPT),
    (programs::SOCK_OPS, bpf_attach_type::BPF_CGROUP_SOCK_OPS),
    (
        programs::GETPEERNAME4,
        bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    (
        programs::GETPEERNAME6,
        bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    (programs::RECVMSG4, bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
    (programs::RECVMSG6, bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG),
    (programs::SENDMSG4, bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    (programs::SENDMSG6, bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    (
        programs::CONNECT4,
        bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
    ),
    (
        programs::CONNECT6,
        bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
    ),
];

/// Programs that decide. Of another layout's, the new ones take the place: two would decide twice, and the
/// old one's policy grows old. The others look after the connections that they know, so the old ones stay
/// beside the new ones until those have ended.
pub(super) const DECIDING: [&str; 5] = [
    programs::JUDGE_SYN,
    programs::SENDMSG4,
    programs::SENDMSG6,
    programs::CONNECT4,
    programs::CONNECT6,
];

/// Where programs are attached.
pub(super) struct Place<'a> {
    pub(super) pins: &'a PinDir,
    pub(super) cgroup: &'a Path,
    pub(super) file: &'a File,
}

impl Place<'_> {
    /// Attaches a program that is loaded.
    pub(super) fn attach(
        &self,
        name: &str,
        attach_type: bpf_attach_type,
        program: &ProgramFd,
    ) -> Result<(), LoadError> {
        let pin = self.pins.link(name);
        if is_there(&pin)? && self.adopt(&pin, attach_type, program)? {
            return Ok(());
        }
        if DECIDING.contains(&name) {
            for other in self.pins.others() {
                let old = other.link(name);
                if is_there(&old)? && self.adopt(&old, attach_type, program)? {
                    return fs::rename(&old, &pin).map_err(LoadError::file("moving", &old));
                }
            }
        }
        self.attach_anew(name, attach_type, program)
    }

    fn attach_anew(
        &self,
        name: &str,
        attach_type: bpf_attach_type,
        program: &ProgramFd,
    ) -> Result<(), LoadError> {
        let what = format!("attaching {name} to the cgroup");
        let link = sys::attach_to_cgroup(program.as_fd(), self.file.as_fd(), attach_type).map_err(
            |error| {
                // Not a missing privilege, where somebody else's program takes no other beside it.
                owners::exclusive(self.cgroup, attach_type).map_or_else(
                    || classify(&what, &error),
                    |(cgroup, owner)| LoadError::Occupied {
                        what: what.clone(),
                        cgroup,
                        owner: owner.to_string(),
                    },
                )
            },
        )?;
        // What is pinned there may be another cgroup's link, still in force: it goes as this one comes.
        let (pin, fresh) = (
            self.pins.link(name),
            self.pins.link(&format!("{name}_fresh")),
        );
        remove(&fresh)?;
        sys::pin(link.as_fd(), &fresh).map_err(|error| classify(&what, &error))?;
        fs::rename(&fresh, &pin).map_err(LoadError::file("moving", &fresh))
    }

    /// Puts the new program behind the link that is pinned. False: the link is of another cgroup, or of one
    /// that is gone.
    fn adopt(
        &self,
        pin: &Path,
        attach_type: bpf_attach_type,
        program: &ProgramFd,
    ) -> Result<bool, LoadError> {
        let (link, of) = open_link(pin, attach_type)?;
        let wanted = self
            .file
            .metadata()
            .map_err(LoadError::file("reading", self.cgroup))?
            .ino();
        if of != wanted {
            return Ok(false);
        }
        // Dropping `link` closes a descriptor; the pin keeps the link.
        Ok(sys::replace_program(link.as_fd(), program.as_fd()).is_ok())
    }
}

/// Opens what must be a link of this kind; with the cgroup's inode, 0 where that is gone.
fn open_link(pin: &Path, attach_type: bpf_attach_type) -> Result<(OwnedFd, u64), LoadError> {
    let foreign = |problem: String| LoadError::ForeignPin {
        path: pin.to_owned(),
        problem,
    };
    let link = sys::open_pin(pin).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => LoadError::file("opening", pin)(error),
        _ => foreign(format!("not a link ({error})")),
    })?;
    // A map's or a program's description has other things in the same places.
    if !sys::is_link(link.as_fd()) {
        return Err(foreign("not a link".into()));
    }
    match sys::link_cgroup(link.as_fd()).map_err(|error| foreign(error.to_string()))? {
        Some((cgroup, hook)) if hook == attach_type as u32 => Ok((link, cgroup)),
        _ => Err(foreign("a link of another hook".into())),
    }
}

fn is_there(pin: &Path) -> Result<bool, LoadError> {
    match fs::symlink_metadata(pin) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LoadError::file("looking at", pin)(error)),
    }
}

/// Removes a pin, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}
