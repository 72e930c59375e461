//! [`Wire`]: the links of all sites in memory. Loses, repeats, delays, reorders, damages and refuses, as drawn;
//! and remembers how far each site has ever sent to each other, by the generation it said.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::SiteName;
use milepost_engine::clock::{Clock, Rng};
use milepost_replication::link::{
    Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest,
};
use milepost_replication::message::{Limits, Place, decode_header};

use super::chance::{Chance, Time};

/// What goes wrong, in percent of the messages (`refuse`: of the calls).
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lose: u64,
    pub repeat: u64,
    pub delay: u64,
    pub damage: u64,
    pub refuse: u64,
}

/// Shared by all ends.
#[derive(Clone)]
pub struct Wire {
    held: Arc<Mutex<Held>>,
    chance: Chance,
    time: Time,
}

#[derive(Default)]
struct Held {
    weather: Weather,
    /// By addressee and id. Ids are drawn, so their order means nothing.
    mail: BTreeMap<String, BTreeMap<String, Parcel>>,
    /// By sender, addressee and generation: the furthest place that any message ended at.
    sent: BTreeMap<(String, String, u32), Place>,
    messages: u64,
    /// Those that carry nothing and neither ask nor answer.
    bare: u64,
}

impl Held {
    fn note(&mut self, from: &str, to: &str, message: &[u8]) {
        self.messages += 1;
        // What cannot be read its addressee complains of.
        let Ok(header) = decode_header(message, &Limits::default()) else {
            return;
        };
        let talks = header.requests.is_some() || header.probe.is_some() || header.answer.is_some();
        self.bare += u64::from(header.previous == header.last && !talks);
        let sent = self
            .sent
            .entry((from.to_owned(), to.to_owned(), header.generation))
            .or_default();
        *sent = header.last.place().max(*sent);
    }
}

struct Parcel {
    from: String,
    bytes: Vec<u8>,
    ripe_at: Duration,
}

impl Wire {
    pub fn new(chance: Chance, time: Time) -> Wire {
        Wire {
            held: Arc::default(),
            chance,
            time,
        }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.held.lock().unwrap().weather = weather;
    }

    pub fn messages(&self) -> u64 {
        self.held.lock().unwrap().messages
    }

    pub fn bare(&self) -> u64 {
        self.held.lock().unwrap().bare
    }

    /// The furthest place of `from`'s log that it has put on the link for `to` under this generation or a later.
    pub fn sent(&self, from: &str, to: &str, since: u32) -> Place {
        let held = self.held.lock().unwrap();
        let own = held
            .sent
            .iter()
            .filter(|((a, b, generation), _)| a == from && b == to && *generation >= since);
        own.map(|(_, place)| *place).max().unwrap_or_default()
    }

    /// Notes what goes over another link.
    pub fn note(&self, from: &str, to: &str, message: &[u8]) {
        self.held.lock().unwrap().note(from, to, message);
    }

    /// What a site has put on the link, and is not taken yet, is lost.
    pub fn lose_from(&self, from: &str) {
        let mut held = self.held.lock().unwrap();
        for mail in held.mail.values_mut() {
            mail.retain(|_, parcel| parcel.from != from);
        }
    }

    pub fn end(&self, own: &str) -> Arc<dyn Link> {
        Arc::new(End {
            wire: self.clone(),
            own: own.to_owned(),
        })
    }

    fn put(&self, from: &str, to: &str, message: &[u8]) -> Result<(), LinkError> {
        let mut held = self.held.lock().unwrap();
        let (weather, chance) = (held.weather, &self.chance);
        let refused = Err(LinkError::not_now("wire", "drawn"));
        if chance.percent(weather.refuse) {
            return refused;
        }
        held.note(from, to, message);
        let copies = match () {
            () if chance.percent(weather.lose) => 0,
            () if chance.percent(weather.repeat) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let mut bytes = message.to_vec();
            if chance.percent(weather.damage) {
                let at = chance.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << chance.below(8);
            }
            let longest = if chance.percent(weather.delay) {
                chance.pick(&[5, 60, 600])
            } else {
                1
            };
            let ripe_at = self.time.monotonic() + Duration::from_secs(chance.below(longest));
            let mail = held.mail.entry(to.to_owned()).or_default();
            let from = from.to_owned();
            let parcel = Parcel { from, bytes, ripe_at };
            mail.insert(format!("{:016x}", chance.next_u64()), parcel);
        }
        // It is there, and the sender is told that it is not.
        if chance.percent(weather.refuse) {
            refused
        } else {
            Ok(())
        }
    }

    fn batch(&self, own: &str, request: PollRequest<'_>) -> Batch {
        let held = self.held.lock().unwrap();
        let now = self.time.monotonic();
        let after = request.after.map_or(Bound::Unbounded, |after| {
            Bound::Excluded(after.as_str().to_owned())
        });
        let most = request.max_count.min(3 + self.chance.below(30) as usize);
        let mail = held.mail.get(own);
        let waiting = mail
            .into_iter()
            .flat_map(|mail| mail.range::<String, _>((after.clone(), Bound::Unbounded)));
        let mut ready = waiting.filter(|(id, parcel)| {
            parcel.ripe_at <= now && !request.skip.contains(&MessageId::new(id.as_str()))
        });
        let mut batch = Batch::default();
        let mut last = None;
        for (id, parcel) in ready.by_ref().take(most) {
            last = Some(PollCursor::new(id.as_str()));
            batch.messages.push(Incoming {
                id: MessageId::new(id.as_str()),
                bytes: parcel.bytes.clone(),
            });
        }
        batch.next = last.filter(|_| ready.next().is_some());
        batch
    }
}

struct End {
    wire: Wire,
    own: String,
}

impl Link for End {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move { self.wire.put(&self.own, to.as_str(), message) })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move { Ok(self.wire.batch(&self.own, request)) })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let mut held = self.wire.held.lock().unwrap();
            if self.wire.chance.percent(held.weather.refuse) {
                return Err(LinkError::not_now("wire", "drawn"));
            }
            if let Some(mail) = held.mail.get_mut(&self.own) {
                ids.iter().for_each(|id| drop(mail.remove(id.as_str())));
            }
            Ok(())
        })
    }

    fn address(&self) -> String {
        "memory://".to_owned()
    }
}
