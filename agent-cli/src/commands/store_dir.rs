//! [`StoreDir`]: the argument `DIR` of every command that opens a store.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::{Options, Store};

use crate::failure::Outcome;

/// Which store, and how it is opened.
#[derive(Args, Clone, Debug)]
pub struct StoreDir {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Open a store on NFS, 9p or FUSE, which may break their promises; at your risk
    #[arg(long, env = "MILEPOST_FORCE_FILE_SYSTEM", value_parser = clap::builder::FalseyValueParser::new())]
    pub force_file_system: bool,
}

impl StoreDir {
    /// How the store is to be opened.
    pub fn options(&self) -> Options {
        Options::new().force_file_system(self.force_file_system)
    }

    /// Opens the store.
    ///
    /// # Errors
    /// Exit 6 when its files are damaged, else exit 1.
    pub fn open(&self) -> Outcome<Store> {
        Ok(self.options().open(&self.dir)?)
    }
}
