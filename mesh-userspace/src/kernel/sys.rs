//! The bpf(2) commands and socket options that aya and std have no call for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use aya_obj::generated::bpf_attach_type;

const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;

/// bpf(2) with attributes of the kernel's layout.
///
/// # Safety
/// `attributes` is what `command` reads; every pointer in it is valid for the call.
unsafe fn bpf<T>(command: i64, attributes: &T) -> io::Result<i64> {
    let (at, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: as the caller says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Attaches an iterator program to one map.
pub(super) fn iterate_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        reserved: u32,
    }
    // union bpf_iter_link_info, 16 bytes: its first word is the map.
    let info: [u32; 4] = [map.as_raw_fd().cast_unsigned(), 0, 0, 0];
    let attributes = Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
        flags: 0,
        info: info.as_ptr() as u64,
        info_len: size_of_val(&info) as u32,
        reserved: 0,
    };
    // SAFETY: the layout of `link_create` in union bpf_attr; `info` outlives the call.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &attributes) }?;
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a program to a cgroup. A link is always in multi mode: other tools' programs stay.
pub(super) fn attach_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: attach_type as u32,
        flags: 0,
    };
    // SAFETY: the layout of `link_create` in union bpf_attr.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &attributes) }?;
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts another program behind a link, atomically.
pub(super) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let attributes = Attributes {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the layout of `link_update` in union bpf_attr.
    unsafe { bpf(BPF_LINK_UPDATE, &attributes) }?;
    Ok(())
}

/// Whether a descriptor is of a link, by what /proc says of it.
pub(super) fn is_link(fd: BorrowedFd<'_>) -> bool {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .is_ok_and(|info| info.lines().any(|line| line.starts_with("link_type:")))
}

/// The cgroup that a link is attached to, by its inode, 0 where the cgroup is gone, and its hook; None for
/// other kinds.
pub(super) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<Option<(u64, u32)>> {
    const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    /// The start of struct bpf_link_info.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        reserved: u32,
        cgroup: u64,
        attach_type: u32,
        rest: [u32; 11],
    }
    #[repr(C)]
    struct Attributes {
        link: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let attributes = Attributes {
        link: link.as_raw_fd().cast_unsigned(),
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the layout of `info` in union bpf_attr; `info` outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes) }?;
    Ok((info.kind == BPF_LINK_TYPE_CGROUP).then_some((info.cgroup, info.attach_type)))
}

/// Numbers of the programs that are attached to a cgroup or a socket map by one hook, and the flags that the
/// first was attached with.
pub(super) fn attached_programs(
    target: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<(Vec<u32>, u32)> {
    const BPF_PROG_QUERY: i64 = 16;
    #[repr(C)]
    struct Attributes {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
        /// What came later (`prog_attach_flags` and on), for which zeros are a value.
        rest: [u64; 4],
    }
    let mut ids = vec![0u32; 64];
    let attributes = Attributes {
        target: target.as_raw_fd().cast_unsigned(),
        attach_type: attach_type as u32,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        reserved: 0,
        rest: [0; 4],
    };
    let attributes = std::cell::UnsafeCell::new(attributes);
    // SAFETY: the layout of `query` in union bpf_attr; `ids` outlives the call, and the kernel may write to
    // both.
    let attributes = unsafe {
        bpf(BPF_PROG_QUERY, &attributes)?;
        attributes.into_inner()
    };
    ids.truncate(attributes.count as usize);
    Ok((ids, attributes.attach_flags))
}

/// Removes every entry of a hash map, whatever its keys are.
pub(super) fn clear_map(map: &OwnedFd) -> io::Result<()> {
    const BPF_MAP_DELETE_ELEM: i64 = 3;
    const BPF_MAP_GET_NEXT_KEY: i64 = 4;
    /// No map of any version has larger keys.
    const LARGEST_KEY: usize = 512;
    #[repr(C)]
    struct Attributes {
        map: u32,
        reserved: u32,
        key: u64,
        next: u64,
        flags: u64,
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let size = info
        .lines()
        .find_map(|line| line.strip_prefix("key_size:")?.trim().parse().ok());
    if size.is_none_or(|size: usize| size > LARGEST_KEY) {
        return Err(io::Error::other("not a map that can be emptied"));
    }
    let mut key = [0u8; LARGEST_KEY];
    loop {
        let attributes = |key: u64, next: u64| Attributes {
            map: map.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key,
            next,
            flags: 0,
        };
        let at = key.as_mut_ptr() as u64;
        // SAFETY: the layout of union bpf_attr for maps; the key is as large as any. No key asks for the first.
        let first = unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &attributes(0, at)) };
        match first {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            other => other?,
        };
        // SAFETY: as above.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes(at, 0)) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
}

/// Gives a map, program or link a name in bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        object: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        path: path.as_ptr() as u64,
        object: object.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the layout of `pathname` and `bpf_fd` in union bpf_attr; `path` outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &attributes) }?;
    Ok(())
}

