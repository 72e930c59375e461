//! The crash test: random transactions of several processes on a simulated disk, power lost at any
//! operation, and afterwards a store that holds what it promised.
//!
//! ```text
//! seed ─► actors on one machine ─► snapshots, each with the model as of that operation
//!              (Schedule: one runs at a time, is killed, meets faults)      │
//!                                     ┌──────────────────────────────────────┘
//!                                     ▼
//!              crash ─► open ─► check against the model ─► more work ─► crash …   (up to three in a row,
//!                         └──── killed or crashed inside recovery                  each choosing what
//!                                                                                  survives at random)
//! ```
//!
//! [`every_fault`] lets each operation of one fixed story fail. [`run`] is one seed; the same seed gives the same trace. What is checked is E1, E2, E3 and S1 to S3.
//!
//! Who tells a story of its own uses [`Model`], [`draw_transaction`] and [`check`] (the fuzz target `operations` does).

mod actor;
mod check;
mod faults;
mod kept;
mod model;
mod queue;
mod recover;
mod run;
mod schedule;
mod space;

pub use actor::{Habits, options, panic_text};
pub use check::{check, tag_of_frame};
pub use faults::{Fault, Told, every_fault};
pub use kept::{Done, Kept};
pub use model::{Content, Fate, Known, Model, STREAMS, draw_frame, draw_transaction};
pub use run::{Choice, Failure, Report, hush, run, run_many};
pub use space::SpaceHabits;
