//! Where the running kernel keeps the fields that the programs read, from its own type information.
//!
//! Rust's compiler emits no CO-RE relocations, so the offsets are looked up here and handed to the
//! programs as constants. Format: <https://docs.kernel.org/bpf/btf.html>.

use std::{fs, io, path::Path};

use mesh_common::settings::Offsets;

/// What can be wrong with the kernel's type information.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// It cannot be read.
    #[error("reading {path}: {source}: the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not what its format says.
    #[error("{0}: not BTF that this version understands")]
    Malformed(&'static str),
    /// A field is not there.
    #[error("this kernel's BTF has no {structure}.{field}")]
    Missing {
        /// The structure.
        structure: &'static str,
        /// The field, dots for nested ones.
        field: &'static str,
    },
}

/// The offsets of the running kernel, from /sys/kernel/btf/vmlinux.
pub fn offsets() -> Result<Offsets, BtfError> {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    let bytes = fs::read(path).map_err(|source| BtfError::Read {
        path: path.display().to_string(),
        source,
    })?;
    let types = Types::parse(&bytes)?;
    let at = |structure, field| types.offset(structure, field);
    Ok(Offsets {
        write_seq: at("tcp_sock", "write_seq")?,
        bytes_sent: at("tcp_sock", "bytes_sent")?,
        bytes_retrans: at("tcp_sock", "bytes_retrans")?,
        bytes_received: at("tcp_sock", "bytes_received")?,
        srtt_us: at("tcp_sock", "srtt_us")?,
        rtt_min: at("tcp_sock", "rtt_min")? + at("minmax_sample", "v")?,
        total_retrans: at("tcp_sock", "total_retrans")?,
        sk_err: at("sock", "sk_err")?,
        sk_flags: at("sock_common", "skc_flags")?,
        skc_state: at("sock_common", "skc_state")?,
        sk_write_pending: at("sock", "sk_write_pending")?,
        sk_socket: at("sock", "sk_socket")?,
        socket_file: at("socket", "file")?,
        f_flags: at("file", "f_flags")?,
        task_signal: at("task_struct", "signal")?,
        nr_threads: at("signal_struct", "nr_threads")?,
        sk_rmem_alloc: at("sock", "sk_backlog.rmem_alloc")?,
        sk_rcvbuf: at("sock", "sk_rcvbuf")?,
        copied_seq: at("tcp_sock", "copied_seq")?,
        sk_lock_owned: at("sock", "sk_lock.owned")?,
        sk_wq: at("sock", "sk_wq")?,
        wq_waiters: at("socket_wq", "wait.head")?,
        sk_user_data: at("sock", "sk_user_data")?,
        psock_refcnt: at("sk_psock", "refcnt")?,
        psock_messages: at("sk_psock", "ingress_msg")?,
        psock_backlog: at("sk_psock", "ingress_skb.qlen")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_comm: at("task_struct", "comm")?,
        skc_net: at("sock_common", "skc_net")?,
        net_cookie: at("net", "net_cookie")?,
    })
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;

/// One member of a structure.
struct Member {
    name: u32,
    /// Number of its type.
    of: u32,
    bit_offset: u32,
}

/// Where each type is described. The descriptions themselves stay where they are: a kernel has more than
/// a hundred thousand, of which a dozen are asked for.
struct Types<'a> {
    bytes: &'a [u8],
    positions: Vec<u32>,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| word(bytes, at).ok_or(BtfError::Malformed("truncated"));
        if word(0)? & 0xffff != u32::from(MAGIC) {
            return Err(BtfError::Malformed("no BTF magic"));
        }
        let header = word(4)? as usize;
        let (type_off, type_len) = (word(8)? as usize, word(12)? as usize);
        let (str_off, str_len) = (word(16)? as usize, word(20)? as usize);
        let strings = bytes
            .get(header + str_off..header + str_off + str_len)
            .ok_or(BtfError::Malformed("string section"))?;
        let end = header + type_off + type_len;
        let mut at = header + type_off;
        // Type 0 is void, and described nowhere.
        let mut positions = vec![u32::MAX];
        while at < end {
            positions.push(u32::try_from(at).map_err(|_| BtfError::Malformed("too large"))?);
            let info = word(at + 4)?;
            let count = (info & 0xffff) as usize;
            // INT, VAR, DECL_TAG carry one word; ARRAY three; ENUM and PARAM two each; STRUCT, UNION, ENUM64
            // and DATASEC three each.
            at += 12
                + match kind(info) {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    6 | 13 => count * 8,
                    KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return Err(BtfError::Malformed("unknown kind")),
                };
        }
        word(at.saturating_sub(4))?;
        Ok(Self {
            bytes,
            positions,
            strings,
        })
    }

    /// A word of a type's description, counted from its start: name, info, size or type, then its parts.
    fn word(&self, ty: u32, index: usize) -> Option<u32> {
        let at = *self.positions.get(ty as usize)?;
        word(self.bytes, at as usize + index * 4)
    }

    fn members(&self, ty: u32) -> impl Iterator<Item = Member> + '_ {
        let info = self.word(ty, 1).unwrap_or(0);
        let structure = matches!(kind(info), KIND_STRUCT | KIND_UNION);
        let count = if structure { info as usize & 0xffff } else { 0 };
        (0..count).filter_map(move |index| {
            let offset = self.word(ty, 5 + index * 3)?;
            Some(Member {
                name: self.word(ty, 3 + index * 3)?,
                of: self.word(ty, 4 + index * 3)?,
                // Where there are bit fields, the upper byte is a field's width.
                bit_offset: if info >> 31 == 1 {
                    offset & 0x00ff_ffff
                } else {
                    offset
                },
            })
        })
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Offset of a field in bytes, anonymous members looked into; `a.b` is field b of the structure in
    /// field a.
    fn offset(&self, structure: &'static str, field: &'static str) -> Result<u32, BtfError> {
        (1..self.positions.len())
            .filter_map(|ty| u32::try_from(ty).ok())
            .filter(|&ty| {
                let named = self.word(ty, 0).map(|name| self.name(name));
                self.word(ty, 1).map(kind) == Some(KIND_STRUCT)
                    && named == Some(structure.as_bytes())
            })
            .find_map(|ty| self.path(ty, field))
            .map(|bits| bits / 8)
            .ok_or(BtfError::Missing { structure, field })
    }

    fn path(&self, ty: u32, path: &str) -> Option<u32> {
        let Some((outer, inner)) = path.split_once('.') else {
            return self
                .field(ty, path.as_bytes())
                .map(|found| found.bit_offset);
        };
        let outer = self.field(ty, outer.as_bytes())?;
        Some(outer.bit_offset + self.path(self.resolve(outer.of), inner)?)
    }

    /// The type behind a typedef.
    fn resolve(&self, mut ty: u32) -> u32 {
        while self.word(ty, 1).map(kind) == Some(KIND_TYPEDEF) {
            ty = self.word(ty, 2).unwrap_or(0);
        }
        ty
    }

    fn field(&self, ty: u32, field: &[u8]) -> Option<Member> {
        self.members(ty).find_map(|member| {
            let name = self.name(member.name);
            if name == field {
                return Some(member);
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self.field(self.resolve(member.of), field)?;
            Some(Member {
                bit_offset: inner.bit_offset + member.bit_offset,
                ..inner
            })
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        let offsets = offsets().expect("BTF of this kernel");
        assert!(offsets.write_seq > 0 && offsets.bytes_received > 0 && offsets.skc_state > 0);
        assert_ne!(offsets.bytes_sent, offsets.bytes_retrans);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(matches!(
            Types::parse(b"not BTF at all"),
            Err(BtfError::Malformed(_))
        ));
        let mut header = Vec::new();
        for word in [0x0001_eb9f_u32, 24, 0, 4096, 4096, 1] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        assert!(Types::parse(&header).is_err());
    }
}
