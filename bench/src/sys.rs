//! The system calls that the standard library lacks: affinity, processor time, epoll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How many events one wait takes at most.
const EVENTS: i32 = 128;

/// Pins a thread, or (0) the calling one and what it starts, to a core.
pub fn pin(thread: i32, core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the core is within the set, as checked.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set lives through the call and its size is its own.
    check(unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) }).map(drop)
}

/// As many open descriptors as this process may ask for.
pub fn raise_descriptors() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: likewise.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// How many cores this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Processor time that this process has taken, user and system, in seconds.
pub fn processor_seconds() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure; RUSAGE_SELF and a valid address cannot fail, and
    // all-zero is a value too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    (duration(usage.ru_utime) + duration(usage.ru_stime)).as_secs_f64()
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// A set of descriptors to wait for; readable ones are reported by the number they were added with.
pub struct Poller {
    epoll: OwnedFd,
    events: [libc::epoll_event; EVENTS as usize],
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self {
            epoll,
            events: [libc::epoll_event { events: 0, u64: 0 }; EVENTS as usize],
        })
    }

    /// Adds a descriptor under a number of the caller's.
    pub fn add(&self, descriptor: &impl AsRawFd, number: usize) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number as u64,
        };
        let descriptor = descriptor.as_raw_fd();
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the event lives through the call.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) })
            .map(drop)
    }

    /// Waits, at most `timeout`; the numbers of what can be read.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the array has room for as many events as is said.
        let ready = check(unsafe {
            libc::epoll_wait(epoll, self.events.as_mut_ptr(), EVENTS, milliseconds)
        })?;
        Ok(self
            .events
            .into_iter()
            .take(ready.unsigned_abs() as usize)
            .map(|event| event.u64 as usize))
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
