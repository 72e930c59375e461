//! [`Beside`]: another directory of the same simulated machine, for a log's archive. It lies on the same disk, in a
//! folder of the root, so it loses power with it and its operations are shown to the same director.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use milepost_engine::storage::{OpenMode, SharedCells, Storage, StorageFile};

use super::process::SimProcess;

/// A directory beside the store's.
pub struct Beside {
    process: SimProcess,
    folder: String,
    root: PathBuf,
}

impl Beside {
    /// The directory of a path; its last part names the folder.
    pub fn new(process: &SimProcess, path: &Path) -> Beside {
        let last = path.file_name().unwrap_or_default().to_string_lossy();
        Beside {
            process: process.clone(),
            folder: format!("beside-{last}"),
            root: path.to_path_buf(),
        }
    }

    fn name(&self, name: &str) -> String {
        if name.is_empty() {
            self.folder.clone()
        } else {
            format!("{}/{name}", self.folder)
        }
    }
}

impl Storage for Beside {
    fn root(&self) -> &Path {
        &self.root
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.process.create_dir(&self.name(folder))?;
        // As on a real disk: a root that was made is durable.
        if folder.is_empty() {
            self.process.sync_dir("")
        } else {
            Ok(())
        }
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.process.open(&self.name(name), mode)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.process.rename(&self.name(from), &self.name(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.process.unlink(&self.name(name))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.process.list(&self.name(folder))
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.process.sync_dir(&self.name(folder))
    }

    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>> {
        self.process.cells(&self.name(name), fresh)
    }

    fn refusal(&self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn process_id(&self) -> u32 {
        self.process.process_id()
    }

    fn boot_id(&self) -> String {
        self.process.boot_id()
    }
}
