//! [`LinkAddress`], [`Endpoint`] and [`EndpointList`]: how links are written.
//!
//! ```text
//! file:///dir                    a directory, absolute, taken as written
//! bundle:                        by bundles alone, which somebody carries
//! milepost://host:port           a server; [v6]:port for IPv6
//! milepost+tls://host:port       a server over TLS
//! tcpip(host=h;port=p)           a server, in the historic spelling; keywords in any case and order
//! ```
//!
//! One place parses and one prints them. A port is always said: there is no default to be wrong about.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use milepost_engine::{Error, Result};

/// How the address of no link is written.
const BUNDLE: &str = "bundle:";

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkAddress {
    /// A directory, shared by sites that can all write to it.
    Directory(PathBuf),
    /// No link at all: bundles are carried to and fro.
    Bundle,
    /// A Milepost server.
    Server(Endpoint),
}

/// Address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
}

/// Servers of which any will do: the first is the primary, the rest are alternates in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointList {
    endpoints: Vec<Endpoint>,
}

impl Endpoint {
    /// An endpoint without TLS.
    ///
    /// # Errors
    /// `Invalid` for a host that is no name or address, and for port 0.
    pub fn new(host: impl Into<String>, port: u16) -> Result<Endpoint> {
        let host = host.into();
        let v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let plain = !host.is_empty() && host.len() <= 253 && host.bytes().all(name);
        if port == 0 || !(v6 || plain) {
            return Err(Error::invalid(format!(
                "{host:?} port {port} is no host and port of a server"
            )));
        }
        Ok(Endpoint {
            host,
            port,
            tls: false,
        })
    }

    /// Name or address of the host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True when TLS is asked for.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    fn historic(inside: &str, whole: &str) -> Result<Endpoint> {
        let wrong =
            |what: &str| Error::invalid(format!("{whole:?} {what}; write tcpip(host=NAME;port=NUMBER)"));
        let (mut host, mut port) = (None, None);
        for pair in inside.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong("has a setting without ="))?;
            let slot = match key.trim().to_ascii_lowercase().as_str() {
                "host" => &mut host,
                "port" => &mut port,
                _ => return Err(wrong("has a setting other than host and port")),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(wrong("says a setting twice"));
            }
        }
        let (Some(host), Some(port)) = (host, port) else {
            return Err(wrong("lacks host or port"));
        };
        let port = port
            .parse()
            .map_err(|_| wrong("has a port that is not 1 to 65535"))?;
        Endpoint::new(host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    fn url(authority: &str, whole: &str) -> Result<Endpoint> {
        let wrong = || Error::invalid(format!("{whole:?} is not milepost://HOST:PORT"));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or_else(wrong)?,
            None => authority.split_once(':').ok_or_else(wrong)?,
        };
        Endpoint::new(host, port.parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "milepost+tls" } else { "milepost" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint> {
        let text = text.trim();
        let historic = text
            .split_once('(')
            .and_then(|(word, rest)| Some((word, rest.strip_suffix(')')?)));
        if let Some((word, inside)) = historic
            && word.trim().eq_ignore_ascii_case("tcpip")
        {
            return Endpoint::historic(inside, text);
        }
        if let Some(authority) = text.strip_prefix("milepost://") {
            return Endpoint::url(authority, text);
        }
        if let Some(authority) = text.strip_prefix("milepost+tls://") {
            return Ok(Endpoint {
                tls: true,
                ..Endpoint::url(authority, text)?
            });
        }
        Err(Error::invalid(format!(
            "{text:?} is no server: write milepost://HOST:PORT or tcpip(host=HOST;port=PORT)"
        )))
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkAddress::Directory(path) => write!(f, "file://{}", path.display()),
            LinkAddress::Bundle => f.write_str(BUNDLE),
            LinkAddress::Server(endpoint) => endpoint.fmt(f),
        }
    }
}

impl FromStr for LinkAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<LinkAddress> {
        if text.trim() == BUNDLE {
            return Ok(LinkAddress::Bundle);
        }
        let Some(path) = text.trim().strip_prefix("file://") else {
            let server = text.parse().map(LinkAddress::Server);
            return server.map_err(|error| match looks_like_a_path(text) {
                true => no_directory(text),
                false => error,
            });
        };
        if !path.starts_with('/') || path.contains('\0') {
            return Err(no_directory(text));
        }
        Ok(LinkAddress::Directory(PathBuf::from(path)))
    }
}

