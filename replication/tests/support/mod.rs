//! Sites in temporary directories, joined by links in memory that can lose, repeat and hold back.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

pub mod bundles;
pub mod freeing;
pub mod restoring;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::{Event, Lsn, Options, SiteName, Store, Transaction};
use milepost_replication::agent::{AgentOptions, Exit, Links, Phases, Stop, run_on};
use milepost_replication::catalog::{
    Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start, SubscribeBy, Subscription,
};
use milepost_replication::link::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollRequest};
use milepost_replication::receive::{ReceiveOptions, ReceivePhase, Received};
use milepost_replication::scan::ScanPhase;
use milepost_replication::send::{SendOptions, SendPhase, Sent, Serve};
use milepost_replication::tracking::{Patience, PollCause};
use tokio::runtime::Runtime;

pub fn name(site: &str) -> SiteName {
    SiteName::new(site).unwrap()
}

/// What `fate` says where the link fails.
pub const CUT: usize = usize::MAX;

/// Mailboxes in memory. What happens to a message on its way is decided by `fate`.
#[derive(Clone, Default)]
pub struct Net {
    boxes: Arc<Mutex<Boxes>>,
}

#[derive(Default)]
struct Boxes {
    mail: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    count: u64,
    /// How often a message to this site arrives, decided by its number: 0 loses it, [`CUT`] fails.
    fate: Option<Box<dyn FnMut(u64) -> usize + Send>>,
}

impl Net {
    pub fn with_fate(fate: impl FnMut(u64) -> usize + Send + 'static) -> Net {
        let net = Net::default();
        net.set_fate(fate);
        net
    }

    pub fn set_fate(&self, fate: impl FnMut(u64) -> usize + Send + 'static) {
        self.boxes.lock().unwrap().fate = Some(Box::new(fate));
    }

    pub fn waiting(&self, site: &str) -> usize {
        self.boxes.lock().unwrap().mail.get(site).map_or(0, BTreeMap::len)
    }

    pub fn delivered(&self) -> u64 {
        self.boxes.lock().unwrap().count
    }

    /// Everything that waits for a site, taken away.
    pub fn steal(&self, site: &str) -> Vec<Vec<u8>> {
        let mail = self.boxes.lock().unwrap().mail.remove(site);
        mail.unwrap_or_default().into_values().collect()
    }

    pub fn put(&self, site: &str, bytes: Vec<u8>) {
        let mut boxes = self.boxes.lock().unwrap();
        boxes.count += 1;
        let number = boxes.count;
        boxes
            .mail
            .entry(site.to_owned())
            .or_default()
            .insert(format!("put-{number}"), bytes);
    }

    pub fn end(&self, own: &str) -> Arc<dyn Link> {
        Arc::new(End {
            net: self.clone(),
            own: own.to_owned(),
        })
    }
}

struct End {
    net: Net,
    own: String,
}

impl Link for End {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let mut boxes = self.net.boxes.lock().unwrap();
            boxes.count += 1;
            let number = boxes.count;
            let times = boxes.fate.as_mut().map_or(1, |fate| fate(number));
            if times == CUT {
                return Err(LinkError::unreachable("memory://", "it is cut"));
            }
            let mail = boxes.mail.entry(to.to_string()).or_default();
            for copy in 0..times {
                // Names are no order: a bit mixer makes them look random.
                let mixed = (number * 8 + copy as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mail.insert(format!("{mixed:016x}"), message.to_vec());
            }
            Ok(())
        })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move {
            let boxes = self.net.boxes.lock().unwrap();
            let mail = boxes.mail.get(&self.own);
            let fits = |id: &str| !request.skip.contains(&MessageId::new(id));
            let all = mail.into_iter().flatten().filter(|(id, _)| fits(id));
            let messages = all.map(|(id, bytes)| Incoming {
                id: MessageId::new(id.as_str()),
                bytes: bytes.clone(),
            });
            Ok(Batch {
                messages: messages.collect(),
                next: None,
            })
        })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let mut boxes = self.net.boxes.lock().unwrap();
            if let Some(mail) = boxes.mail.get_mut(&self.own) {
                ids.iter().for_each(|id| drop(mail.remove(id.as_str())));
            }
            Ok(())
        })
    }

    fn address(&self) -> String {
        "memory://".to_owned()
    }
}

