//! The agent's historic spellings, put into long ones before the parser sees them.
//!
//! ```text
//! -rd 5m   →  --receive-every 5m          -x                    →  --rotate
//! -rd=5m   →  --receive-every=5m          -x 16M                →  --rotate=16M
//! -ot f    →  --log f --log-truncate      -x 'tcpip(host=h;port=p)'  →  --server milepost://h:p
//! ```
//!
//! Options of one dash and several letters are no clusters of short ones: `-rp` is patience and not
//! `-r -p`, as ever. `-x` is a server when the word after it looks like an address, a rotation with a
//! size when it looks like a size, and a bare rotation otherwise.

use std::ffi::OsString;

use milepost_replication::endpoint::Endpoint;

/// Historic options of several letters that take one value.
const WITH_VALUE: [(&str, &str); 7] = [
    ("-rd", "--receive-every"),
    ("-rp", "--patience"),
    ("-ru", "--urgency"),
    ("-sd", "--send-every"),
    ("-fr", "--primary-retries"),
    ("-fd", "--primary-retry-delay"),
    ("-os", "--log-roll"),
];

/// Puts the words after `agent` into long spelling; words after `--` stay as they are.
///
/// # Errors
/// A sentence when an address is not one.
pub fn translate(words: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut words = words.into_iter().peekable();
    let mut long = Vec::new();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            long.push(word);
            continue;
        };
        if text == "--" {
            long.push(word);
            long.extend(words);
            break;
        }
        if text == "-x"
            && let Some(bare) = words
                .peek()
                .and_then(|next| next.to_str())
                .filter(|next| is_bare(next))
        {
            return Err(format!(
                "{bare} is no address: write milepost://{bare} or tcpip(host=…;port=…)"
            ));
        }
        if text == "-x" || text == "--rotate" {
            let value = words.next_if(|next| next.to_str().is_some_and(|next| belongs_to_x(text, next)));
            long.push(rotate_or_server(value.as_ref().and_then(|value| value.to_str()))?.into());
            continue;
        }
        if let Some(address) = text.strip_prefix("--server=") {
            long.push(format!("--server={}", endpoint(address)?).into());
            continue;
        }
        if text == "--server" {
            long.push(word);
            if let Some(next) = words.next() {
                long.push(
                    next.to_str()
                        .map_or_else(|| Ok(next.clone()), |next| endpoint(next).map(Into::into))?,
                );
            }
            continue;
        }
        match several_letters(text) {
            Some(spelled) => long.extend(spelled.into_iter().map(OsString::from)),
            None => long.push(word),
        }
    }
    Ok(long)
}

/// The long spelling of an option of several letters, with its value when it stands after `=`.
fn several_letters(text: &str) -> Option<Vec<String>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let with_value = |long: &str| value.map_or_else(|| long.to_owned(), |value| format!("{long}={value}"));
    if name == "-ot" {
        return Some(vec!["--log-truncate".to_owned(), with_value("--log")]);
    }
    let (_, long) = WITH_VALUE.iter().find(|(short, _)| *short == name)?;
    Some(vec![with_value(long)])
}

fn belongs_to_x(option: &str, value: &str) -> bool {
    super::size::parse(value).is_ok() || (option == "-x" && is_address(value))
}

fn is_address(value: &str) -> bool {
    value.contains("://") || value.to_ascii_lowercase().starts_with("tcpip")
}

/// True for a host with a port and nothing that says what it is.
fn is_bare(value: &str) -> bool {
    !is_address(value)
        && value
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn rotate_or_server(value: Option<&str>) -> Result<String, String> {
    match value {
        Some(address) if is_address(address) => Ok(format!("--server={}", endpoint(address)?)),
        Some(size) => Ok(format!("--rotate={size}")),
        None => Ok("--rotate".to_owned()),
    }
}

/// The address of a server in its URL form; anything but the historic form is taken as it is.
fn endpoint(address: &str) -> Result<String, String> {
    if !address.to_ascii_lowercase().starts_with("tcpip") {
        return Ok(address.to_owned());
    }
    let endpoint = address.parse::<Endpoint>();
    endpoint
        .map(|endpoint| endpoint.to_string())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(line: &str) -> String {
        let words = line
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(OsString::from);
        let long = translate(words).unwrap();
        long.iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn every_historic_spelling_has_its_long_one() {
        let table = [
            ("shop1 -r -i -s -b", "shop1 -r -i -s -b"),
            ("-isb -vv", "-isb -vv"),
            (
                "-rd 5m -sd 30s -rp 3 -ru 10",
                "--receive-every 5m --send-every 30s --patience 3 --urgency 10",
            ),
            ("-rd=5m -fr=3", "--receive-every=5m --primary-retries=3"),
            ("-fr 3 -fd 2", "--primary-retries 3 --primary-retry-delay 2"),
            ("-o f -os 1M", "-o f --log-roll 1M"),
            ("-ot f", "--log-truncate --log f"),
            ("-ot=f", "--log-truncate --log=f"),
            ("-x", "--rotate"),
            ("-x shop1", "--rotate shop1"),
            ("-x -b", "--rotate -b"),
            ("-x 16M shop1", "--rotate=16M shop1"),
            ("--rotate 5 --rotate", "--rotate=5 --rotate"),
            (
                "-x tcpip(host=h;port=7001) -x tcpip(port=7002;host=::1)",
                "--server=milepost://h:7001 --server=milepost://[::1]:7002",
            ),
            (
                "-x TCPIP(Host=h;Port=7001;) -x 10",
                "--server=milepost://h:7001 --rotate=10",
            ),
            (
                "-x milepost://h:1 --server tcpip(host=h;port=2)",
                "--server=milepost://h:1 --server milepost://h:2",
            ),
            ("--server=tcpip(host=h;port=2)", "--server=milepost://h:2"),
            ("-- -rd 5 -x", "-- -rd 5 -x"),
        ];
        table
            .iter()
            .for_each(|(historic, spelled)| assert_eq!(long(historic), *spelled, "{historic}"));
    }

    #[test]
    fn an_address_that_is_none_is_refused_and_not_guessed() {
        for address in [
            "tcpip",
            "tcpip()",
            "tcpip(host=h)",
            "tcpip(port=1)",
            "tcpip(host=h;port=99999)",
            "tcpip(host=;port=1)",
            "tcpip(host=h;port=1",
            "tcpip(host=h;port=1;tls=on)",
            "tcpip(host=a;host=b;port=1)",
            "127.0.0.1:7001",
        ] {
            assert!(translate(["-x".into(), address.into()]).is_err(), "{address}");
        }
    }
}
