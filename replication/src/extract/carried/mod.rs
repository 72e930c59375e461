//! A store in one file, to be carried to its site: [`pack`] makes it of a finished store that is closed, [`unpack`] a store of it.
//!
//! ```text
//! header 128 │ head 48, piece │ head 48, piece │ …
//!     the file `store`, the segments of the log, log/newest, log/closed; no keys, no index, nothing else that is derived or secret
//! ```
//!
//! **Guarantees.** A file is whole under its name or it is not there; so is a store. Every changed byte, missing or surplus one is told before
//! anything is made of it, and the log is verified block by block before the store gets its name (E3). Nothing in the file becomes a path, and
//! no length allocates more than a piece.
//!
//! **Refuses** to replace anything. Unpacked twice, a store is a copied one: found by its chain when both run (R5).

mod check;
mod layout;
mod pack;
mod unpack;

pub(super) use pack::finished;
pub use pack::{KEY_SUFFIX, Packed, SUFFIX, is_file_name, pack, working_folder};
pub use unpack::{Unpacked, unpack};

#[cfg(test)]
mod tests;
