//! Links over a directory with one fault each, as authors of links make them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::SiteName;
use milepost_engine::clock::SystemRng;
use tempfile::TempDir;

use super::super::Medium;
use crate::link::{
    Batch, DirectoryLink, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest,
};

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Panics,
    TrimsZeros,
    CutsLarge,
    TakesAnySize,
    PollTakesAway,
    RemovesOneMore,
    RemovesOnce,
    IgnoresForeignIds,
    RepeatsCursor,
    IgnoresMaxBytes,
    GivesOnlyWhatFits,
    SkipsOneMore,
    CursorCounts,
    ForgetsInBeginRound,
    OneMailboxALetter,
    DotIsUnderscore,
    RemovesEverywhere,
    OneBuffer,
    NameBeforeBytes,
    OnePollAtATime,
    DropLeavesItBusy,
    DropLeavesPollBusy,
    RewritesTheList,
    InMemory,
    RemovalInMemory,
    CleansWhole,
    CleansNothing,
    WaitsForEver,
    TellsNobody,
    NoAddress,
}

/// Every fault and the rule that must catch it.
pub const FAULTS: &[(Fault, &str)] = &[
    (Fault::TrimsZeros, "bytes-unchanged"),
    (Fault::CutsLarge, "every-size"),
    (Fault::TakesAnySize, "refused-sizes"),
    (Fault::PollTakesAway, "stays-until-removed"),
    (Fault::RemovesOneMore, "removed-is-gone"),
    (Fault::RemovesOnce, "removing-again"),
    (Fault::IgnoresForeignIds, "foreign-ids"),
    (Fault::RepeatsCursor, "rounds-end"),
    (Fault::IgnoresMaxBytes, "batches-bounded"),
    (Fault::GivesOnlyWhatFits, "first-whatever-its-size"),
    (Fault::SkipsOneMore, "skip-hides-nothing-else"),
    (Fault::CursorCounts, "removal-within-a-round"),
    (Fault::ForgetsInBeginRound, "begin-round-changes-nothing"),
    (Fault::OneMailboxALetter, "only-the-addressee"),
    (Fault::DotIsUnderscore, "names-kept-apart"),
    (Fault::RemovesEverywhere, "ones-own-removal"),
    (Fault::NoAddress, "says-its-address"),
    (Fault::OneBuffer, "deliveries-at-once"),
    (Fault::NameBeforeBytes, "never-partial"),
    (Fault::OnePollAtATime, "two-pollers"),
    (Fault::DropLeavesItBusy, "dropped-deliver"),
    (Fault::DropLeavesPollBusy, "dropped-poll"),
    (Fault::RewritesTheList, "dropped-remove"),
    (Fault::InMemory, "durable"),
    (Fault::RemovalInMemory, "removed-for-good"),
    (Fault::CleansWhole, "begin-sending-keeps"),
    (Fault::CleansNothing, "begin-sending-cleans"),
    (Fault::WaitsForEver, "wait-ends"),
    (Fault::TellsNobody, "push-tells"),
];

/// A folder whose links have a fault.
pub struct Faulty {
    fault: Fault,
    dir: Arc<TempDir>,
    memory: Arc<Memory>,
}

/// What a faulty medium keeps where it must not.
#[derive(Default)]
struct Memory {
    messages: Mutex<Vec<(SiteName, Vec<u8>)>>,
    removed: Mutex<BTreeSet<MessageId>>,
    buffer: Mutex<Vec<u8>>,
}

impl Faulty {
    pub fn new(fault: Fault) -> Faulty {
        Faulty {
            fault,
            dir: Arc::new(TempDir::new().unwrap()),
            memory: Arc::default(),
        }
    }
}

impl Medium for Faulty {
    fn link<'a>(&'a self, own: &'a SiteName) -> LinkFuture<'a, Arc<dyn Link>> {
        let mailbox = self.fault.mailbox(own);
        let link: Arc<dyn Link> = Arc::new(FaultyLink {
            fault: self.fault,
            own: own.clone(),
            inner: DirectoryLink::new(self.dir.path(), mailbox, Arc::new(SystemRng)),
            dir: Arc::clone(&self.dir),
            memory: Arc::clone(&self.memory),
            busy: AtomicBool::new(false),
            count: AtomicU64::new(0),
        });
        Box::pin(async { Ok(link) })
    }

    fn restart(&self) -> LinkFuture<'_, ()> {
        self.memory.messages.lock().unwrap().clear();
        self.memory.removed.lock().unwrap().clear();
        Box::pin(async { Ok(()) })
    }

    fn leave_half_written(&self, from: &SiteName, to: &SiteName) -> bool {
        let folder = self.dir.path().join(to.as_str());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!(".{from}-00000000000000aa.tmp")), b"half").unwrap();
        true
    }

    fn half_written(&self, from: &SiteName) -> usize {
        let half = format!(".{from}-");
        files(&self.dir)
            .into_iter()
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&half))
            .count()
    }
}

