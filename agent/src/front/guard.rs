//! On TCP any page in a browser on this host could reach the front: `Host` and `Origin` must be the front's own.

use std::net::SocketAddr;

use axum::http::{
    HeaderMap,
    header::{HOST, ORIGIN},
};

use super::reply::Refusal;

/// Why a request that was not sent to this address by its name, or by a foreign page, is not passed on.
pub(super) fn refusal(address: SocketAddr, headers: &HeaderMap) -> Option<Refusal> {
    let own = [address.to_string(), format!("localhost:{}", address.port())];
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !own.iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return Some(Refusal::foreign("Host"));
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let from_own = origin.strip_prefix("http://").is_some_and(|origin| own.iter().any(|own| own == origin));
    (!from_own).then(|| Refusal::foreign("Origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fronts_own_names_pass() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let passes = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            refusal(address, &headers).is_none()
        };
        assert!(passes("127.0.0.1:8080", None));
        assert!(passes("LocalHost:8080", Some("http://localhost:8080")));
        assert!(!passes("127.0.0.1:8080", Some("http://evil.example")));
        assert!(!passes("127.0.0.1:8080", Some("null")));
        assert!(!passes("evil.example:8080", None), "a name that was rebound to 127.0.0.1");
        assert!(!passes("127.0.0.1", None));
        assert!(refusal(address, &HeaderMap::new()).is_some());
    }
}
