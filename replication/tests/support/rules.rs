//! An application that vetoes by a word, and a pair of sites that it rules over.

use std::sync::{Arc, Mutex};

use milepost_engine::{Error, Lsn, Phase};
use milepost_replication::agent::Stop;
use milepost_replication::catalog::{NewRemote, OnError, Schedule, Start};
use milepost_replication::hooks::{
    Applied, Hooks, MessageMissing, MessageSent, Offered, Ruling, SharedHooks,
};
use milepost_replication::quarantine::{HeldTransaction, QUARANTINE_HOLD};
use milepost_replication::receive::{ReceiveOptions, ReceivePhase, Received};
use milepost_replication::send::Serve;
use milepost_replication::status::{RemoteStatus, status};
use milepost_replication::tracking::PollCause;

use super::{Net, Site, name};

/// Vetoes every transaction with a payload that holds this word, and writes down what it is told.
#[derive(Default)]
pub struct Rules {
    pub word: Mutex<Option<&'static str>>,
    pub fails: Mutex<bool>,
    pub told: Mutex<Vec<String>>,
}

impl Rules {
    pub fn veto(word: &'static str) -> Arc<Rules> {
        let rules = Rules::default();
        *rules.word.lock().unwrap() = Some(word);
        Arc::new(rules)
    }

    pub fn tell(&self, line: String) {
        self.told.lock().unwrap().push(line);
    }

    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl Hooks for Rules {
    fn phase_began(&self, phase: Phase) {
        self.tell(format!("{} began", phase.name()));
    }

    fn phase_ended(&self, phase: Phase) {
        self.tell(format!("{} ended", phase.name()));
    }

    fn message_sent(&self, sent: &MessageSent<'_>) {
        self.tell(format!("sent {} to {}", sent.transactions, sent.to));
    }

    fn message_missing(&self, missing: &MessageMissing<'_>) {
        self.tell(format!("missing of {}", missing.from));
    }

    fn before_apply(&self, offered: &Offered<'_>) -> milepost_engine::Result<Ruling> {
        let mut payloads = Vec::new();
        for event in offered.events.clone() {
            payloads.push(String::from_utf8(event?.payload.to_vec()).unwrap());
        }
        self.tell(format!("before {}", payloads.join(" ")));
        if *self.fails.lock().unwrap() {
            return Err(Error::internal("the rules are closed"));
        }
        let bad = |payload: &String| {
            self.word
                .lock()
                .unwrap()
                .is_some_and(|word| payload.contains(word))
        };
        Ok(match payloads.iter().find(|payload| bad(payload)) {
            Some(payload) => Ruling::Veto(format!("no {payload} here")),
            None => Ruling::Apply,
        })
    }

    fn after_apply(&self, applied: &Applied) {
        self.tell(format!("after {} of {}", applied.events, applied.remote));
    }
}

/// `head` publishes everything to `shop`, which has this policy.
pub fn sites(net: &Net, on_error: OnError) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.publish("all", "**", None);
    head.remote("shop");
    add_remote(&shop, "head", on_error);
    head.subscribe("shop", "all", None, Start::Now);
    (dir, head, shop)
}

pub fn add_remote(shop: &Site, site: &str, on_error: OnError) {
    shop.definitions()
        .add_remote(remote(site, on_error), false)
        .unwrap();
}

pub fn add_policy(shop: &Site, on_error: OnError) {
    shop.definitions()
        .add_remote(remote("head", on_error), true)
        .unwrap();
}

pub fn remote(site: &str, on_error: OnError) -> NewRemote {
    NewRemote {
        site: name(site),
        links: vec!["memory://".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error,
        limits: Default::default(),
    }
}

pub fn shared(rules: &Arc<Rules>) -> SharedHooks {
    Some(Arc::clone(rules) as Arc<dyn Hooks>)
}

pub fn phase_with(site: &Site, rules: &Arc<Rules>, options: ReceiveOptions) -> ReceivePhase {
    let stop = Stop::new();
    let phase = ReceivePhase::open(&site.store, &site.links(&stop), options, &stop).unwrap();
    phase.with_hooks(shared(rules))
}

pub fn receive_with(site: &Site, rules: &Arc<Rules>) -> Received {
    let mut phase = phase_with(site, rules, site.receive_options());
    phase.poll(PollCause::Due).unwrap()
}

pub fn told_of(site: &Site) -> RemoteStatus {
    status(&site.store, &mut |_| ()).unwrap().remotes.remove(0)
}

pub fn ids(all: &[HeldTransaction]) -> Vec<Lsn> {
    all.iter().map(|one| one.id).collect()
}

pub fn has_hold(site: &Site) -> bool {
    site.store
        .holds()
        .unwrap()
        .iter()
        .any(|hold| hold.name == QUARANTINE_HOLD)
}

/// Each commit in a message of its own.
pub fn send_each(head: &Site, commits: &[&[(&str, &str)]]) {
    for events in commits {
        head.commit(events);
        head.scan();
        let mut sending = head.send_phase();
        sending.round(Serve::Everybody).unwrap();
        sending.remember().unwrap();
    }
}
