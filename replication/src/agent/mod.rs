//! The Message Agent.

mod exit;
mod links;
mod options;
mod stop;

pub use exit::{Exit, ExitCode};
pub use links::{LinkNumber, Links, OpenLink};
pub use options::{AgentOptions, Phases};
pub use stop::{LOOK_EVERY, Stop};
