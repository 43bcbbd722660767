//! Addresses of controllers: only those of this machine, as long as connections carry no identity.

use std::net::SocketAddr;

/// Why a text names no address that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not `IP:PORT`.
    Unreadable,
    /// It is the name of a host, and none is looked up.
    Name,
    /// It is an address that more than this machine can reach.
    NotLoopback,
}

/// Reads `IP:PORT` or `localhost:PORT`, with or without `http://`. No name is looked up and no socket is made.
///
/// # Errors
/// It is no address, or not one of this machine.
pub fn loopback(text: &str) -> Result<SocketAddr, Refused> {
    let bare = bare(text);
    let (host, port) = bare.rsplit_once(':').ok_or(Refused::Unreadable)?;
    if port.parse::<u16>().is_err() {
        return Err(Refused::Unreadable);
    }
    let numeric = if host.eq_ignore_ascii_case("localhost") {
        format!("127.0.0.1:{port}").parse()
    } else {
        bare.parse::<SocketAddr>()
    };
    match numeric {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(Refused::NotLoopback),
        Err(_) if is_name(host) => Err(Refused::Name),
        Err(_) => Err(Refused::Unreadable),
    }
}

/// The address without what may stand around it.
#[must_use]
pub fn bare(text: &str) -> &str {
    let rest = text.strip_prefix("http://").unwrap_or(text);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Looks like a name that DNS would have to answer.
fn is_name(host: &str) -> bool {
    host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        && host.contains(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_taken() {
        for own in ["127.0.0.1:7443", "127.9.9.9:1", "[::1]:7443", "localhost:7443", "LOCALHOST:0"] {
            assert!(loopback(own).unwrap().ip().is_loopback(), "{own}");
        }
        for address in ["http://127.0.0.1:7443", "http://127.0.0.1:7443/"] {
            assert_eq!(loopback(address).unwrap().to_string(), "127.0.0.1:7443", "{address}");
        }
        for foreign in
            ["0.0.0.0:7443", "[::]:7443", "192.0.2.1:7443", "[2001:db8::1]:1", "[::ffff:127.0.0.1]:1"]
        {
            assert_eq!(loopback(foreign), Err(Refused::NotLoopback), "{foreign}");
        }
    }

    #[test]
    fn a_name_is_never_looked_up() {
        for name in ["example.net:7443", "localhost.example.net:7443", "127.0.0.1.example.net:7443", "h:1"] {
            assert_eq!(loopback(name), Err(Refused::Name), "{name}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        let wrong = ["", ":", "localhost", "127.0.0.1", ":7443", "127.0.0.1:99999", "::1:7443", "a b:1"];
        for wrong in wrong.into_iter().chain(["https://127.0.0.1:7443", "user@127.0.0.1:7443"]) {
            assert_eq!(loopback(wrong), Err(Refused::Unreadable), "{wrong}");
        }
    }
}
