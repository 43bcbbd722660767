//! Bell: how those who wait at a gate learn that they have to look again.

#[cfg(not(all(test, feature = "loom")))]
pub(super) use waiting::Bell;

#[cfg(all(test, feature = "loom"))]
pub(super) use blocking::Bell;

#[cfg(not(all(test, feature = "loom")))]
mod waiting {
    use std::pin::pin;
    use tokio::sync::Notify;

    #[derive(Debug)]
    pub(crate) struct Bell(Notify);

    impl Bell {
        pub(crate) const fn new() -> Self {
            Self(Notify::const_new())
        }

        /// Everybody who waits looks again.
        pub(crate) fn ring(&self) {
            self.0.notify_waiters();
        }

        /// Looks, and again after each ring, until the look gives something.
        pub(crate) async fn until<R>(&self, look: impl Fn() -> Option<R>) -> R {
            loop {
                let mut rung = pin!(self.0.notified());
                // Registered before the look, so that a change between look and await is not missed.
                rung.as_mut().enable();
                if let Some(found) = look() {
                    return found;
                }
                rung.await;
            }
        }
    }
}

/// The same promise for loom, which knows threads and not tasks: `until` blocks its thread.
#[cfg(test)]
#[cfg(feature = "loom")]
mod blocking {
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(crate) struct Bell {
        rings: Mutex<u64>,
        rung: Condvar,
    }

    impl Bell {
        pub(crate) fn new() -> Self {
            Self { rings: Mutex::new(0), rung: Condvar::new() }
        }

        pub(crate) fn ring(&self) {
            *self.rings.lock().unwrap() += 1;
            self.rung.notify_all();
        }

        pub(crate) async fn until<R>(&self, look: impl Fn() -> Option<R>) -> R {
            loop {
                let heard = self.rings();
                if let Some(found) = look() {
                    return found;
                }
                self.wait_for_more_than(heard);
            }
        }

        pub(crate) fn rings(&self) -> u64 {
            *self.rings.lock().unwrap()
        }

        pub(crate) fn wait_for_more_than(&self, heard: u64) {
            let mut rings = self.rings.lock().unwrap();
            while *rings == heard {
                rings = self.rung.wait(rings).unwrap();
            }
        }
    }
}
