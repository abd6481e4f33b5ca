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
        sk_flags: at("sock_common", "skc_flags")?,
        skc_state: at("sock_common", "skc_state")?,
        sk_write_pending: at("sock", "sk_write_pending")?,
        sk_socket: at("sock", "sk_socket")?,
        socket_file: at("socket", "file")?,
        f_flags: at("file", "f_flags")?,
        task_signal: at("task_struct", "signal")?,
        nr_threads: at("signal_struct", "nr_threads")?,
        skc_net: at("sock_common", "skc_net")?,
        net_cookie: at("net", "net_cookie")?,
    })
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// One member of a structure.
struct Member {
    name: u32,
    kind: u32,
    bit_offset: u32,
}

/// One type: only structures and unions keep members.
struct Type {
    name: u32,
    kind: u32,
    members: Vec<Member>,
}

struct Types<'a> {
    types: Vec<Type>,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| -> Result<u32, BtfError> {
            let bytes = bytes
                .get(at..at + 4)
                .ok_or(BtfError::Malformed("truncated"))?;
            Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
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
        // Type 0 is void.
        let mut types = vec![Type {
            name: 0,
            kind: 0,
            members: Vec::new(),
        }];
        while at < end {
            let (name, info) = (word(at)?, word(at + 4)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let bitfields = info >> 31 == 1;
            at += 12;
            let mut members = Vec::new();
            let length = match kind {
                KIND_STRUCT | KIND_UNION => {
                    members.reserve_exact(count);
                    for index in 0..count {
                        let member = at + index * 12;
                        let offset = word(member + 8)?;
                        members.push(Member {
                            name: word(member)?,
                            kind: word(member + 4)?,
                            bit_offset: if bitfields {
                                offset & 0x00ff_ffff
                            } else {
                                offset
                            },
                        });
                    }
                    count * 12
                }
                // INT, VAR, DECL_TAG carry one word; ARRAY three; ENUM and PARAM two each; ENUM64 and
                // DATASEC three each.
                1 | 14 | 17 => 4,
                3 => 12,
                6 | 13 => count * 8,
                15 | 19 => count * 12,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(BtfError::Malformed("unknown kind")),
            };
            at += length;
            types.push(Type {
                name,
                kind,
                members,
            });
        }
        Ok(Self { types, strings })
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Offset of a field in bytes, anonymous members looked into.
    fn offset(&self, structure: &'static str, field: &'static str) -> Result<u32, BtfError> {
        self.types
            .iter()
            .filter(|ty| ty.kind == KIND_STRUCT && self.name(ty.name) == structure.as_bytes())
            .find_map(|ty| self.field(ty, field.as_bytes()))
            .map(|bits| bits / 8)
            .ok_or(BtfError::Missing { structure, field })
    }

    fn field(&self, ty: &Type, field: &[u8]) -> Option<u32> {
        ty.members.iter().find_map(|member| {
            let name = self.name(member.name);
            if name == field {
                return Some(member.bit_offset);
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self.types.get(member.kind as usize)?;
            self.field(inner, field)
                .map(|bits| bits + member.bit_offset)
        })
    }
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
