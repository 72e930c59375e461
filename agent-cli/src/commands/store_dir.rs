//! [`StoreDir`]: the argument `DIR` of every command that opens a store.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::{Options, Result, Retention, Store};
use milepost_replication::server::is_message_store;

use crate::failure::{Failure, Outcome};
use crate::progress;

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

/// Closes a store after commits, once what these let go of is freed: a command that is short is gone before the store's own
/// thread comes to that.
///
/// # Errors
/// As [`Store::close`]; what cannot be freed now waits for whoever has the store open next.
pub fn close(store: Store) -> Outcome {
    if let Err(error) = free(&store) {
        tracing::warn!(%error, "what need not be kept is not freed now; whoever has the store open next does so");
    }
    Ok(store.close()?)
}

fn free(store: &Store) -> Result<()> {
    if store.space()?.retention != Retention::Forever && store.freeable()?.end > store.oldest()? {
        store.free()?;
    }
    Ok(())
}

impl StoreDir {
    /// How the store is to be opened.
    pub fn options(&self) -> Options {
        Options::new()
            .force_file_system(self.force_file_system)
            .on_rebuild(progress::on_rebuild())
    }

    /// Opens the store.
    ///
    /// # Errors
    /// Exit 6 when its files are damaged, else exit 1.
    pub fn open(&self) -> Outcome<Store> {
        Ok(self.options().open(&self.dir)?)
    }

    /// Opens the store of a site, for commands that write in its log.
    ///
    /// # Errors
    /// As [`StoreDir::open`]; exit 1 for the message store of servers.
    pub fn open_site(&self) -> Outcome<Store> {
        let store = self.open()?;
        if is_message_store(&store)? {
            return Err(Failure::failed(format!(
                "{} is the message store of servers and not the store of a site; nothing was changed",
                self.dir.display()
            )));
        }
        Ok(store)
    }
}
