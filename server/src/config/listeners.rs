//! Listeners as Kafka writes them, `NAME://HOST:PORT`, one for clients and one for nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// The one protocol that is spoken.
const PLAINTEXT: &str = "PLAINTEXT";
/// Those that Kafka knows.
const PROTOCOLS: [&str; 4] = [PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// What the listeners are called, and the hosts that they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listeners {
    /// The name of the listener for clients.
    pub(crate) client: String,
    /// `controller.listener.names`: the name of the listener for the nodes of the cluster.
    pub(crate) controller: String,
    /// `listener.security.protocol.map`
    pub(crate) protocols: BTreeMap<String, String>,
    /// The hosts of the two, where they name one.
    pub(crate) client_host: Option<String>,
    pub(crate) controller_host: Option<String>,
}

impl Default for Listeners {
    fn default() -> Self {
        let controller = "CONTROLLER".to_owned();
        let plain = |name: &str| (name.to_owned(), PLAINTEXT.to_owned());
        Self {
            client: PLAINTEXT.to_owned(),
            protocols: BTreeMap::from([plain(&controller), plain(PLAINTEXT)]),
            controller,
            client_host: None,
            controller_host: None,
        }
    }
}

impl Listeners {
    /// Whether a name is that of the listener for nodes.
    pub(crate) fn is_controller(&self, name: &str) -> bool {
        self.controller.eq_ignore_ascii_case(name)
    }

    /// Refuses a listener that is to speak what is not spoken.
    pub(crate) fn check_protocol(&self, name: &str) -> Result<(), String> {
        let named = PROTOCOLS
            .into_iter()
            .find(|protocol| protocol.eq_ignore_ascii_case(name));
        let mapped = self
            .protocols
            .iter()
            .find_map(|(of, protocol)| of.eq_ignore_ascii_case(name).then_some(protocol.as_str()));
        match mapped.or(named) {
            Some(PLAINTEXT) => Ok(()),
            Some(protocol) => Err(format!(
                "{name} would speak {protocol}, and there is no TLS and no SASL yet; only \
                 {PLAINTEXT} is served"
            )),
            None if self.is_controller(name) => Ok(()),
            None => Err(format!(
                "listener.security.protocol.map does not say what {name} speaks; add \
                 {name}:{PLAINTEXT} to it"
            )),
        }
    }

    /// What `listener.security.protocol.map` says.
    pub(crate) fn protocols_text(&self) -> String {
        let pairs = self.protocols.iter();
        let pairs: Vec<_> = pairs.map(|(name, is)| format!("{name}:{is}")).collect();
        pairs.join(",")
    }
}

/// Reads `listener.security.protocol.map`. What no listener of ours speaks may stand there: Kafka's
/// own files name everything that it could.
pub(crate) fn protocols(value: &str) -> Result<BTreeMap<String, String>, String> {
    let mut protocols = BTreeMap::new();
    for entry in entries(value) {
        let parted = entry.split_once(':');
        let (name, protocol) = parted.ok_or("NAME:PROTOCOL,... is needed")?;
        let (name, protocol) = (name.trim(), protocol.trim());
        let protocol = PROTOCOLS
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(protocol))
            .ok_or_else(|| format!("{protocol} is no protocol; {PLAINTEXT} is"))?;
        if name.is_empty() || protocols.insert(upper(name), protocol.to_owned()).is_some() {
            return Err(format!("a name must stand there once, {name:?} does not"));
        }
    }
    Ok(protocols)
}

/// A host and a port; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.host, self.port)
    }
}

/// Writes a place so that [`place`] reads it again.
pub(crate) fn write_place(f: &mut impl fmt::Write, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

/// Reads `HOST:PORT`; the host may be empty.
fn place(text: &str) -> Option<Place> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_name = |c: char| !c.is_whitespace() && !matches!(c, '/' | '@' | ',' | '[' | ']');
    let port = port.parse().ok().filter(|_| host.chars().all(is_name))?;
    Some(Place {
        host: host.to_owned(),
        port,
    })
}

