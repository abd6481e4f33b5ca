//! Waiting for something to become true, with a deadline instead of a guess.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The variable by which deadlines are longer: 10 on an emulated processor, say.
pub const DEADLINE_FACTOR: &str = "ZEROHOP_DEADLINE_FACTOR";

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A deadline as long as this machine needs: every wait of the lab goes through it.
pub fn patient(deadline: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        let factor = std::env::var(DEADLINE_FACTOR).ok();
        factor.and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    deadline * *factor
}

/// Calls `probe` until it gives a value; `None` once `deadline` has passed.
///
/// The probe is called at least once, and once more after the deadline, so that a slow machine's
/// pause never turns a truth into a failure.
pub fn eventually_some<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patient(deadline);
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