/// True for what a server's address never is.
fn looks_like_a_path(text: &str) -> bool {
    let text = text.trim();
    text.starts_with(['/', '.', '~']) || text.starts_with("file:") || !text.contains([':', '('])
}

fn no_directory(text: &str) -> Error {
    Error::invalid(format!(
        "{text:?} is no link: write file:///DIR for a directory, with its absolute path, or milepost://HOST:PORT \
         for a server"
    ))
}

impl EndpointList {
    /// A list, primary first. An endpoint named again is left out: each alternate is tried once.
    ///
    /// # Errors
    /// `Invalid` for an empty list.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<EndpointList> {
        let mut list: Vec<Endpoint> = Vec::new();
        for endpoint in endpoints {
            if !list.contains(&endpoint) {
                list.push(endpoint);
            }
        }
        if list.is_empty() {
            return Err(Error::invalid("a list of servers names at least one"));
        }
        Ok(EndpointList { endpoints: list })
    }

    /// A list from texts as typed.
    ///
    /// # Errors
    /// `Invalid` for an empty list, and for a text that is no server.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<EndpointList> {
        let endpoints: Result<Vec<Endpoint>> = texts.iter().map(|text| text.as_ref().parse()).collect();
        EndpointList::new(endpoints?)
    }

    /// All endpoints, primary first; never empty.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_an_endpoint_is_read_as_typed() {
        let table = [
            ("tcpip(host=127.0.0.1;port=7001)", "milepost://127.0.0.1:7001"),
            (
                "TCPIP( Port = 7001 ; HOST = hq.example )",
                "milepost://hq.example:7001",
            ),
            ("tcpip(host=::1;port=1)", "milepost://[::1]:1"),
            ("milepost://hq:7001", "milepost://hq:7001"),
            ("milepost://hq:7001/", "milepost://hq:7001"),
            ("milepost://[fe80::1]:65535", "milepost://[fe80::1]:65535"),
            ("milepost+tls://hq:7001", "milepost+tls://hq:7001"),
        ];
        for (typed, printed) in table {
            assert_eq!(typed.parse::<Endpoint>().unwrap().to_string(), printed, "{typed}");
        }
        let directory: LinkAddress = "file:///var/mail/a b".parse().unwrap();
        assert_eq!(directory, LinkAddress::Directory("/var/mail/a b".into()));
        assert_eq!(directory.to_string(), "file:///var/mail/a b");
        assert_eq!(" bundle: ".parse::<LinkAddress>().unwrap(), LinkAddress::Bundle);
        assert_eq!(LinkAddress::Bundle.to_string(), "bundle:");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_a_sentence() {
        let texts = [
            "",
            "hq:7001",
            "http://hq:7001",
            "milepost://hq",
            "milepost://hq:0",
            "milepost://:7001",
            "milepost://hq:70000",
            "milepost://a b:1",
            "milepost://hq:1/path",
            "tcpip(host=hq)",
            "tcpip(port=1)",
            "tcpip(host=hq;port=x)",
            "tcpip(host=hq;port=1;host=b)",
            "tcpip(host=hq;port=1;zip=2)",
            "tcpip(host=hq;port=1",
            "file://relative",
            "file:/x",
            "bundle",
            "bundle:/x",
        ];
        for text in texts {
            assert!(text.parse::<LinkAddress>().is_err(), "{text}");
        }
        for path in ["/mnt/exchange", "./exchange", "exchange", "file:/x"] {
            let told = path.parse::<LinkAddress>().unwrap_err().to_string();
            assert!(told.contains("file:///DIR"), "{told}");
        }
        assert!(EndpointList::new([]).is_err());
    }

    #[test]
    fn an_endpoint_named_twice_is_one_endpoint() {
        let list =
            EndpointList::parse(&["milepost://a:1", "milepost://b:1", "tcpip(host=a;port=1)"]).unwrap();
        assert_eq!(list.endpoints().len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again_and_no_text_panics(host in "[a-z0-9.-]{1,20}", port in 1u16.., noise in ".{0,40}") {
            let endpoint = Endpoint::new(host, port).unwrap();
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            let _ = noise.parse::<LinkAddress>();
        }
    }
}