/// Opens what a name in bpffs stands for.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        object: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        path: path.as_ptr() as u64,
        object: 0,
        flags: 0,
    };
    // SAFETY: the layout of `pathname` in union bpf_attr; `path` outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &attributes) }?;
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Mounts bpffs.
pub(super) fn mount_bpffs(dir: &Path) -> io::Result<()> {
    let target = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: three valid strings, no data.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether a folder lies on bpffs.
pub(super) fn is_bpffs(dir: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    Ok(filesystem(dir)? == BPF_FS_MAGIC)
}

/// Whether a folder lies on cgroup v2.
pub(super) fn is_cgroup2(dir: &Path) -> io::Result<bool> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    Ok(filesystem(dir)? == CGROUP2_SUPER_MAGIC)
}

fn filesystem(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: statfs fills it; all zeros is valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a valid string and a structure of ours.
    let result = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(stat.f_type.cast_unsigned())
    }
}

/// Gives free memory back to the kernel: reading the kernel's types takes 40 MB for a moment, and glibc
/// would keep it for as long as the agent runs.
pub(super) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; changes nothing that anybody points to.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// `CLOCK_MONOTONIC` in nanoseconds, as `bpf_ktime_get_ns` counts.
pub(super) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a structure of ours; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// A 64-bit socket option of level SOL_SOCKET (`SO_COOKIE`, `SO_NETNS_COOKIE`).
pub(super) fn socket_u64(socket: BorrowedFd<'_>, option: i32) -> io::Result<u64> {
    socket_option(socket, option, 0)
}

/// Bytes that a socket holds for its reader, with their overhead (`SO_MEMINFO`, Linux 4.12).
pub(super) fn receive_memory(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const SO_MEMINFO: i32 = 55;
    // SK_MEMINFO_RMEM_ALLOC is the first of nine.
    socket_option(socket, SO_MEMINFO, [0u32; 9]).map(|values| values[0])
}

/// An option of level SOL_SOCKET whose value is made of plain integers, `value` where the kernel writes less.
fn socket_option<T: Copy>(socket: BorrowedFd<'_>, option: i32, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: a value of ours and its length; integers have no invalid values.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// `SO_COOKIE`.
pub(super) const SO_COOKIE: i32 = 57;
/// `SO_NETNS_COOKIE`, Linux 5.14.
pub(super) const SO_NETNS_COOKIE: i32 = 71;

/// Moves the calling thread into a network namespace.
pub(super) fn enter_netns(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A netlink socket that lists and closes sockets of the calling thread's namespace.
pub(super) fn netlink_sock_diag() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just gave.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes that can be read from a socket without blocking (`SIOCINQ`).
pub(super) fn readable_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(bytes.max(0).cast_unsigned() as usize)
    }
}

/// Waits until one of these can be read, for as long as `limit`. A signal ends it early.
pub(super) fn wait_readable(descriptors: &[BorrowedFd<'_>], limit: Duration) -> io::Result<()> {
    let mut polled: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|descriptor| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    let count = polled.len() as libc::nfds_t;
    // SAFETY: an array of ours and its length.
    let outcome = unsafe { libc::poll(polled.as_mut_ptr(), count, limit) };
    match io::Error::last_os_error() {
        error if outcome < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}
