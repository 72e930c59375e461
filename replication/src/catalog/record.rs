//! Pinned records of the catalog (docs/format.md, "Catalog").
//!
//! ```text
//! key    catalog/publication/<name> | catalog/remote/<site> | catalog/subscription/<16 hex digits>
//! value  version 1 (2 for a remote with a policy of its own, 3 with limits) | bincode of the record below; positions that are the frame's own are 0
//! ```
//!
//! A removed publication or remote keeps its key with an empty value inside, so that the catalog as
//! of an earlier position can still be found through `previous`.

use bincode::{Decode, Encode};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Error, ErrorKind, Lsn, Pinned, Result, SiteName, Store, codec};
use serde::Serializer;

use super::definitions::NewSubscription;
use super::{
    Article, OnError, Publication, Remote, RemoteLimits, Schedule, SubscribeBy, Subscription, SubscriptionId,
};

/// Kind of the frames that carry definitions; the kind before it is that of tracking's notes.
pub const CATALOG_FRAME: FrameKind = FrameKind(FrameKind::REPLICATION_FIRST + 1);

pub(super) const PREFIX: &[u8] = b"catalog/";
const PUBLICATION: &str = "catalog/publication/";
const REMOTE: &str = "catalog/remote/";
const SUBSCRIPTION: &str = "catalog/subscription/";
const VERSION: u16 = 1;
/// Of a remote that has a policy other than [`OnError::Stop`]: what older programs know stays as they know it.
const WITH_POLICY: u16 = 2;
/// Of a remote that has limits.
const WITH_LIMITS: u16 = 3;

/// A definition as of the frame that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    key: Vec<u8>,
    /// LSN of the frame.
    at: Lsn,
    /// LSN of the frame with the record before it under the same key; 0 for none.
    previous: Lsn,
    pub(super) definition: Definition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    Publication {
        name: String,
        value: Option<Publication>,
    },
    Remote {
        name: SiteName,
        value: Option<Remote>,
    },
    Subscription(Subscription),
}

#[derive(Encode, Decode)]
pub(super) struct PublicationBytes {
    pub previous: Lsn,
    pub version: u32,
    pub value: Option<(Vec<Article>, Option<SubscribeBy>)>,
}

#[derive(Encode, Decode)]
pub(super) struct RemoteBytes {
    pub previous: Lsn,
    pub generation: u32,
    /// 0: the frame's own LSN.
    pub added: Lsn,
    pub value: Option<(Vec<String>, Schedule, bool)>,
}

#[derive(Encode, Decode)]
pub(super) struct SubscriptionBytes {
    pub previous: Lsn,
    /// 0: the frame's own LSN.
    pub id: Lsn,
    pub remote: String,
    pub publication: String,
    pub value: Option<String>,
    /// `None`: the id.
    pub from: Option<Lsn>,
    pub end: End,
    /// Where it ended; `None` when it has not, or at the frame's own LSN.
    pub until: Option<Lsn>,
}

