//! [`Progress`]: a bar on standard error that appears only when the work takes longer than two
//! seconds, and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const QUIET_FOR: Duration = Duration::from_secs(2);
const DRAWS_PER_SECOND: u8 = 10;

/// Work that counts up to a total.
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Work measured in bytes; a total of `None` is unknown.
    pub fn bytes(what: &'static str, total: Option<u64>) -> Progress {
        let shape = match total {
            Some(_) => "{prefix:>10} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}",
            None => "{prefix:>10} {spinner} {bytes} {binary_bytes_per_sec} {msg}",
        };
        let bar = ProgressBar::hidden();
        if let Some(total) = total {
            bar.set_length(total);
        }
        // The templates are constants; a mistake in one costs its looks, never the work.
        if let Ok(style) = ProgressStyle::with_template(shape) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Progress { bar, shown: false }
    }

    /// Says how far the work is, and how much there is of it.
    pub fn reach_of(&mut self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.reach(done);
    }

    /// Says how far the work is.
    pub fn reach(&mut self, done: u64) {
        if !self.shown && self.bar.elapsed() > QUIET_FOR {
            self.shown = true;
            self.bar
                .set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
