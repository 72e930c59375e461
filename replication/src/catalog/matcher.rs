//! [`Matcher`]: which events are due under which topic, as fast as the scan reads.
//!
//! A [`Topic`] is a publication with one value of its subscribe-by (or none). The scan asks for every
//! event of every transaction, so what a stream's name decides is remembered per name; kinds and
//! header values are looked at per event. A matcher is made from the catalog as of a position and
//! made anew when a frame changes the catalog.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use milepost_engine::frame::EventRef;
use milepost_engine::{Lsn, Result, StreamPattern};

use super::{Catalog, Publication, SubscribeBy, Subscription};
use crate::planted::{self, Bug};

/// Most stream names remembered; beyond, the memory starts empty again.
const REMEMBERED_MAX: usize = 1 << 16;

/// What a subscription chooses: a publication and, where it asks for one, a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// Name of the publication.
    pub publication: String,
    /// The value chosen.
    pub value: Option<String>,
}

/// A topic within one matcher or queue entry.
pub type TopicId = usize;

/// Decides for events, as of one position of the catalog.
pub struct Matcher {
    publications: Vec<Compiled>,
    topics: Vec<Subscribed>,
    by_stream: HashMap<Box<[u8]>, Box<[Selected]>, RandomState>,
    /// Events that matched an article but carry no value to choose by.
    pub without_value: u64,
}

struct Compiled {
    articles: Vec<(StreamPattern, Vec<String>)>,
    by: Option<SubscribeBy>,
    topics: BTreeMap<Option<String>, TopicId>,
}

struct Subscribed {
    topic: Topic,
    subscriptions: Vec<Subscription>,
}

/// A publication that selects a stream, through these articles.
#[derive(Clone)]
struct Selected {
    publication: usize,
    articles: Vec<usize>,
}

impl Matcher {
    /// Compiles the publications that have subscriptions passing `wanted`.
    ///
    /// # Errors
    /// `Invalid` when a pattern breaks its rule.
    pub fn new(catalog: &Catalog, wanted: impl Fn(&Subscription) -> bool) -> Result<Matcher> {
        let mut matcher = Matcher {
            publications: Vec::new(),
            topics: Vec::new(),
            by_stream: HashMap::default(),
            without_value: 0,
        };
        for publication in catalog.publications() {
            let mut topics: BTreeMap<Option<String>, Vec<Subscription>> = BTreeMap::new();
            let wanted = |subscription: &&Subscription| {
                subscription.publication == publication.name && wanted(subscription)
            };
            for subscription in catalog.subscriptions().filter(wanted) {
                topics
                    .entry(subscription.value.clone())
                    .or_default()
                    .push(subscription.clone());
            }
            if !topics.is_empty() {
                matcher.compile(publication, topics)?;
            }
        }
        Ok(matcher)
    }

    fn compile(
        &mut self,
        publication: &Publication,
        topics: BTreeMap<Option<String>, Vec<Subscription>>,
    ) -> Result<()> {
        let article = |article: &super::Article| {
            Ok((
                StreamPattern::new(article.streams.as_str())?,
                article.kinds.clone(),
            ))
        };
        let articles = publication
            .articles
            .iter()
            .map(article)
            .collect::<Result<Vec<_>>>()?;
        let mut ids = BTreeMap::new();
        for (value, subscriptions) in topics {
            ids.insert(value.clone(), self.topics.len());
            let topic = Topic {
                publication: publication.name.clone(),
                value,
            };
            self.topics.push(Subscribed { topic, subscriptions });
        }
        self.publications.push(Compiled {
            articles,
            by: publication.by.clone(),
            topics: ids,
        });
        Ok(())
    }

    /// True when nothing can match.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.topics.is_empty()
    }

    /// A topic by id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id).map(|subscribed| &subscribed.topic)
    }

    /// Subscriptions to a topic that passed the filter of [`Matcher::new`].
    #[must_use]
    pub fn subscriptions(&self, id: TopicId) -> &[Subscription] {
        self.topics
            .get(id)
            .map_or(&[], |subscribed| &subscribed.subscriptions)
    }

    /// True when somebody other than the neighbour `via` is due a live transaction at `lsn` under the
    /// topic (R4).
    #[must_use]
    pub fn is_due_live(&self, id: TopicId, lsn: Lsn, via: Option<&str>) -> bool {
        let other = |subscription: &&Subscription| {
            via != Some(subscription.remote.as_str()) || planted::is(Bug::SendBack)
        };
        self.subscriptions(id)
            .iter()
            .filter(other)
            .any(|subscription| subscription.covers_live(lsn))
    }

    /// Adds to `found` the topics that the event belongs to, each once.
    ///
    /// # Errors
    /// `Corrupt` when the event's name, kind or headers cannot be read.
    pub fn topics_of(&mut self, event: &EventRef<'_>, found: &mut Vec<TopicId>) -> Result<()> {
        if !self.by_stream.contains_key(event.stream_bytes()) {
            self.remember(event)?;
        }
        let selected = self
            .by_stream
            .get(event.stream_bytes())
            .map_or(&[][..], |selected| selected);
        let mut without_value = 0;
        for Selected {
            publication,
            articles,
        } in selected
        {
            let Some(compiled) = self.publications.get(*publication) else {
                continue;
            };
            if !compiled.has_kind(articles, event.kind()?) {
                continue;
            }
            let topic = match &compiled.by {
                None => compiled.topics.get(&None),
                Some(by) => match by.value_of(event)? {
                    Some(value) => compiled.topics.get(&Some(value.to_owned())),
                    None => {
                        without_value += 1;
                        None
                    }
                },
            };
            found.extend(topic);
        }
        self.without_value += without_value;
        Ok(())
    }

    fn remember(&mut self, event: &EventRef<'_>) -> Result<()> {
        if self.by_stream.len() >= REMEMBERED_MAX {
            self.by_stream.clear();
        }
        let stream = event.stream()?;
        let select = |(publication, compiled): (usize, &Compiled)| {
            let matching = compiled
                .articles
                .iter()
                .enumerate()
                .filter(|(_, (pattern, _))| pattern.matches(stream));
            let articles: Vec<usize> = matching.map(|(number, _)| number).collect();
            (!articles.is_empty()).then_some(Selected {
                publication,
                articles,
            })
        };
        let selected = self.publications.iter().enumerate().filter_map(select).collect();
        self.by_stream.insert(event.stream_bytes().into(), selected);
        Ok(())
    }
}

impl Compiled {
    fn has_kind(&self, articles: &[usize], kind: &str) -> bool {
        let takes = |(_, kinds): &(StreamPattern, Vec<String>)| {
            kinds.is_empty() || kinds.iter().any(|one| one == kind)
        };
        articles
            .iter()
            .filter_map(|number| self.articles.get(*number))
            .any(takes)
    }
}
