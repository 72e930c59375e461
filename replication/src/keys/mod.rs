//! Keys of pairs: what two neighbours share, so that nobody between them can read, alter, exchange or forge a message.
//!
//! ```text
//! key add --to FILE ──► keys/<remote>  ◄── key add --from FILE, at the neighbour
//!                            │ read again every round
//!                            ▼
//!             PairKeys: Unsealed │ Sealed: opens with both keys, seals with one │ Locked: nothing goes, nothing is taken
//! ```
//!
//! Guarantees: a secret is in its own file (0600, in a folder 0700), never in the log, a backup, a message, an error or a
//! line of a log output. A pair that was sealed once stays so until an operator says otherwise: `sealed/<remote>` is pinned
//! in the log, and without its key such a pair is locked, not open. A damaged file, or one that others can read, locks its
//! pair and no other. Refuses: a third key, a key that another remote has, a line that names other sites.
//!
//! **Rotation.** A new key opens from the moment it is added. It seals at once where it was read from a line, because whoever
//! drew it has it; where it was drawn it seals once a message sealed with it came from the neighbour (`proven/<remote>`). So
//! neither site ever seals with what the other cannot open, in whatever order the two add it.
//!
//! A program that makes the store of a new site calls [`Keys::add_fresh`] at one side and [`Keys::add`] at the other.

mod chest;
mod file;
mod line;
mod pair_key;
mod records;
mod ring;

pub(crate) use chest::{FOLDER as KEYS_FOLDER, is_noted};
pub use chest::{Keys, RemoteKeys, keys_of};
pub use line::KeyLine;
pub use pair_key::{KeyId, NONCE_LEN, Nonce, PairKey, TAG_LEN};
pub(crate) use pair_key::{Way, draw_nonce};
pub use records::{DistrustRecord, ProvenRecord, SealedRecord};
pub use ring::{KeyRing, MAX_KEYS, PairKeys, RingKey};

#[cfg(test)]
mod tests;
