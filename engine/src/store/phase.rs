//! Phases of the Message Agent and their locks.

/// A phase that one process at a time runs on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Applies what comes.
    Receive,
    /// Moves what is due into the queue.
    Scan,
    /// Hands messages to links.
    Send,
}

/// Held while a phase runs; dropped with the value or the process.
pub struct PhaseLock {
    /// The phase.
    pub phase: Phase,
}
