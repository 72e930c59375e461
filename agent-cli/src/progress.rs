//! [`Progress`]: a bar on standard error that appears only when the work takes longer than two
//! seconds, and only on a terminal. [`on_rebuild`] has one for index files that are made again, and says a line
//! where there is no terminal.

use std::io::IsTerminal;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::index::Rebuild;

const QUIET_FOR: Duration = Duration::from_secs(2);
const DRAWS_PER_SECOND: u8 = 10;

/// All bars of the process: index files may be made again while a bar of the command's own is there.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)));

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
            BARS.add(self.bar.clone());
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.shown {
            BARS.remove(&self.bar);
        }
    }
}

/// Shows a person how far index files are that are made again: a bar on a terminal, else one line; either only
/// once it has taken two seconds.
pub fn on_rebuild() -> impl Fn(Rebuild) + Send + Sync + 'static {
    let terminal = std::io::stderr().is_terminal();
    let shown: Mutex<Option<(Rebuilding, Progress)>> = Mutex::new(None);
    move |told| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if told.left == 0 {
            *shown = None;
            return;
        }
        let begin = || {
            (
                Rebuilding::begin(),
                Progress::bytes("index", Some(told.bytes_left)),
            )
        };
        let (course, progress) = shown.get_or_insert_with(begin);
        let (done, total) = course.reach(told);
        if terminal {
            progress.reach_of(done, total);
        } else if let Some(line) = course.line(told, SystemClock.monotonic().saturating_sub(course.began)) {
            eprintln!("milepost: {line}");
        }
    }
}

/// How far index files are that are made again. How many are missing is found out on the way.
struct Rebuilding {
    /// By the system's clock.
    began: Duration,
    said: bool,
    total: u64,
    bytes_left: u64,
}

impl Rebuilding {
    fn begin() -> Rebuilding {
        Rebuilding {
            began: SystemClock.monotonic(),
            said: false,
            total: 0,
            bytes_left: 0,
        }
    }

    /// Bytes that are done, of how many that are known of by now.
    fn reach(&mut self, told: Rebuild) -> (u64, u64) {
        self.total += told.bytes_left.saturating_sub(self.bytes_left);
        self.bytes_left = told.bytes_left;
        (self.total - self.bytes_left, self.total)
    }

    /// What a person without a terminal is told, once.
    fn line(&mut self, told: Rebuild, taken: Duration) -> Option<String> {
        if self.said || taken <= QUIET_FOR {
            return None;
        }
        self.said = true;
        Some(format!(
            "making missing index files again from the log: {} to go, {} MiB of log; nothing is lost, and it is done once",
            told.left,
            told.bytes_left.div_ceil(1 << 20)
        ))
    }
}

#[cfg(test)]
mod tests {
    use milepost_engine::{Options, Transaction};

    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_secs(3);

    #[test]
    fn a_rebuild_counts_up_to_all_that_is_missing_and_the_one_line_comes_after_two_seconds() {
        // Nine sealed segments of a real store whose index files are deleted, told to the course of a bar.
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("s");
        let store = Options::new().segment_bytes(1 << 20).background(false);
        let store = store.init(&place, "here".parse().unwrap()).unwrap();
        for _ in 0..9 {
            let mut transaction = Transaction::new();
            transaction.push_parts("s", "k", &[0; 100_000]).unwrap();
            store.commit(transaction).unwrap().committed().unwrap();
            assert!(store.rotate(0).unwrap());
        }
        let sealed = store.watermarks().durable.0;
        store.close().unwrap();
        for file in std::fs::read_dir(place.join("log")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "idx") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let seen = std::sync::Arc::new(Mutex::new((Rebuilding::begin(), Vec::new(), Vec::new())));
        let seeing = std::sync::Arc::clone(&seen);
        let tell = move |told: Rebuild| {
            let (course, reached, lines) = &mut *seeing.lock().unwrap();
            if told.left > 0 {
                reached.push(course.reach(told));
                lines.extend(course.line(told, if reached.len() < 4 { SOON } else { LATE }));
            }
        };
        let store = Options::new().on_rebuild(tell).open(&place).unwrap();
        store.stream_version("s").unwrap();
        let (_, reached, lines) = &*seen.lock().unwrap();
        assert_eq!(reached.len(), 9);
        assert!(reached.is_sorted() && reached[0].0 == 0, "{reached:?}");
        assert!(reached.iter().all(|(_, total)| *total == sealed), "{reached:?}");
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(" 6 to go"), "{lines:?}");
    }

    #[test]
    fn what_turns_out_to_be_missing_on_the_way_lengthens_the_bar_and_takes_nothing_back() {
        let told = |left, bytes_left| Rebuild {
            segment: milepost_engine::Lsn(8),
            read: 0,
            left,
            bytes_left,
        };
        let mut course = Rebuilding::begin();
        let reached =
            [(1, 100), (1, 40), (2, 120), (1, 10)].map(|(left, bytes)| course.reach(told(left, bytes)));
        assert_eq!(reached, [(0, 100), (60, 100), (60, 180), (170, 180)]);
    }
}