/// One site: a store in a temporary directory and the phases over it, each opened anew for every call,
/// so that nothing but the store's files carries over.
pub struct Site {
    pub store: Store,
    pub net: Net,
    pub runtime: Arc<Runtime>,
    pub message_bytes: u64,
    /// `-u`
    pub only_backed_up: bool,
    pub root: PathBuf,
}

pub fn options() -> Options {
    Options::new().segment_bytes(1 << 20)
}

impl Site {
    pub fn new(dir: &Path, site: &str, net: &Net) -> Site {
        Site::with(options(), dir, site, net)
    }

    pub fn with(options: Options, dir: &Path, site: &str, net: &Net) -> Site {
        let root = dir.join(site);
        let store = options.init(&root, name(site)).unwrap();
        let runtime = Arc::new(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        );
        Site {
            store,
            net: net.clone(),
            runtime,
            message_bytes: 50_000,
            only_backed_up: false,
            root,
        }
    }

    /// A site with a store that was made elsewhere, on the network of another one.
    pub fn like(&self, store: Store) -> Site {
        Site {
            root: store.root().to_owned(),
            store,
            net: self.net.clone(),
            runtime: self.runtime.clone(),
            message_bytes: 50_000,
            only_backed_up: false,
        }
    }

    pub fn definitions(&self) -> Definitions<'_> {
        Definitions::new(&self.store)
    }

    pub fn publish(&self, publication: &str, pattern: &str, by: Option<SubscribeBy>) {
        let new = NewPublication::new(publication, &[pattern.to_owned()], &[], by);
        self.definitions().add_publication(new, false).unwrap();
    }

    pub fn remote(&self, site: &str) {
        let new = NewRemote {
            site: name(site),
            links: vec!["memory://".to_owned()],
            schedule: Schedule::EverySeconds(1),
            consolidated: false,
            on_error: Default::default(),
            limits: Default::default(),
        };
        self.definitions().add_remote(new, false).unwrap();
    }

    pub fn subscribe(
        &self,
        remote: &str,
        publication: &str,
        value: Option<&str>,
        start: Start,
    ) -> Subscription {
        let new = NewSubscription {
            remote: name(remote),
            publication: publication.to_owned(),
            value: value.map(str::to_owned),
            start,
        };
        self.definitions().add_subscription(new).unwrap()
    }

    pub fn unsubscribe(&self, subscription: &Subscription, revoke: bool) {
        self.definitions()
            .remove_subscription(subscription.id, revoke)
            .unwrap();
    }

    pub fn commit(&self, events: &[(&str, &str)]) -> Lsn {
        let mut transaction = Transaction::new();
        for (stream, payload) in events {
            transaction
                .push(&Event::new(stream, "k", payload.as_bytes()).unwrap())
                .unwrap();
        }
        self.store.commit(transaction).unwrap().committed().unwrap().lsn
    }

    pub fn links(&self, stop: &Stop) -> Links {
        let (net, own) = (self.net.clone(), self.store.site().to_string());
        Links::new(
            Box::new(move |_| Ok(net.end(&own))),
            &[],
            self.runtime.handle().clone(),
            stop.clone(),
        )
    }

    pub fn scan(&self) {
        let mut scan = ScanPhase::open(&self.store).unwrap();
        scan.catch_up(&Stop::new()).unwrap();
        scan.sync().unwrap();
    }

    pub fn send_phase(&self) -> SendPhase {
        let stop = Stop::new();
        let options = SendOptions {
            message_bytes: self.message_bytes,
            urgency: Duration::ZERO,
            send_every: Duration::from_secs(60),
            only_backed_up: self.only_backed_up,
        };
        SendPhase::open(&self.store, &self.links(&stop), options, &stop).unwrap()
    }

    pub fn send(&self) -> Sent {
        self.send_phase().round(Serve::Everybody).unwrap()
    }

    pub fn receive_options(&self) -> ReceiveOptions {
        ReceiveOptions {
            group: 20,
            memory: 1 << 20,
            keep: false,
            apply: true,
            patience: Patience::NONE,
        }
    }

    pub fn receive_phase(&self) -> ReceivePhase {
        let stop = Stop::new();
        ReceivePhase::open(&self.store, &self.links(&stop), self.receive_options(), &stop).unwrap()
    }

    pub fn receive(&self) -> Received {
        self.receive_phase().poll(PollCause::Due).unwrap()
    }

    /// Receive, scan, send: what `agent -b` does.
    pub fn turn(&self) {
        self.receive();
        self.scan();
        self.send();
    }

    /// Every transaction of the log: origin (site, LSN there) and its events.
    pub fn transactions(&self) -> Vec<Recorded> {
        let mut scan = self.store.scan(Lsn::ZERO).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = scan.next().unwrap() {
            if frame.event_count() == 0 {
                continue;
            }
            let origin = frame
                .origin()
                .unwrap()
                .map(|origin| (origin.name.to_owned(), origin.lsn.0));
            let events = frame.events().map(|event| {
                let event = event.unwrap();
                let payload = String::from_utf8(event.payload.to_vec()).unwrap();
                (event.ordinal, event.stream().unwrap().to_owned(), payload)
            });
            found.push(Recorded {
                origin: origin.unwrap_or_else(|| (self.store.site().to_string(), frame.lsn().0)),
                via: frame.via().unwrap().map(|via| via.name.to_owned()),
                events: events.collect(),
            });
        }
        found
    }

    /// Transactions that came from elsewhere, in the order they were applied.
    pub fn received(&self) -> Vec<Recorded> {
        self.transactions()
            .into_iter()
            .filter(|transaction| transaction.via.is_some())
            .collect()
    }

    /// Payloads of what came from elsewhere, in order.
    pub fn payloads(&self) -> Vec<String> {
        self.received()
            .into_iter()
            .flat_map(|one| one.events.into_iter().map(|(_, _, payload)| payload))
            .collect()
    }
}

