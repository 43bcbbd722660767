//! Reading a call: its timeout and its body, both bounded.

use std::time::Duration;

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use super::reply::Refusal;

/// Header with the time that a caller gives a call: seconds (`2`, `0.5`) or with a unit (`500ms`).
pub(crate) const TIMEOUT_HEADER: &str = "fleetswap-timeout";
/// Time of a call without the header.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest time of a call.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long after a deadline the front waits for the service to say so itself.
pub(super) const GRACE: Duration = Duration::from_millis(250);
/// Largest body that is passed on, in bytes.
pub(super) const BODY_MAX: usize = 1024 * 1024;
/// Bytes of a larger body that are read and dropped, so that its sender gets to read the answer.
const DRAIN_MAX: usize = 8 * 1024 * 1024;

/// The call's time.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Duration, Refusal> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(TIMEOUT_DEFAULT) };
    let wanted = value.to_str().ok().and_then(parse_timeout);
    wanted.filter(|wanted| !wanted.is_zero() && *wanted <= TIMEOUT_MAX).ok_or_else(Refusal::bad_timeout)
}

/// Seconds, or a number with a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

/// The whole body. One that came in one piece is not copied.
pub(super) async fn body<B: Body<Data = Bytes>>(body: B) -> Result<Bytes, Refusal> {
    let mut body = std::pin::pin!(body);
    let (mut only, mut bytes, mut length) = (Bytes::new(), BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::body_broken())?.into_data() else { continue };
        let before = length;
        length = length.saturating_add(data.len());
        if length > DRAIN_MAX {
            break;
        }
        if before == 0 && length <= BODY_MAX {
            only = data;
        } else if length <= BODY_MAX {
            if bytes.is_empty() {
                bytes.extend_from_slice(&std::mem::take(&mut only));
            }
            bytes.extend_from_slice(&data);
        }
    }
    match length {
        length if length > BODY_MAX => Err(Refusal::body_too_large()),
        length if length == only.len() => Ok(only),
        _ => Ok(bytes.freeze()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_seconds_or_has_a_unit() {
        let headers =
            |value: &str| HeaderMap::from_iter([(TIMEOUT_HEADER.parse().unwrap(), value.parse().unwrap())]);
        for (value, millis) in [("2", 2_000), ("0.25", 250), ("500ms", 500), ("1m", 60_000), ("60", 60_000)] {
            assert_eq!(timeout(&headers(value)).unwrap(), Duration::from_millis(millis), "{value}");
        }
        for value in ["", "0", "-1", "61", "1h", "soon", "NaN", "inf", "1e300", "0ms"] {
            let refusal = timeout(&headers(value)).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (400, "BAD_TIMEOUT"), "{value}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), TIMEOUT_DEFAULT);
    }
}
