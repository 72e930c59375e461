//! [`Shape`]: how a line becomes a transaction.

use std::collections::BTreeMap;

use milepost_engine::Transaction;
use serde_json::value::RawValue;

use super::time::{self, TimeUnit};
use crate::record::ImportedLine;

/// Members of an object, each value as it stands in the line.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Which of the two shapes the lines have.
pub enum Shape {
    /// The lines of `export`.
    Exported,
    /// Anybody's history.
    History(History),
}

/// Where an object of somebody else's making says what we have to know.
pub struct History {
    /// Where the events of a line are.
    pub events: EventsAt,
    /// Field of each event that names its stream.
    pub stream_field: String,
    /// What stands before that name.
    pub stream_prefix: String,
    /// Field of the line that says when it was committed, and what a number there counts.
    pub time: Option<(String, Option<TimeUnit>)>,
    /// Kind of all events.
    pub kind: String,
}

/// Where the events of a line are.
pub enum EventsAt {
    /// In the list of this field, one an element.
    List(String),
    /// The line itself is the one event.
    Line,
}

impl Shape {
    /// The transaction that a line is.
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn read(&self, line: &str) -> Result<Transaction, String> {
        match self {
            Shape::Exported => exported(line),
            Shape::History(history) => history.read(line),
        }
    }
}

impl History {
    fn read(&self, line: &str) -> Result<Transaction, String> {
        // As a value, the line loses its outer blanks.
        let line: &RawValue = serde_json::from_str(line).map_err(|error| not_json(&error))?;
        let members: Members<'_> = serde_json::from_str(line.get()).map_err(|error| not_json(&error))?;
        let mut transaction = Transaction::new();
        match &self.events {
            EventsAt::Line => self.push(&mut transaction, line, &members)?,
            EventsAt::List(field) => {
                for (at, element) in self.list(&members, field)?.into_iter().enumerate() {
                    let members: Members<'_> = serde_json::from_str(element.get())
                        .map_err(|_| format!("event {at} is not an object"))?;
                    let pushed = self.push(&mut transaction, element, &members);
                    pushed.map_err(|reason| format!("event {at}: {reason}"))?;
                }
            }
        }
        if let Some((field, unit)) = &self.time {
            let value = member(&members, field).ok_or_else(|| format!("has no field {field:?}"))?;
            let micros = time::read(value, *unit);
            transaction.set_committed_at(micros.map_err(|reason| format!("field {field:?}: {reason}"))?);
        }
        Ok(transaction)
    }

    fn list<'a>(&self, members: &Members<'a>, field: &str) -> Result<Vec<&'a RawValue>, String> {
        let Some(list) = member(members, field) else {
            let hint = match member(members, &self.stream_field) {
                Some(_) => format!(
                    ", but {:?}: if each line is one event, import with --flat",
                    self.stream_field
                ),
                None => String::new(),
            };
            return Err(format!("has no field {field:?}{hint}"));
        };
        serde_json::from_str(list.get()).map_err(|_| format!("field {field:?} is not a list"))
    }

    fn push(
        &self,
        transaction: &mut Transaction,
        event: &RawValue,
        members: &Members<'_>,
    ) -> Result<(), String> {
        let field = &self.stream_field;
        let value = member(members, field).ok_or_else(|| format!("has no field {field:?}"))?;
        let name = stream_name(value)
            .ok_or_else(|| format!("field {field:?} is not a text, a number or true or false"))?;
        let stream = format!("{}{name}", self.stream_prefix);
        let pushed = transaction.push_parts(&stream, &self.kind, event.get().as_bytes());
        pushed.map_err(|error| error.to_string())
    }
}

fn exported(line: &str) -> Result<Transaction, String> {
    let line: ImportedLine<'_> = serde_json::from_str(line).map_err(|error| not_exported(&error))?;
    let mut transaction = Transaction::new();
    for (at, event) in line.events.iter().enumerate() {
        let event = event
            .to_event()
            .map_err(|reason| format!("event {at}: {reason}"))?;
        transaction
            .push(&event)
            .map_err(|error| format!("event {at}: {error}"))?;
    }
    if let Some(value) = line.time {
        let micros = time::read_exported(value);
        transaction.set_committed_at(micros.map_err(|reason| format!("field \"time\": {reason}"))?);
    }
    Ok(transaction)
}

/// The member of this name, or else the one that the name's parts between dots lead to.
fn member<'a>(members: &Members<'a>, field: &str) -> Option<&'a RawValue> {
    if let Some(found) = members.get(field) {
        return Some(found);
    }
    field.match_indices('.').find_map(|(at, _)| {
        let (outer, inner) = (field.get(..at)?, field.get(at + 1..)?);
        let nested: Members<'a> = serde_json::from_str(members.get(outer)?.get()).ok()?;
        member(&nested, inner)
    })
}

/// A text without its quotes and escapes; a number or a truth value as it stands.
fn stream_name(value: &RawValue) -> Option<String> {
    let text = value.get();
    match text.chars().next()? {
        '"' => serde_json::from_str(text).ok(),
        '{' | '[' | 'n' => None,
        _ => Some(text.to_owned()),
    }
}

