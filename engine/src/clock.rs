//! Time and randomness as they are passed in: [`Clock`] and [`Rng`], and their real twins.
//!
//! No decision about data is taken by the wall clock; it labels frames for people, and paces waits.

use std::time::Duration;

/// Time, as seen by a store.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock in microseconds since 1970-01-01 UTC. May jump either way.
    fn wall_micros(&self) -> i64;
    /// Time since an arbitrary moment, never going back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, pause: Duration);
}

/// Randomness, as used for ids, nonces, jitter and keys of pairs: outside simulations every bit of it comes from the
/// operating system.
pub trait Rng: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are given"
    )]
    fn wall_micros(&self) -> i64 {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are given"
    )]
    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// Random bits from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        match getrandom::u64() {
            Ok(word) => word,
            Err(error) => {
                // Without randomness two writers could choose one nonce and two histories one chain
                // (R5); stopping is the only safe answer.
                tracing::error!(%error, "the operating system gives no random bits");
                std::process::abort()
            }
        }
    }
}
