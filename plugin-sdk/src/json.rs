//! JSON that comes in: read, or refused in words that name the field.

use serde::de::DeserializeOwned;

use crate::sink::Refusal;

/// The name of the input as a whole, for mistakes that are in no field.
pub(crate) const WHOLE: &str = ".";

/// Reads one JSON value and nothing after it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::bad_input(WHOLE, "the input is empty; send JSON, for example {}"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = field(&error);
        Refusal::bad_input(&field, &error.into_inner().to_string())
    })?;
    reader.end().map_err(|error| Refusal::bad_input(WHOLE, &error.to_string()))?;
    Ok(value)
}

/// The field at fault. One that is missing or unknown has no path of its own, only that of the object around it;
/// serde names it in the message.
fn field(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    if !error.inner().is_data() {
        return WHOLE.to_owned();
    }
    let path = error.path().to_string();
    // The inside of an untagged or flattened type has no path.
    let path = path.trim_end_matches('?').trim_end_matches('.');
    let message = error.inner().to_string();
    let named = |start| message.strip_prefix(start)?.split_once('`').map(|(name, _)| name);
    let (name, known) = match (named("missing field `"), named("unknown field `")) {
        (Some(name), _) => (name, false),
        (None, Some(name)) => (name, path.rsplit('.').next() == Some(name)),
        (None, None) => ("", true),
    };
    match (path, known) {
        ("", true) => WHOLE.to_owned(),
        ("", false) => name.to_owned(),
        (path, true) => path.to_owned(),
        (path, false) => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Trip {
        #[expect(dead_code, reason = "only read by serde")]
        stops: Vec<Stop>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Stop {
        minutes: u32,
        stop: Option<Box<Self>>,
    }

    fn field_of(input: &str) -> String {
        let detail = decode::<Trip>(input.as_bytes()).unwrap_err().detail();
        let detail: serde_json::Value = serde_json::from_slice(&detail).unwrap();
        detail["field"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        assert_eq!(field_of(r#"{"stops": [{"minutes": 1}, {"minutes": "two"}]}"#), "stops[1].minutes");
        assert_eq!(field_of(r#"{"stops": 3}"#), "stops");
    }

    #[test]
    fn a_missing_or_unknown_field_is_named() {
        assert_eq!(field_of("{}"), "stops");
        assert_eq!(field_of(r#"{"stops": [{}]}"#), "stops[0].minutes");
        assert_eq!(field_of(r#"{"stops": [{"minutes": 1, "stop": {}}]}"#), "stops[0].stop.minutes");
        assert_eq!(field_of(r#"{"stops": [], "colour": 1}"#), "colour");
        assert_eq!(field_of(r#"{"stops": [{"colour": 1}]}"#), "stops[0].colour");
    }

    #[test]
    fn what_is_not_one_json_value_is_the_whole_inputs_mistake() {
        assert_eq!(field_of(""), ".");
        assert_eq!(field_of("stops"), ".");
        assert_eq!(field_of(r#"{"stops": [{"minu"#), ".");
        assert_eq!(field_of(r#"{"stops": []} {}"#), ".");
    }
}