/// Every file of every mailbox.
fn files(dir: &TempDir) -> Vec<PathBuf> {
    let mailboxes = fs::read_dir(dir.path()).unwrap();
    let inside = |mailbox: std::io::Result<fs::DirEntry>| fs::read_dir(mailbox.unwrap().path()).unwrap();
    mailboxes
        .flat_map(inside)
        .map(|file| file.unwrap().path())
        .collect()
}

impl Fault {
    fn mailbox(self, site: &SiteName) -> SiteName {
        let name = match self {
            Fault::OneMailboxALetter => site.as_str()[..1].to_owned(),
            Fault::DotIsUnderscore => site.as_str().replace('.', "_"),
            _ => site.to_string(),
        };
        SiteName::new(&name).unwrap()
    }
}

struct FaultyLink {
    fault: Fault,
    own: SiteName,
    inner: DirectoryLink,
    dir: Arc<TempDir>,
    memory: Arc<Memory>,
    busy: AtomicBool,
    count: AtomicU64,
}

impl FaultyLink {
    fn other(&self, own: &str) -> DirectoryLink {
        DirectoryLink::new(self.dir.path(), SiteName::new(own).unwrap(), Arc::new(SystemRng))
    }

    async fn everything(&self, link: &DirectoryLink) -> Vec<Incoming> {
        let skip = BTreeSet::new();
        let request = PollRequest {
            after: None,
            skip: &skip,
            max_count: 10_000,
            max_bytes: usize::MAX,
        };
        link.poll(request).await.unwrap().messages
    }

    fn take_turn(&self) -> Result<(), LinkError> {
        match self.busy.swap(true, Ordering::SeqCst) {
            true => Err(LinkError::not_now("faulty", "a call is under way")),
            false => Ok(()),
        }
    }