/// Reads `HOST:PORT` that somebody else can connect to.
pub(crate) fn reachable(text: &str) -> Result<Place, String> {
    let place = place(text).ok_or_else(|| format!("{text:?} is not HOST:PORT"))?;
    if place.port == 0 || is_wildcard(&place.host) {
        return Err(format!(
            "nobody can connect to {place}: a host and a port are needed"
        ));
    }
    Ok(place)
}

/// Whether a host stands for all addresses of a machine, so that it is none to connect to.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.is_empty() || host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
}

/// One listener of a list.
pub(crate) struct Listener {
    /// In capitals, as Kafka compares it.
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// Reads `NAME://HOST:PORT,...`, each name once.
pub(crate) fn listeners(value: &str) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in entries(value) {
        let parted = entry.split_once("://").filter(|(name, _)| !name.is_empty());
        let listener = parted.and_then(|(name, at)| {
            Some(Listener {
                name: upper(name),
                place: place(at)?,
            })
        });
        let listener = listener.ok_or_else(|| format!("{entry:?} is not NAME://HOST:PORT"))?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(format!("{} stands there twice", listener.name));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The address to bind. No host means all of the machine's, as in Kafka.
pub(crate) fn resolve(place: &Place) -> Result<SocketAddr, String> {
    if place.host.is_empty() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, place.port)));
    }
    let found = (place.host.as_str(), place.port).to_socket_addrs();
    let found = found.map_err(|error| format!("the host of {place} is not known: {error}"))?;
    // `localhost` is two addresses, and most clients try the older kind first.
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv4);
    let first = v4.into_iter().chain(v6).next();
    first.ok_or_else(|| format!("the host of {place} has no address"))
}

/// The parts of a list, of which Kafka skips the empty ones.
pub(crate) fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|e| !e.is_empty())
}

/// As names of listeners are compared.
pub(crate) fn upper(name: &str) -> String {
    name.trim().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn reads_a_place_as_it_writes_it() {
        for text in ["host:9092", "127.0.0.1:1", "[::1]:65535", ":9092", "[]:0"] {
            let place = place(text).unwrap();
            assert_eq!(super::place(&place.to_string()), Some(place), "{text}");
        }
        for text in [
            "",
            "host",
            "host:",
            "::1:9092",
            "[::1:9092",
            "a b:1",
            "a/b:1",
            "host:65536",
        ] {
            assert_eq!(place(text), None, "{text}");
        }
        for text in ["host:0", ":9092", "0.0.0.0:9092", "[::]:9092"] {
            assert!(reachable(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_that_would_not_be_in_the_clear_is_refused() {
        let mut names = Listeners::default();
        for fine in ["PLAINTEXT", "plaintext", "CONTROLLER"] {
            assert_eq!(names.check_protocol(fine), Ok(()), "{fine}");
        }
        for refused in ["SSL", "SASL_SSL", "INTERNAL"] {
            let why = names.check_protocol(refused).unwrap_err();
            assert!(why.contains(refused) && why.contains("PLAINTEXT"), "{why}");
        }
        names.protocols = protocols("internal:plaintext, CONTROLLER:SSL,SSL:SSL").unwrap();
        assert_eq!(names.check_protocol("INTERNAL"), Ok(()));
        assert!(names.check_protocol("CONTROLLER").is_err());
        assert_eq!(names.check_protocol("PLAINTEXT"), Ok(()));
        for wrong in ["PLAINTEXT", "A:TLS", "A:SSL,a:SSL", ":SSL"] {
            assert!(protocols(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_host_is_every_address_and_a_name_is_looked_up() {
        let address = |text: &str| resolve(&place(text).unwrap()).map(|a| a.to_string());
        assert_eq!(address(":9092").unwrap(), "0.0.0.0:9092");
        assert_eq!(address("[::1]:9092").unwrap(), "[::1]:9092");
        assert_eq!(address("localhost:9092").unwrap(), "127.0.0.1:9092");
        assert!(address("no.such.host.invalid:9092").is_err());
    }
}
