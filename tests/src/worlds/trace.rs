//! [`Trace`]: what happened in a run, a line an act; shared, so that it outlives a panic.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what another has that is not a process's everyday word.
    pub fn tell_what_is_rare(&self, other: &Trace) {
        for line in other.lines().iter().filter(|line| !line.contains("'s ")) {
            self.tell(line.clone());
        }
    }

    /// Adds a line.
    pub fn tell(&self, line: String) {
        self.lines().push(line);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
