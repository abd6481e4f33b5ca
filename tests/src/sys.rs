//! The system calls that std has no safe name for: namespaces, mounts, signals, pidfds.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// What a child joins between fork and exec.
#[derive(Debug)]
pub struct Jail {
    /// The pod's `cgroup.procs`, open for writing.
    pub cgroup_procs: File,
    /// The pod's network namespace.
    pub netns: File,
    /// The files that the child sees in place of others: (what, where).
    pub files: Vec<(CString, CString)>,
}

/// The end of the pipe that the signal handler writes to.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Makes `command`'s child die with this process (with the thread that spawns it, to be exact).
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure makes async-signal-safe system calls only and allocates nothing.
    unsafe {
        command.pre_exec(move || die_with(parent));
    }
}

/// Makes `command`'s child join `jail` before it executes, and die with this process.
pub fn join_jail(command: &mut Command, jail: Jail) {
    let parent = std::process::id();
    // SAFETY: the closure makes async-signal-safe system calls only and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            jail.enter()
        });
    }
}

fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: both calls take plain integers.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

impl Jail {
    /// Moves the calling (single-threaded) process into the jail.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptors are open as long as self is, the strings end in NUL.
        unsafe {
            let written = libc::write(self.cgroup_procs.as_raw_fd(), c"0".as_ptr().cast(), 1);
            check(written as libc::c_int)?;
            check(libc::setns(self.netns.as_raw_fd(), libc::CLONE_NEWNET))?;
            check(libc::unshare(libc::CLONE_NEWNS))?;
            // Slave: what is mounted here stays here, what the host mounts later (bpffs) shows.
            check(libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_SLAVE,
                std::ptr::null(),
            ))?;
            for (what, place) in &self.files {
                check(libc::mount(
                    what.as_ptr(),
                    place.as_ptr(),
                    std::ptr::null(),
                    libc::MS_BIND,
                    std::ptr::null(),
                ))?;
            }
        }
        Ok(())
    }
}

/// Moves the calling thread into the network namespace `netns`.
pub fn enter_netns(netns: &File) -> io::Result<()> {
    // SAFETY: a plain call on an open descriptor; it changes this thread only.
    unsafe { check(libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET)) }.map(drop)
}

/// Mounts the BPF file system on `dir`.
pub fn mount_bpffs(dir: &Path) -> io::Result<()> {
    let dir = c_path(dir)?;
    // SAFETY: the strings end in NUL and outlive the call.
    unsafe {
        check(libc::mount(
            c"bpf".as_ptr(),
            dir.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        ))
    }
    .map(drop)
}

/// Whether `dir` lies on a BPF file system.
pub fn is_bpffs(dir: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let dir = c_path(dir)?;
    // SAFETY: statfs is plain data for which all zeroes is a value; the call fills it in.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid during the call.
    unsafe { check(libc::statfs(dir.as_ptr(), &raw mut stat)) }?;
    Ok(stat.f_type as i64 == BPF_FS_MAGIC)
}

/// Lazily unmounts `path`: a namespace's name below /run/netns.
pub fn detach_mount(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the string ends in NUL and outlives the call.
    unsafe { check(libc::umount2(path.as_ptr(), libc::MNT_DETACH)) }.map(drop)
}

/// Sends `signal` to the one process `pid`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers; a pid of 0 or below, which means groups, can't come out of u32 >> 1.
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    if pid <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: plain integers.
    unsafe { check(libc::kill(pid, signal)) }.map(drop)
}

/// A descriptor that becomes readable when the process `pid` has ended.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the descriptor that is returned belongs to nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        check(fd as libc::c_int)?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Waits until `fd` is readable; false where `timeout` passed first.
pub fn wait_readable(fd: &impl AsRawFd, timeout: Duration) -> io::Result<bool> {
    wait_for(fd, libc::POLLIN, timeout)
}

/// Waits until `fd` has one of the poll(2) `events`; false where `timeout` passed first.
pub fn wait_for(fd: &impl AsRawFd, events: i16, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // Rounded up: to wait for less than a millisecond is not to spin.
    let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd.
    match check(unsafe { libc::poll(&raw mut poll, 1, millis) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets `TCP_DEFER_ACCEPT`: a connection is there once data has come.
pub fn defer_accept(listener: &impl AsRawFd) -> io::Result<()> {
    set_tcp_option(listener, libc::TCP_DEFER_ACCEPT, 10)
}

/// Sets `TCP_FASTOPEN`: so many connections that carry data with their SYN may wait.
pub fn fastopen_queue(listener: &impl AsRawFd, length: i32) -> io::Result<()> {
    set_tcp_option(listener, libc::TCP_FASTOPEN, length)
}

/// Sets `TCP_FASTOPEN_CONNECT`: connect() does nothing, the first send connects.
pub fn fastopen_connect(socket: &impl AsRawFd) -> io::Result<()> {
    set_tcp_option(socket, libc::TCP_FASTOPEN_CONNECT, 1)
}

fn set_tcp_option(
    socket: &impl AsRawFd,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option's value is an int, which outlives the call.
    unsafe {
        check(libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        ))
    }
    .map(drop)
}

/// Takes an exclusive lock on `file`, waiting for it; closing the file gives it up.
pub fn lock(file: &File) -> io::Result<()> {
    // SAFETY: a plain call on an open descriptor.
    unsafe { check(libc::flock(file.as_raw_fd(), libc::LOCK_EX)) }.map(drop)
}

/// The effective user of this process.
pub fn effective_user() -> u32 {
    // SAFETY: cannot fail, takes nothing.
    unsafe { libc::geteuid() }
}

/// From now on SIGINT and SIGTERM are bytes (the signal's number) in the pipe that is returned.
pub fn signals_to_pipe() -> io::Result<File> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which then belong to nobody else; the
    // handler makes one async-signal-safe call.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        SIGNAL_PIPE.store(ends[1], Ordering::SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            check(libc::sigaction(
                signal,
                &raw const action,
                std::ptr::null_mut(),
            ))?;
        }
        Ok(File::from_raw_fd(ends[0]))
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = signal.to_le_bytes()[0];
    // SAFETY: write is async-signal-safe and the pipe stays open for ever.
    unsafe {
        libc::write(
            SIGNAL_PIPE.load(Ordering::SeqCst),
            (&raw const byte).cast(),
            1,
        );
    }
}
