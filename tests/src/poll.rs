//! Waiting for something to become true, with a deadline instead of a guess.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Calls `probe` until it gives a value; `None` once `deadline` has passed.
///
/// The probe is called at least once, and once more after the deadline, so that a slow machine's
/// pause never turns a truth into a failure.
pub fn eventually_some<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        let over = Instant::now() >= end;
        if let Some(value) = probe() {
            return Some(value);
        }
        if over {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Calls `probe` until it is true; false once `deadline` has passed.
pub fn eventually(deadline: Duration, mut probe: impl FnMut() -> bool) -> bool {
    eventually_some(deadline, || probe().then_some(())).is_some()
}
