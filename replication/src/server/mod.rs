//! The Milepost server: mailboxes behind TCP, any number of servers over one message store.
//!
//! ```text
//! client ══ wire ══► Session ──► MessageStore (shared with the other servers of the group)
//! ```
//!
//! A server holds nothing of its own: killed at any moment it loses nothing that it acknowledged, and
//! any other server of the group goes on where it stopped.

mod embedded;
mod session;
mod store;
mod tcp;

pub use embedded::{EmbeddedStore, MailboxLimits, is_message_store};
pub use store::{Delivery, MailboxPoll, MessageStore, StoreError, StoreFuture};
pub use tcp::{ServeOptions, ServerError, ServerLimits, accept, serve};
