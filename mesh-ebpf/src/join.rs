//! `sk_skb/stream_verdict`: what comes by TCP goes into the queue that redirected bytes go into.
//!
//! With two queues a read that empties the first would return less than it was asked for while the second
//! holds more, and whoever takes a short read for "no more" (epoll(7) allows that; nginx and tokio do)
//! would wait for ever. Minimum kernel 5.10: a verdict without a parser.

use aya_ebpf::{bindings::sk_action::SK_PASS, macros::stream_verdict, programs::SkBuffContext};

/// See the module.
#[stream_verdict]
pub fn join_queues(_: SkBuffContext) -> u32 {
    SK_PASS
}
