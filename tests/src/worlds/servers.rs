//! [`Group`]: the servers of a world: two processes over one message store on one simulated machine.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use milepost_engine::{Options, SiteName};
use milepost_replication::server::{EmbeddedStore, MailboxLimits};
use milepost_replication::wire::MessageKey;

use super::chance::Chance;
use super::fate::{Fate, Plan};
use super::trace::Trace;
use crate::SimRng;
use crate::disk::{Profile, SimDisk, SimProcess};

/// A server that is up.
#[derive(Clone)]
pub struct Server {
    number: usize,
    process: SimProcess,
    fate: Arc<Fate>,
    store: Arc<Buried>,
}

/// A message store that is dropped in peace when its process is dead.
struct Buried(Option<EmbeddedStore>);

impl Drop for Buried {
    fn drop(&mut self) {
        let store = self.0.take();
        let gone = catch_unwind(AssertUnwindSafe(|| drop(store)));
        drop(gone);
    }
}

impl Server {
    /// What it serves from.
    pub fn store(&self) -> &EmbeddedStore {
        self.store.0.as_ref().unwrap()
    }
}

/// See the module.
pub struct Group {
    disk: SimDisk,
    profile: Profile,
    up: [Option<Server>; 2],
    chance: Chance,
    trace: Trace,
    /// Nothing befalls anybody any more.
    pub is_calm: bool,
    /// What was acknowledged and not removed, by addressee.
    pub acknowledged: BTreeMap<(SiteName, MessageKey), Vec<u8>>,
    kills: u64,
    cuts: u64,
}

impl Group {
    pub fn new(chance: Chance, trace: &Trace) -> Result<Group, String> {
        let profile = chance.pick(&Profile::ALL);
        let group = Group {
            disk: SimDisk::like(profile, chance.below(u64::MAX)),
            profile,
            up: [None, None],
            trace: trace.clone(),
            is_calm: false,
            acknowledged: BTreeMap::new(),
            kills: 0,
            cuts: 0,
            chance,
        };
        let founder = group.disk.start();
        let name = SiteName::new("server").map_err(|error| error.to_string())?;
        let store = group.options(&founder).init_in(founder.storage(), name);
        let closed = store.and_then(milepost_engine::Store::close);
        closed.map_err(|error| error.to_string())?;
        founder.kill();
        trace.tell(format!("two servers, {} disk", profile.name()));
        Ok(group)
    }

    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub fn totals(&self) -> (u64, u64, u64, u64) {
        (self.disk.ops(), self.disk.trace(), self.kills, self.cuts)
    }

    fn options(&self, process: &SimProcess) -> Options {
        Options::new()
            .segment_bytes(1 << 20)
            .background(false)
            .pad_to(self.profile.garbage().unwrap_or(1))
            .clock(process.clock())
            .rng(Arc::new(SimRng::new(self.chance.below(u64::MAX))))
    }

    /// One that is up, or is started; something may befall it in what it is asked next.
    pub fn server(&mut self) -> Result<Server, String> {
        let number = self.chance.below(2) as usize;
        if let Some(server) = self.up[number].clone() {
            self.befall(&server.fate, 40);
            return Ok(server);
        }
        let rng = SimRng::new(self.chance.below(u64::MAX));
        let fate = Arc::new(Fate::new(&self.disk, rng));
        let process = self.disk.directed(Arc::clone(&fate) as _);
        self.befall(&fate, 300);
        let options = self.options(&process);
        let opened = catch_unwind(AssertUnwindSafe(|| over(options, &process)));
        match opened {
            Ok(Ok(store)) if process.is_alive() => {
                let store = Arc::new(Buried(Some(store)));
                let server = Server {
                    number,
                    process,
                    fate,
                    store,
                };
                self.up[number] = Some(server.clone());
                Ok(server)
            }
            outcome => {
                let alive = process.is_alive();
                process.kill();
                self.mourn(number, &fate);
                match outcome {
                    Ok(Err(error)) if alive => Err(format!("server {number} cannot begin: {error}")),
                    _ => Err(format!("server {number} died as it began")),
                }
            }
        }
    }

    fn befall(&self, fate: &Fate, longest: u64) {
        if self.is_calm {
            return;
        }
        let after = self.chance.below(longest);
        match self.chance.below(100) {
            0..=7 => fate.set(after, Plan::Kill),
            8..=10 => fate.set(after, Plan::PowerCut),
            _ => {}
        }
    }

    /// Notes what became of a server while it was asked; an error when it died.
    pub fn answered(&mut self, server: &Server) -> Result<(), String> {
        if server.process.is_alive() {
            let _ = server.fate.end();
            return Ok(());
        }
        server.process.kill();
        self.up[server.number] = None;
        self.mourn(server.number, &server.fate);
        Err(format!("server {} died", server.number))
    }

    /// A server died, or the power went.
    fn mourn(&mut self, number: usize, fate: &Fate) {
        let ended = fate.end();
        let at = ended.at.unwrap_or_default();
        match ended.cut {
            Some(disk) => {
                self.trace.tell(format!("the servers lose power at {at}"));
                self.boot(disk);
            }
            None => {
                self.kills += 1;
                self.trace.tell(format!("server {number} is killed at {at}"));
            }
        }
    }

    fn boot(&mut self, disk: SimDisk) {
        self.cuts += 1;
        for server in &mut self.up {
            if let Some(server) = server.take() {
                server.process.kill();
            }
        }
        self.disk = disk;
    }

    pub fn lose_power(&mut self) {
        let rng = SimRng::new(self.chance.below(u64::MAX));
        let disk = self.disk.crash(&rng);
        self.trace.tell("the servers lose power".to_owned());
        self.boot(disk);
    }

    /// One to which nothing happens.
    pub fn calm_server(&self) -> Result<EmbeddedStore, String> {
        let process = self.disk.start();
        over(self.options(&process), &process)
            .map_err(|error| format!("the message store cannot be opened: {error} (E1)"))
    }
}

fn over(options: Options, process: &SimProcess) -> milepost_engine::Result<EmbeddedStore> {
    EmbeddedStore::over_untold(options.open_in(process.storage())?, MailboxLimits::default())
}