impl SubscriptionBytes {
    /// One that begins, with the log from `from` on.
    pub(super) fn begun(new: &NewSubscription, from: Option<Lsn>) -> SubscriptionBytes {
        SubscriptionBytes {
            previous: Lsn::ZERO,
            id: Lsn::ZERO,
            remote: new.remote.to_string(),
            publication: new.publication.clone(),
            value: new.value.clone(),
            from,
            end: End::Open,
            until: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// Earlier commits still go.
    Ended,
    /// What is unsent is dropped.
    Revoked,
}

impl Record {
    /// Reads a record found in the frame at `at`.
    pub(super) fn decode(key: &[u8], value: &[u8], at: Lsn) -> Result<Record> {
        let bad = |why: &str| {
            let key = String::from_utf8_lossy(key);
            Error::corrupt(format!("the definition {key} {why}")).at_lsn(at)
        };
        let name = std::str::from_utf8(key).map_err(|_| bad("has a key that is not UTF-8"))?;
        let (previous, definition) = if let Some(name) = name.strip_prefix(PUBLICATION) {
            publication(name, body(value, at)?, at)
        } else if let Some(name) = name.strip_prefix(REMOTE) {
            remote(SiteName::new(name)?, remote_body(value, at)?, at)
        } else if name.starts_with(SUBSCRIPTION) {
            let (previous, found) = subscription(body(value, at)?, at)?;
            (previous, Definition::Subscription(found))
        } else {
            return Err(bad("is of a kind that this program does not know"));
        };
        Ok(Record {
            key: key.to_vec(),
            at,
            previous,
            definition,
        })
    }

    /// The record under the same key that was in force behind `lsn`; `None` when there was none.
    pub(super) fn back_to(self, store: &Store, lsn: Lsn) -> Result<Option<Record>> {
        let mut record = self;
        while record.at > lsn {
            if record.previous == Lsn::ZERO {
                return Ok(None);
            }
            let earlier = match read_at(store, &record.key, record.previous) {
                Err(error) if error.kind() == ErrorKind::Behind => {
                    when_freed(store, &record.key, lsn)?.ok_or(error)?
                }
                other => other?,
            };
            if earlier.at >= record.at {
                return Err(
                    Error::corrupt("a definition names a later one as its predecessor").at_lsn(record.at),
                );
            }
            record = earlier;
        }
        Ok(Some(record))
    }
}

/// The record in a pinned value, once its version is known.
///
/// # Errors
/// `Corrupt` for another version or bytes that are no record.
pub(super) fn body<T: Decode<()>>(value: &[u8], at: Lsn) -> Result<T> {
    match versioned(value, at)? {
        (VERSION, body) => decoded(body, at),
        (version, _) => Err(of_version(version, at)),
    }
}

/// As [`body`], of a remote: with its policy and limits.
///
/// # Errors
/// As [`body`].
pub(super) fn remote_body(value: &[u8], at: Lsn) -> Result<(RemoteBytes, OnError, RemoteLimits)> {
    match versioned(value, at)? {
        (VERSION, body) => Ok((decoded(body, at)?, OnError::Stop, RemoteLimits::default())),
        (WITH_POLICY, body) => {
            let (bytes, on_error) = decoded(body, at)?;
            Ok((bytes, on_error, RemoteLimits::default()))
        }
        (WITH_LIMITS, body) => decoded(body, at),
        (version, _) => Err(of_version(version, at)),
    }
}

fn versioned(value: &[u8], at: Lsn) -> Result<(u16, &[u8])> {
    let (version, body) = value
        .split_first_chunk::<2>()
        .ok_or_else(|| Error::corrupt("a definition has no version").at_lsn(at))?;
    Ok((u16::from_le_bytes(*version), body))
}

fn decoded<T: Decode<()>>(body: &[u8], at: Lsn) -> Result<T> {
    codec::decode(body).map_err(|error| {
        Error::corrupt("a definition cannot be read")
            .at_lsn(at)
            .caused_by(error)
    })
}

fn of_version(version: u16, at: Lsn) -> Error {
    let text = format!(
        "a definition is of version {version}; this program reads version {VERSION}, and of remotes {WITH_POLICY} and {WITH_LIMITS} too"
    );
    Error::corrupt(text).at_lsn(at)
}

/// The record under a key that was in force where the log begins, if it was at `lsn` too.
fn when_freed(store: &Store, key: &[u8], lsn: Lsn) -> Result<Option<Record>> {
    let kept = store.pinned_when_freed(key)?;
    let own = kept.into_iter().find(|(known, _, at)| known == key && *at <= lsn);
    own.map(|(key, value, at)| Record::decode(&key, &value, at))
        .transpose()
}

fn read_at(store: &Store, key: &[u8], at: Lsn) -> Result<Record> {
    let missing = || Error::corrupt("a definition names a predecessor that is not there").at_lsn(at);
    let mut scan = store.scan(Lsn(at.0.saturating_sub(1)))?;
    let frame = scan
        .next()?
        .filter(|frame| frame.lsn() == at)
        .ok_or_else(missing)?;
    let found = frame.pinned()?.into_iter().rfind(|pinned| pinned.key == key);
    Record::decode(
        key,
        found.and_then(|pinned| pinned.value).ok_or_else(missing)?,
        at,
    )
}

fn publication(name: &str, bytes: PublicationBytes, at: Lsn) -> (Lsn, Definition) {
    let value = bytes.value.map(|(articles, by)| {
        let (name, version) = (name.to_owned(), bytes.version);
        Publication {
            name,
            version,
            since: at,
            articles,
            by,
        }
    });
    (
        bytes.previous,
        Definition::Publication {
            name: name.to_owned(),
            value,
        },
    )
}

fn remote(
    name: SiteName,
    (bytes, on_error, limits): (RemoteBytes, OnError, RemoteLimits),
    at: Lsn,
) -> (Lsn, Definition) {
    let value = bytes.value.map(|(links, schedule, consolidated)| {
        let added = if bytes.added == Lsn::ZERO { at } else { bytes.added };
        let (site, generation) = (name.clone(), bytes.generation);
        Remote {
            site,
            since: at,
            added,
            generation,
            links,
            schedule,
            consolidated,
            on_error,
            limits,
        }
    });
    (bytes.previous, Definition::Remote { name, value })
}

fn subscription(bytes: SubscriptionBytes, at: Lsn) -> Result<(Lsn, Subscription)> {
    let id = if bytes.id == Lsn::ZERO { at } else { bytes.id };
    let found = Subscription {
        id: SubscriptionId(id.0),
        remote: SiteName::new(bytes.remote)?,
        publication: bytes.publication,
        value: bytes.value,
        from: bytes.from.unwrap_or(id),
        until: (bytes.end != End::Open).then_some(bytes.until.unwrap_or(at)),
        revoked: (bytes.end == End::Revoked).then_some(at),
    };
    if found.from > id || found.until.is_some_and(|until| until < id) || id > at {
        return Err(Error::corrupt("a subscription ends before it begins").at_lsn(at));
    }
    Ok((bytes.previous, found))
}

/// The key of a publication.
pub(super) fn publication_key(name: &str) -> Vec<u8> {
    format!("{PUBLICATION}{name}").into_bytes()
}

/// The key of a remote.
/// Where the definition of a remote stands, if it is there: at another LSN once it is changed.
///
/// # Errors
/// Those of the log.
pub(crate) fn definition_of(store: &Store, site: &SiteName) -> Result<Option<Lsn>> {
    Ok(store.pinned(&remote_key(site))?.map(|(_, at)| at))
}

pub(super) fn remote_key(site: &SiteName) -> Vec<u8> {
    format!("{REMOTE}{site}").into_bytes()
}

/// The key of a subscription, from a random word: two commands at once never share one.
pub(super) fn subscription_key(word: u64) -> Vec<u8> {
    format!("{SUBSCRIPTION}{word:016x}").into_bytes()
}

/// Prefix of the keys of all subscriptions.
pub(super) fn subscription_prefix() -> &'static [u8] {
    SUBSCRIPTION.as_bytes()
}

/// A frame that carries one definition.
pub(super) fn frame<T: Encode>(key: Vec<u8>, value: &T) -> Result<NewFrame> {
    frame_of(VERSION, key, value)
}

/// A frame that carries the definition of a remote.
pub(super) fn remote_frame(
    site: &SiteName,
    bytes: RemoteBytes,
    on_error: OnError,
    limits: RemoteLimits,
) -> Result<NewFrame> {
    let key = remote_key(site);
    if !limits.is_none() {
        return frame_of(WITH_LIMITS, key, &(bytes, on_error, limits));
    }
    match on_error {
        OnError::Stop => frame_of(VERSION, key, &bytes),
        OnError::GoOn => frame_of(WITH_POLICY, key, &(bytes, on_error)),
    }
}

fn frame_of<T: Encode>(version: u16, key: Vec<u8>, value: &T) -> Result<NewFrame> {
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(codec::encode(value)?);
    let mut frame = NewFrame::of_kind(CATALOG_FRAME, Vec::new());
    frame.pin(Pinned {
        key,
        value: Some(bytes),
    });
    Ok(frame)
}

pub(crate) fn lsn_as_number<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(lsn.0)
}

pub(crate) fn lsn_as_number_if_any<S: Serializer>(
    lsn: &Option<Lsn>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match lsn {
        Some(lsn) => serializer.serialize_some(&lsn.0),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn is_some<S: Serializer, T>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(value.is_some())
}

pub(crate) fn site_as_text<S: Serializer>(site: &SiteName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(site.as_str())
}