    /// Writes under the final name, piece by piece.
    async fn write_in_place(&self, to: &SiteName, message: &[u8]) {
        let folder = self.dir.path().join(to.as_str());
        fs::create_dir_all(&folder).unwrap();
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let unique = format!("{:08x}{number:08x}", std::ptr::from_ref(self).addr() as u32);
        let path = folder.join(format!("{}-{unique}.mp", self.own));
        for end in (1..=4).map(|part| message.len() * part / 4) {
            fs::write(&path, &message[..end]).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn faulty_deliver(&self, to: &SiteName, message: &[u8]) -> Result<(), LinkError> {
        let box_of = self.fault.mailbox(to);
        let mut message = message.to_vec();
        match self.fault {
            Fault::Panics => panic!("planted"),
            Fault::TrimsZeros => {
                while message.len() > 1 && message.last() == Some(&0) {
                    message.pop();
                }
            }
            Fault::CutsLarge => message.truncate(65_536),
            Fault::TakesAnySize if message.is_empty() || message.len() > 16 << 20 => return Ok(()),
            Fault::OneBuffer => {
                *self.memory.buffer.lock().unwrap() = message;
                tokio::time::sleep(Duration::from_millis(1)).await;
                message = self.memory.buffer.lock().unwrap().clone();
            }
            Fault::NameBeforeBytes => {
                self.write_in_place(to, &message).await;
                return Ok(());
            }
            Fault::DropLeavesItBusy => {
                self.take_turn()?;
                // A step that always waits: a fast disk would leave no moment in which the call can be dropped.
                tokio::task::yield_now().await;
                let done = self.inner.deliver(&box_of, &message).await;
                self.busy.store(false, Ordering::SeqCst);
                return done;
            }
            Fault::InMemory => {
                self.memory.messages.lock().unwrap().push((to.clone(), message));
                return Ok(());
            }
            _ => {}
        }
        self.inner.deliver(&box_of, &message).await
    }

    async fn faulty_poll(&self, request: PollRequest<'_>) -> Result<Batch, LinkError> {
        match self.fault {
            Fault::OnePollAtATime | Fault::DropLeavesPollBusy => {
                self.take_turn()?;
                tokio::task::yield_now().await;
                let batch = self.inner.poll(request).await;
                self.busy.store(false, Ordering::SeqCst);
                return batch;
            }
            Fault::ForgetsInBeginRound if self.count.load(Ordering::SeqCst) > 1 => {
                return Ok(Batch::default());
            }
            Fault::CursorCounts => return Ok(self.counted(request).await),
            Fault::IgnoresMaxBytes => {
                let max_bytes = usize::MAX;
                return self.inner.poll(PollRequest { max_bytes, ..request }).await;
            }
            Fault::InMemory => return Ok(self.remembered()),
            _ => {}
        }
        let mut batch = self.inner.poll(request).await?;
        match self.fault {
            Fault::PollTakesAway => {
                let given: Vec<_> = batch.messages.iter().map(|one| one.id.clone()).collect();
                self.inner.remove(&given).await?;
            }
            Fault::RepeatsCursor => batch.next = Some(PollCursor::new("")),
            Fault::GivesOnlyWhatFits => batch.messages.retain(|one| one.bytes.len() <= request.max_bytes),
            Fault::SkipsOneMore if !request.skip.is_empty() => drop(batch.messages.pop()),
            Fault::RemovalInMemory => {
                let removed = self.memory.removed.lock().unwrap();
                batch.messages.retain(|one| !removed.contains(&one.id));
            }
            _ => {}
        }
        Ok(batch)
    }

    /// A cursor that says how many were given.
    async fn counted(&self, request: PollRequest<'_>) -> Batch {
        let from = request
            .after
            .map_or(0, |cursor| cursor.as_str().parse().unwrap_or(0));
        let all = self.everything(&self.inner).await;
        let end = (from + request.max_count).min(all.len());
        let messages = all.get(from..end).unwrap_or_default().to_vec();
        let next = (end < all.len()).then(|| PollCursor::new(end.to_string()));
        Batch { messages, next }
    }

    fn remembered(&self) -> Batch {
        let messages = self.memory.messages.lock().unwrap();
        let own = messages.iter().enumerate().filter(|(_, (to, _))| *to == self.own);
        Batch {
            messages: own
                .map(|(at, (_, bytes))| Incoming {
                    id: MessageId::new(at.to_string()),
                    bytes: bytes.clone(),
                })
                .collect(),
            next: None,
        }
    }

    async fn faulty_remove(&self, ids: &[MessageId]) -> Result<(), LinkError> {
        let mut ids = ids.to_vec();
        match self.fault {
            Fault::RemovesOneMore if !ids.is_empty() => {
                let all = self.everything(&self.inner).await;
                ids.extend(all.into_iter().map(|one| one.id).find(|id| !ids.contains(id)));
            }
            Fault::RemovesOnce => {
                let mut removed = self.memory.removed.lock().unwrap();
                if !ids.iter().all(|id| removed.insert(id.clone())) {
                    return Err(LinkError::refused("faulty", "no such message"));
                }
            }
            Fault::IgnoresForeignIds => ids.retain(|id| id.as_str().ends_with(".mp")),
            Fault::RemovesEverywhere => return self.remove_everywhere(&ids).await,
            Fault::RewritesTheList => return self.rewrite(&ids).await,
            Fault::RemovalInMemory => {
                self.memory.removed.lock().unwrap().extend(ids);
                return Ok(());
            }
            _ => {}
        }
        self.inner.remove(&ids).await
    }

    async fn remove_everywhere(&self, ids: &[MessageId]) -> Result<(), LinkError> {
        let mine = self.everything(&self.inner).await;
        let gone: Vec<&Vec<u8>> = mine
            .iter()
            .filter(|one| ids.contains(&one.id))
            .map(|one| &one.bytes)
            .collect();
        for site in ["bern", "basel"] {
            let link = self.other(site);
            let all = self.everything(&link).await;
            let same = all.into_iter().filter(|one| gone.contains(&&one.bytes));
            let same: Vec<MessageId> = same.map(|one| one.id).collect();
            link.remove(&same).await?;
        }
        Ok(())
    }

    async fn rewrite(&self, ids: &[MessageId]) -> Result<(), LinkError> {
        let all = self.everything(&self.inner).await;
        let every: Vec<MessageId> = all.iter().map(|one| one.id.clone()).collect();
        self.inner.remove(&every).await?;
        tokio::task::yield_now().await;
        for keep in all.iter().filter(|one| !ids.contains(&one.id)) {
            self.other("hq").deliver(&self.own, &keep.bytes).await?;
        }
        Ok(())
    }
}

impl Link for FaultyLink {
    fn begin_round(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn begin_sending(&self) -> LinkFuture<'_, ()> {
        match self.fault {
            Fault::CleansNothing => Box::pin(async { Ok(()) }),
            Fault::CleansWhole => {
                let own = format!("{}-", self.own);
                let is_own = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().contains(&own);
                files(&self.dir)
                    .into_iter()
                    .filter(is_own)
                    .for_each(|path| fs::remove_file(path).unwrap());
                Box::pin(async { Ok(()) })
            }
            _ => self.inner.begin_sending(),
        }
    }

    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(self.faulty_deliver(to, message))
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(self.faulty_poll(request))
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(self.faulty_remove(ids))
    }

    fn wait_for_push(&self, limit: Duration) -> LinkFuture<'_, bool> {
        match self.fault {
            Fault::WaitsForEver => Box::pin(std::future::pending()),
            _ => self.inner.wait_for_push(limit),
        }
    }

    fn address(&self) -> String {
        match self.fault {
            Fault::NoAddress => String::new(),
            _ => self.inner.address(),
        }
    }
}
