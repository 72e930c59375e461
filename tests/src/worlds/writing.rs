//! What writers commit: transactions whose events can be told from all others.

use milepost_engine::{Event, Transaction};

use super::chance::Chance;
use super::logged::Told;

/// Draws transactions.
pub struct Pen {
    pub chance: Chance,
    /// Counts events, so that each has its own payload.
    events: u64,
    /// Some transactions are large, so that queues are freed by whole segments.
    pub heavy: bool,
}

impl Pen {
    pub fn new(chance: Chance, heavy: bool) -> Pen {
        Pen {
            chance,
            events: 0,
            heavy,
        }
    }

    /// A transaction, as it is committed and as it is told.
    pub fn draw(&mut self) -> (Transaction, Vec<Told>) {
        let (mut transaction, mut told) = (Transaction::new(), Vec::new());
        let large = self.heavy && self.chance.percent(30);
        for _ in 0..1 + self.chance.below(3) {
            self.events += 1;
            let len = match (large, self.chance.percent(3)) {
                (true, _) => 150_000,
                (_, true) => 12_000,
                _ => 4,
            };
            let event = Told {
                stream: format!("{}/{}", self.chance.pick(&["x", "y"]), self.chance.below(3)),
                kind: self.chance.pick(&["k", "m"]).to_owned(),
                region: self
                    .chance
                    .pick(&[None, Some("n".to_owned()), Some("s".to_owned())]),
                payload: format!("{}:{}", self.events, self.chance.filler(len)),
            };
            let mut pushed = Event::new(&event.stream, &event.kind, event.payload.as_bytes()).unwrap();
            if let Some(region) = &event.region {
                pushed = pushed.header("region", region).unwrap();
            }
            transaction.push(&pushed).unwrap();
            told.push(event);
        }
        (transaction, told)
    }
}

/// A transaction in a trace.
pub fn spell(events: &[Told]) -> String {
    let one = |event: &Told| {
        let number = event.payload.split(':').next().unwrap_or_default();
        let region = event.region.as_deref().unwrap_or("-");
        let Told { stream, kind, .. } = event;
        format!("#{number} {stream} {kind} {region} ({} B)", event.payload.len())
    };
    events.iter().map(one).collect::<Vec<_>>().join(", ")
}
