//! A directory as a link: `DIR/<to>/<from>-<16 random hex>.mp`, one file a message.
//!
//! For a disk that several sites see, a folder that something else synchronises, or a stick that is
//! carried. A message is whole or absent: it is written under a temporary name, synced, renamed
//! without replacing, and its folder synced, before [`Link::deliver`] returns. A reader takes no
//! partial file, follows no symlink out of the directory and takes no name with a path in it.
//! There is no push: who waits on a directory polls.

mod folder;
mod name;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::SiteName;
use milepost_engine::clock::Rng;

use self::folder::{Folder, Root, Taken};
use self::name::FileName;
use super::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest};

/// Names drawn before giving up; a second draw is already a wonder.
const NAME_ATTEMPTS: usize = 8;

/// A directory as a link, as one site sees it.
#[derive(Clone)]
pub struct DirectoryLink {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    own: SiteName,
    rng: Arc<dyn Rng>,
}

impl DirectoryLink {
    /// The link over `dir` for the site `own`. The directory must exist when the link is used: a
    /// missing one is a mount that is not there.
    pub fn new(dir: impl Into<PathBuf>, own: SiteName, rng: Arc<dyn Rng>) -> DirectoryLink {
        DirectoryLink {
            shared: Arc::new(Shared {
                dir: dir.into(),
                own,
                rng,
            }),
        }
    }

    /// Runs blocking file work beside the async tasks.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LinkError> + Send + 'static,
    ) -> LinkFuture<'static, T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let address = shared.address();
            let done = tokio::task::spawn_blocking(move || work(&shared)).await;
            done.unwrap_or_else(|_| {
                Err(LinkError::unreachable(
                    address,
                    "the file work was stopped half-way",
                ))
            })
        })
    }
}

impl Link for DirectoryLink {
    fn begin_sending(&self) -> LinkFuture<'_, ()> {
        self.run(Shared::remove_temporaries)
    }

    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        if let Err(error) = super::check_size(message) {
            return Box::pin(async { Err(error) });
        }
        let (to, message) = (to.clone(), message.to_vec());
        self.run(move |shared| shared.deliver(&to, &message))
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        let after = request
            .after
            .map_or_else(String::new, |cursor| cursor.as_str().to_owned());
        let (skip, max_count, max_bytes) = (request.skip.clone(), request.max_count, request.max_bytes);
        self.run(move |shared| shared.poll(&after, &skip, max_count, max_bytes))
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        let ids = ids.to_vec();
        self.run(move |shared| shared.remove(&ids))
    }

    fn wait_for_push(&self, limit: Duration) -> LinkFuture<'_, bool> {
        Box::pin(async move {
            tokio::time::sleep(limit).await;
            Ok(false)
        })
    }

    fn address(&self) -> String {
        self.shared.address()
    }
}

impl Shared {
    fn address(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    fn root(&self) -> Result<Root, LinkError> {
        Root::open(&self.dir).map_err(|error| self.failed("open the directory", &self.dir, &error))
    }

    fn own_folder(&self, root: &Root) -> Result<Option<Folder>, LinkError> {
        let folder = root.folder(self.own.as_str());
        folder.map_err(|error| self.failed("open", &self.dir.join(self.own.as_str()), &error))
    }

    fn remove_temporaries(&self) -> Result<(), LinkError> {
        let root = self.root()?;
        let sites = root
            .sites()
            .map_err(|error| self.failed("list", &self.dir, &error))?;
        for site in sites {
            let path = self.dir.join(site.as_str());
            // A file or symlink with a site's name is not a mailbox of ours to clean.
            let Ok(Some(folder)) = root.folder(site.as_str()) else {
                continue;
            };
            let removed = folder.remove_temporaries_of(&self.own);
            let removed = removed.map_err(|error| self.failed("clean", &path, &error))?;
            if removed > 0 {
                tracing::info!(removed, folder = %path.display(), "removed half-written messages of an earlier run");
            }
        }
        // Who made a mailbox may have died before it was on disk, and it is not made again.
        root.sync()
            .map_err(|error| self.failed("sync", &self.dir, &error))
    }

    fn deliver(&self, to: &SiteName, message: &[u8]) -> Result<(), LinkError> {
        let path = self.dir.join(to.as_str());
        let folder = self.root()?.folder_or_new(to);
        let folder = folder.map_err(|error| self.failed("make or open", &path, &error))?;
        for _ in 0..NAME_ATTEMPTS {
            let name = FileName {
                from: self.own.clone(),
                random: self.rng.next_u64(),
            };
            let put = folder.put(&name, message);
            if put.map_err(|error| self.failed("write", &path.join(name.whole()), &error))? {
                return Ok(());
            }
        }
        Err(LinkError::not_now(
            self.address(),
            format!("{NAME_ATTEMPTS} random names were all taken"),
        ))
    }

    fn poll(
        &self,
        after: &str,
        skip: &BTreeSet<MessageId>,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Batch, LinkError> {
        let Some(folder) = self.own_folder(&self.root()?)? else {
            return Ok(Batch::default());
        };
        let path = self.dir.join(self.own.as_str());
        let listed = folder.list(after, skip, max_count.max(1));
        let (names, mut more) = listed.map_err(|error| self.failed("list", &path, &error))?;
        let (mut batch, mut room, mut last) = (Batch::default(), max_bytes, None);
        for name in names {
            let limit = if batch.messages.is_empty() {
                usize::MAX
            } else {
                room
            };
            match folder
                .take(&name, limit)
                .map_err(|error| self.failed("read", &path.join(&name), &error))?
            {
                Taken::Message(bytes) => {
                    room = room.saturating_sub(bytes.len());
                    batch.messages.push(Incoming {
                        id: MessageId::new(name.as_str()),
                        bytes,
                    });
                }
                Taken::Gone => {}
                Taken::NoRoom => {
                    more = true;
                    break;
                }
                Taken::Unfit(reason) => {
                    tracing::warn!(file = %path.join(&name).display(), reason, "not read as a message; look at it and remove it");
                }
            }
            last = Some(name);
        }
        batch.next = last.filter(|_| more).map(PollCursor::new);
        Ok(batch)
    }

    fn remove(&self, ids: &[MessageId]) -> Result<(), LinkError> {
        if let Some(foreign) = ids.iter().find(|id| FileName::parse_whole(id.as_str()).is_none()) {
            return Err(LinkError::invalid(format!(
                "{foreign:?} is not the name of a message in a directory"
            )));
        }
        let Some(folder) = self.own_folder(&self.root()?)? else {
            return Ok(());
        };
        for id in ids {
            let path = self.dir.join(self.own.as_str()).join(id.as_str());
            folder
                .remove(id.as_str())
                .map_err(|error| self.failed("remove", &path, &error))?;
        }
        Ok(())
    }

    fn failed(&self, action: &str, path: &Path, error: &io::Error) -> LinkError {
        let reason = format!("cannot {action} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LinkError::not_now(self.address(), reason)
            }
            _ => LinkError::unreachable(self.address(), reason),
        }
    }
}

#[cfg(test)]
mod tests;
