//! What was seen of a socket before its first byte that redirection could not honour: bits of
//! `Connection::hazards` and of the listeners map's values. Below bit 8 the two differ, see there.

/// `SO_RCVLOWAT` above 1: a reader from a socket map is woken by any byte.
pub const RCVLOWAT: u32 = 1 << 8;
/// `TCP_INQ`: does not count redirected bytes.
pub const INQ: u32 = 1 << 9;
/// `SO_TIMESTAMP` and its like: redirected bytes carry no time.
pub const TIMESTAMPS: u32 = 1 << 10;
/// `SO_PEEK_OFF`: peeking starts from the first byte all the same.
pub const PEEK_OFF: u32 = 1 << 11;
/// `SO_ZEROCOPY`: no completion is ever told.
pub const ZEROCOPY: u32 = 1 << 12;
/// A socket filter: redirected bytes pass none.
pub const FILTER: u32 = 1 << 13;
/// `SO_MAX_PACING_RATE`: nothing paces redirected bytes.
pub const PACING: u32 = 1 << 14;
/// `TCP_ULP`: the kernel's TLS, whose records redirection would not make.
pub const ULP: u32 = 1 << 15;
/// All of them: options that the application set itself, and means.
pub const OPTIONS: u32 = 0xff00;
/// The executable is on the list of those that do what no program sees coming: splice(2), out-of-band
/// data. An annotation may say that this one does not.
pub const EXECUTABLE: u32 = 1 << 16;
/// A client's socket had a connection before this one.
pub const CONNECTED_BEFORE: u32 = 1 << 17;
/// Options that concern what is sent only.
pub const SENDING: u32 = ZEROCOPY | PACING;

/// What people know each by.
pub const NAMES: [(u32, &str); 9] = [
    (RCVLOWAT, "SO_RCVLOWAT"),
    (INQ, "TCP_INQ"),
    (TIMESTAMPS, "SO_TIMESTAMP"),
    (PEEK_OFF, "SO_PEEK_OFF"),
    (ZEROCOPY, "SO_ZEROCOPY"),
    (FILTER, "SO_ATTACH_FILTER"),
    (PACING, "SO_MAX_PACING_RATE"),
    (ULP, "TCP_ULP"),
    (EXECUTABLE, "executable"),
];