/// The parser's own words, without its line number, which would contradict ours.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let words = text.split(" at line ").next().unwrap_or_default();
    match error.column() {
        0 => words.to_owned(),
        column => format!("{words}, column {column}"),
    }
}

/// A line that is JSON and not of `export` is most likely somebody's history.
fn not_exported(error: &serde_json::Error) -> String {
    let hint = if error.is_data() {
        "; lines that `milepost export` did not write need --stream-field"
    } else {
        ""
    };
    format!("{}{hint}", not_json(error))
}

#[cfg(test)]
mod tests {
    use milepost_engine::{Lsn, frame};

    use super::*;

    fn history(events: EventsAt) -> History {
        History {
            events,
            stream_field: "path".into(),
            stream_prefix: String::new(),
            time: None,
            kind: "changed".into(),
        }
    }

    fn tokio() -> Shape {
        Shape::History(history(EventsAt::List("events".into())))
    }

    /// Streams and payloads of a line.
    fn events(history: History, line: &str) -> Vec<(String, String)> {
        let transaction = Shape::History(history).read(line).unwrap();
        let (body, _) = transaction.into_parts();
        let mut events = Vec::new();
        for event in frame::Events::new(&body.body(), body.event_count(), Lsn::ZERO) {
            let event = event.unwrap();
            let payload = String::from_utf8(event.payload.to_vec()).unwrap();
            events.push((event.stream().unwrap().to_owned(), payload));
        }
        events
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_and_nothing_comes_of_it() {
        let cases = [
            ("{", "EOF while parsing an object, column 1"),
            ("[]", "invalid type"),
            ("{}", "has no field \"events\""),
            (r#"{"events":{}}"#, "field \"events\" is not a list"),
            (r#"{"events":[1]}"#, "event 0 is not an object"),
            (
                r#"{"events":[{"path":"a"},{"Path":"b"}]}"#,
                "event 1: has no field \"path\"",
            ),
            (
                r#"{"events":[{"path":null}]}"#,
                "event 0: field \"path\" is not a text",
            ),
            (
                r#"{"events":[{"path":["a"]}]}"#,
                "event 0: field \"path\" is not a text",
            ),
            (r#"{"events":[{"path":""}]}"#, "event 0: stream name"),
            (r#"{"events":[]} {}"#, "trailing characters, column 15"),
        ];
        for (line, reason) in cases {
            let told = tokio().read(line).map(|_| ()).unwrap_err();
            assert!(told.starts_with(reason), "{line}: {told}");
            assert!(!told.contains("--flat"), "{told}");
        }
        let told = tokio().read(r#"{"path":"a"}"#).map(|_| ()).unwrap_err();
        assert!(told.contains("--flat"), "{told}");
    }

    #[test]
    fn a_line_that_is_one_event_keeps_its_json_to_the_last_blank_inside_it() {
        let line = " {\"path\": 1.50, \"x\":[ ]}\r";
        let pair = |stream: &str| vec![(stream.to_owned(), line.trim().to_owned())];
        assert_eq!(events(history(EventsAt::Line), line), pair("1.50"));
        let mut prefixed = history(EventsAt::Line);
        prefixed.stream_prefix = "orders/".into();
        assert_eq!(events(prefixed, line), pair("orders/1.50"));
    }

    #[test]
    fn a_name_with_dots_is_that_member_or_else_the_way_to_one() {
        let found = |line: &str, field: &str| {
            let mut history = history(EventsAt::Line);
            history.stream_field = field.to_owned();
            events(history, line).remove(0).0
        };
        let nested = r#"{"a":{"b":"x","c.d":{"e":true}}}"#;
        assert_eq!(found(nested, "a.b"), "x");
        assert_eq!(found(nested, "a.c.d.e"), "true");
        assert_eq!(found(r#"{"a":{"b":"x"},"a.b":"y\u002f"}"#, "a.b"), "y/");
        for (line, field) in [
            (nested, "a.x"),
            (nested, "b"),
            (r#"{"a":"b"}"#, "a.b"),
            (nested, ".a"),
        ] {
            let mut history = history(EventsAt::Line);
            history.stream_field = field.to_owned();
            let told = history.read(line).map(|_| ()).unwrap_err();
            assert!(told.starts_with("has no field"), "{told}");
        }
    }

    #[test]
    fn a_field_that_export_does_not_know_is_refused_and_not_dropped() {
        let good = r#"{"events":[{"stream":"a","kind":"k","payload":1}]}"#;
        for line in [good.to_owned(), good.replacen('{', "{\"time\":null,", 1)] {
            assert_eq!(Shape::Exported.read(&line).map(|read| read.event_count()), Ok(1));
        }
        for line in [
            good.replace("kind", "Kind"),
            good.replace("\"payload\":1", "\"payload\":1,\"header\":{}"),
        ] {
            let told = Shape::Exported.read(&line).map(|_| ()).unwrap_err();
            assert!(told.contains("--stream-field"), "{told}");
        }
    }
}
