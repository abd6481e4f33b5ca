//! A waker for a connection that is driven by whichever task uses it.
//!
//! hyper splits a client connection in two halves that wake each other. Where one task drives both, each of
//! these wake-ups would schedule the very task that is running, and a pooled connection would wake the task
//! that used it last. This waker tells the three cases apart: while the connection is driven, a wake-up is
//! noted for the driver; while somebody waits for it, it is passed on; while it is pooled, it is
//! remembered as "stirred", which is how a connection that its server closed is noticed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Wake, Waker},
};

/// Nobody drives it: wake-ups go to the target.
const WAITING: u8 = 0;
/// Being driven.
const DRIVEN: u8 = 1;
/// Being driven, and was woken since.
const DRIVEN_AND_WOKEN: u8 = 2;
/// In the pool.
const POOLED: u8 = 3;
/// In the pool, and something happened on the socket.
const STIRRED: u8 = 4;

/// See the module.
#[derive(Debug)]
pub struct DriverWaker {
    state: AtomicU8,
    target: Mutex<Option<Waker>>,
}

impl DriverWaker {
    /// For a connection that nobody drives yet.
    pub fn new() -> Self {
        Self {
            state: AtomicU8::new(WAITING),
            target: Mutex::new(None),
        }
    }

    /// From here to [`Self::leave`] wake-ups are only noted. What was noted before stays noted.
    pub fn enter(&self) {
        if let DRIVEN_AND_WOKEN | STIRRED = self.state.swap(DRIVEN, Ordering::SeqCst) {
            self.state.store(DRIVEN_AND_WOKEN, Ordering::SeqCst);
        }
    }

    /// From here on wake-ups go to `waker`. False: it was woken meanwhile, drive it again.
    #[must_use]
    pub fn leave(&self, waker: &Waker) -> bool {
        {
            let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *target {
                Some(current) if current.will_wake(waker) => {}
                other => *other = Some(waker.clone()),
            }
        }
        let left = self
            .state
            .compare_exchange(DRIVEN, WAITING, Ordering::SeqCst, Ordering::SeqCst);
        if left.is_err() {
            self.state.store(DRIVEN, Ordering::SeqCst);
        }
        left.is_ok()
    }

    /// From here on wake-ups are remembered as stirring. False: it was woken meanwhile, drive it again.
    #[must_use]
    pub fn pool(&self) -> bool {
        let left = self
            .state
            .compare_exchange(DRIVEN, POOLED, Ordering::SeqCst, Ordering::SeqCst);
        if left.is_err() {
            self.state.store(DRIVEN, Ordering::SeqCst);
        }
        left.is_ok()
    }

    /// As [`Self::pool`], with something known to be left to do.
    pub fn pool_stirred(&self) {
        self.state.store(STIRRED, Ordering::SeqCst);
    }

    /// Whether something happened since it was pooled.
    pub fn is_stirred(&self) -> bool {
        self.state.load(Ordering::SeqCst) == STIRRED
    }

    /// Whether a wake-up was noted while it is driven; forgets it.
    pub fn take_woken(&self) -> bool {
        self.state
            .compare_exchange(DRIVEN_AND_WOKEN, DRIVEN, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Wake for DriverWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted =
            self.state
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| match state {
                    DRIVEN => Some(DRIVEN_AND_WOKEN),
                    POOLED => Some(STIRRED),
                    _ => None,
                });
        if noted == Err(WAITING) {
            let target = self
                .target
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(target) = target {
                target.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_up_reaches_whoever_must_hear_of_it() {
        let count = Arc::new(Count::default());
        let target = Waker::from(count.clone());
        let driver = Arc::new(DriverWaker::new());
        let waker = Waker::from(driver.clone());

        driver.enter();
        waker.wake_by_ref();
        assert!(!driver.leave(&target), "woken while driven: drive again");
        assert!(driver.leave(&target));
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            0,
            "the driver was not scheduled by itself"
        );

        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "who waits is woken");

        driver.enter();
        assert!(!driver.take_woken());
        assert!(driver.pool());
        assert!(!driver.is_stirred());
        waker.wake_by_ref();
        assert!(driver.is_stirred());
        driver.enter();
        assert!(driver.take_woken(), "what stirred it is looked at");
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            1,
            "who used it last is left alone"
        );
    }
}