/// Head office, and a shop that is due everything; messages are as small as they may be.
pub fn in_small_messages(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (mut head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.message_bytes = 10_000;
    subscribed(&head, &shop);
    (dir, head, shop)
}

/// The shop is due everything.
pub fn subscribed(head: &Site, shop: &Site) {
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
}

/// Text that does not compress to little.
pub fn large(bytes: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..bytes).map(|_| next()).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub origin: (String, u64),
    pub via: Option<String>,
    pub events: Vec<(u32, String, String)>,
}

/// Copies a closed store.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Closes a site, does something with its folder, and opens it again.
pub fn closed(site: Site, work: impl FnOnce(&Path)) -> Site {
    let (root, net, runtime) = (site.root.clone(), site.net.clone(), site.runtime.clone());
    let (message_bytes, only_backed_up) = (site.message_bytes, site.only_backed_up);
    site.store.close().unwrap();
    work(&root);
    let store = options().open(&root).unwrap();
    Site {
        store,
        net,
        runtime,
        message_bytes,
        only_backed_up,
        root,
    }
}

/// Puts a closed site back to a copy that was made before.
pub fn put_back(site: Site, from: &Path) -> Site {
    closed(site, |root| {
        std::fs::remove_dir_all(root).unwrap();
        copy(from, root);
    })
}

/// No (origin, ordinal) twice.
pub fn assert_nothing_doubled(site: &Site) {
    let mut seen = BTreeSet::new();
    for transaction in site.transactions() {
        for (ordinal, _, _) in &transaction.events {
            let key = (transaction.origin.clone(), *ordinal);
            assert!(
                seen.insert(key.clone()),
                "{key:?} is twice in {}",
                site.store.site()
            );
        }
    }
}

pub fn batch(receive: bool, scan: bool, send: bool) -> AgentOptions {
    AgentOptions {
        batch: true,
        phases: Phases::of(receive, scan, send),
        ..AgentOptions::default()
    }
}

pub fn quick(receive: bool, scan: bool, send: bool) -> AgentOptions {
    let (every, phases) = (Duration::from_millis(20), Phases::of(receive, scan, send));
    AgentOptions {
        phases,
        receive_every: every,
        send_every: every,
        ..AgentOptions::default()
    }
}

pub fn run_here(site: &Site, options: &AgentOptions, stop: &Stop) -> Exit {
    run_on(&site.store, &site.links(stop), options, stop)
}

/// Asks until it is true; a test that never gets there says so after a minute.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Lets the agents of a test leave also when the test fails, so that it fails and does not hang.
pub struct Leave<'a>(pub &'a Stop);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}
