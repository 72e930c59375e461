//! Bundles: everything that is due to a site as one file, for a stick that is carried to and fro.
//!
//! ```text
//! export: scan ─► send phase, for one remote ─► BundleLink::deliver ─► BundleWriter ─► <from>-<to>-<number>.mpb
//!                                                                                           │ carried
//! import: receive phase ◄─ CarriedLink::poll ◄─ Bundle ◄──────────────────────────────────┘
//! ```
//!
//! A bundle is a link that exists for one run: the phases send into it and receive from it as with any other (R1 to R6), so a
//! bundle that is lost, damaged, imported twice or in another order loses and doubles nothing. What was exported counts as
//! sent once the file has its name and is synced (R2); it counts as confirmed when a bundle on the way back says so.
//!
//! The bytes: docs/replication.md, "Bundle". It refuses to replace files, to believe a length, and to make a path of a
//! name that was carried here.

mod carried;
mod export;
mod import;
pub mod layout;
mod ledger;
mod outgoing;
mod packed;
mod ranges;
mod reader;
mod writer;

pub use carried::CarriedLink;
pub use export::{ExportOptions, Made, Outcome, export, export_with};
pub use import::{ImportOptions, Imported, OneBundle, import, import_with};
pub use ledger::{
    Exported, ExportedFacts, IN_PREFIX, Incoming, OUT_PREFIX, Outgoing, RemoteBundles, bundles,
};
pub(crate) use outgoing::ByBundleOnly;
pub use outgoing::{BundleLink, Cut};
pub use ranges::{Ranges, told};
pub use reader::{Bundle, Carried};
pub(crate) use writer::publish;
pub use writer::{BundleWriter, WHOLE};

#[cfg(test)]
mod tests;
