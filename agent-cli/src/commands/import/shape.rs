//! [`Shape`]: how a line becomes a transaction.

use std::collections::BTreeMap;

use milepost_engine::Transaction;
use serde_json::value::RawValue;

use crate::record::ImportedLine;

/// Members of an object, each value as it stands in the line.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Which of the two shapes the lines have.
pub enum Shape {
    /// The lines of `export`.
    Exported,
    /// Anybody's history: an object with a list of objects, each naming its stream in a field.
    History {
        /// Field of the line that holds the list.
        events_field: String,
        /// Field of each element that names its stream.
        stream_field: String,
        /// Kind of all events.
        kind: String,
    },
}

impl Shape {
    /// The transaction that a line is.
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn read(&self, line: &str) -> Result<Transaction, String> {
        match self {
            Shape::Exported => exported(line),
            Shape::History {
                events_field,
                stream_field,
                kind,
            } => history(line, events_field, stream_field, kind),
        }
    }
}

fn exported(line: &str) -> Result<Transaction, String> {
    let line: ImportedLine<'_> = serde_json::from_str(line).map_err(|error| not_json(&error))?;
    let mut transaction = Transaction::new();
    for (at, event) in line.events.iter().enumerate() {
        let event = event
            .to_event()
            .map_err(|reason| format!("event {at}: {reason}"))?;
        transaction
            .push(&event)
            .map_err(|error| format!("event {at}: {error}"))?;
    }
    Ok(transaction)
}

fn history(line: &str, events_field: &str, stream_field: &str, kind: &str) -> Result<Transaction, String> {
    let members: Members<'_> = serde_json::from_str(line).map_err(|error| not_json(&error))?;
    let list = members
        .get(events_field)
        .ok_or_else(|| format!("has no field {events_field:?}"))?;
    let elements: Vec<&RawValue> =
        serde_json::from_str(list.get()).map_err(|_| format!("field {events_field:?} is not a list"))?;
    let mut transaction = Transaction::new();
    for (at, element) in elements.iter().enumerate() {
        let text = element.get();
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|_| format!("event {at} is not an object"))?;
        let stream = members
            .get(stream_field)
            .ok_or_else(|| format!("event {at} has no field {stream_field:?}"))?;
        let stream: String = serde_json::from_str(stream.get())
            .map_err(|_| format!("event {at}: field {stream_field:?} is not a text"))?;
        let pushed = transaction.push_parts(&stream, kind, text.as_bytes());
        pushed.map_err(|error| format!("event {at}: {error}"))?;
    }
    Ok(transaction)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tokio() -> Shape {
        Shape::History {
            events_field: "events".into(),
            stream_field: "path".into(),
            kind: "changed".into(),
        }
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
                "event 1 has no field \"path\"",
            ),
            (
                r#"{"events":[{"path":7}]}"#,
                "event 0: field \"path\" is not a text",
            ),
            (r#"{"events":[{"path":""}]}"#, "event 0: stream name"),
            (r#"{"events":[]} {}"#, "trailing characters, column 15"),
        ];
        for (line, reason) in cases {
            let told = tokio().read(line).map(|_| ()).unwrap_err();
            assert!(told.starts_with(reason), "{line}: {told}");
        }
    }

    #[test]
    fn a_field_that_export_does_not_know_is_refused_and_not_dropped() {
        let good = r#"{"events":[{"stream":"a","kind":"k","payload":1}]}"#;
        assert_eq!(Shape::Exported.read(good).map(|read| read.event_count()), Ok(1));
        for line in [
            good.replace("kind", "Kind"),
            good.replace("\"payload\":1", "\"payload\":1,\"header\":{}"),
        ] {
            assert!(Shape::Exported.read(&line).is_err(), "{line}");
        }
    }
}
