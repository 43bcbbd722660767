//! The front's refusals in the words of the command line: why each came, and what to do about it.

use fleetswap_proto::Explained;
use serde::Deserialize;

use super::failure::Failure;

/// The front's error body.
#[derive(Deserialize)]
pub(super) struct Refused {
    error: RefusedError,
}

#[derive(Deserialize)]
struct RefusedError {
    code: String,
    message: String,
    field: Option<String>,
    plugin_code: Option<String>,
}

/// What was called.
pub(super) struct Called<'a> {
    pub(super) plugin: &'a str,
    pub(super) function: &'a str,
    /// The version that answered; empty where none did.
    pub(super) version: &'a str,
}

impl Refused {
    /// In words for whoever made the call.
    pub(super) fn explain(self, called: &Called<'_>) -> Failure {
        let RefusedError { code, message, field, plugin_code } = self.error;
        let what = match (code.as_str(), &field, &plugin_code) {
            ("BAD_INPUT", Some(field), _) => called.bad_input(field, &message),
            (.., Some(plugin_code)) => format!("{plugin_code}: {message}"),
            _ => message,
        };
        let (why, fix) = called.why_and_fix(&code);
        Failure { error: Explained { code: code.into(), what, why, fix }, plugin_code }
    }
}

impl Called<'_> {
    fn bad_input(&self, field: &str, message: &str) -> String {
        let Self { plugin, function, .. } = self;
        // `.` is the path of the whole.
        if field.is_empty() || field == "." {
            return format!("{plugin}/{function} can't take the input: {message}");
        }
        format!("{plugin}/{function} can't take the field `{field}`: {message}")
    }

    fn why_and_fix(&self, code: &str) -> (String, String) {
        self.about_the_call(code)
            .or_else(|| self.about_the_plugin(code))
            .unwrap_or_else(|| ("the front refused the call".to_owned(), format!("see the page of {code}")))
    }

    /// The call itself is wrong; the function did not run.
    fn about_the_call(&self, code: &str) -> Option<(String, String)> {
        let Self { plugin, function, version } = self;
        let (why, fix) = match code {
            "UNKNOWN_PLUGIN" => (
                format!("the name is misspelt, or `{plugin}` was never installed here or was removed"),
                "agent status lists the plugins of this host and their functions".to_owned(),
            ),
            "UNKNOWN_FUNCTION" => (
                format!("`{plugin}` {version} runs here, but it has no function of this name"),
                "agent status lists the functions of each plugin".to_owned(),
            ),
            "BAD_INPUT" => (
                format!(
                    "the input must fit the schema that `{plugin}` {version} has for `{function}`; it did not run"
                ),
                format!(
                    "correct the input; `controller describe FILE` shows the schema, where FILE is the library of \
                     `{plugin}` {version}"
                ),
            ),
            "BAD_TIMEOUT" => (
                "a call may wait more than 0 and at most 60 seconds; the function did not run".to_owned(),
                "correct --timeout, or leave it out for 5s".to_owned(),
            ),
            "BODY_TOO_LARGE" => (
                "everything that a plugin is given has a bound; the function did not run".to_owned(),
                "send less at a time".to_owned(),
            ),
            "NO_ROUTE" => (
                "the names of plugin and function must not be empty; nothing was called".to_owned(),
                "agent status lists the plugins of this host and their functions".to_owned(),
            ),
            "BODY_BROKEN" | "BODY_TOO_SLOW" => (
                "the input did not arrive whole in time; the function did not run".to_owned(),
                "send the call again, with more time if it is long: --timeout, at most 60s".to_owned(),
            ),
            _ => return None,
        };
        Some((why, fix))
    }

    /// The plugin, or how it stands, is the reason.
    fn about_the_plugin(&self, code: &str) -> Option<(String, String)> {
        let Self { plugin, .. } = self;
        let logs = format!("agent logs {plugin}");
        let (why, fix) = match code {
            "PLUGIN_ERROR" => (
                "this is the plugin's own error; code and words are the plugin's".to_owned(),
                format!("look at the input, and into {logs}"),
            ),
            "WORKER_DIED" => (
                "the worker crashed or was killed while it held the call, so whether the function ran is unknown; \
                 only functions that are marked idempotent are repeated, and once"
                    .to_owned(),
                format!(
                    "find out whether the call had its effect before you send it again; {logs} and agent status say \
                     why the worker died"
                ),
            ),
            "DEADLINE_EXCEEDED" => (
                "the plugin is slow or hangs, or the call waited behind others; whether the function ran is unknown"
                    .to_owned(),
                format!(
                    "find out whether the call had its effect before you send it again; give it more time with \
                     --timeout (at most 60s), or look into {logs}"
                ),
            ),
            "PLUGIN_PANICKED" | "OUTPUT_TOO_LARGE" => (
                "the function ran and failed: a fault of the plugin".to_owned(),
                format!("look into {logs}; the plugin's author has to correct it"),
            ),
            "QUEUE_FULL" => (
                "callers send more than the plugin takes; the function did not run".to_owned(),
                "try again later, or send less at a time".to_owned(),
            ),
            "PLUGIN_DOWN" => (
                "its worker can't be kept alive; the function did not run".to_owned(),
                format!("look at agent status and {logs}; try again when it serves"),
            ),
            "AGENT_SAFE_MODE" => (
                "the agent was started with --safe, so nothing is loaded; the function did not run".to_owned(),
                "whoever keeps this host restarts the agent without --safe; agent status says how it stands".to_owned(),
            ),
            "AGENT_STOPPING" => (
                "an agent that stops takes no new calls; the function did not run".to_owned(),
                "try again when the agent runs again".to_owned(),
            ),
            _ => return None,
        };
        Some((why, fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(body: &str) -> Failure {
        let refused: Refused = serde_json::from_str(body).unwrap();
        refused.explain(&Called { plugin: "clock", function: "time", version: "1.2.0" })
    }

    fn of(code: &str) -> Explained {
        explained(&format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#)).error
    }

    #[test]
    fn a_call_that_may_have_run_is_never_to_be_just_repeated() {
        for code in ["WORKER_DIED", "DEADLINE_EXCEEDED"] {
            let error = of(code);
            assert!(error.why.contains("whether the function ran is unknown"), "{error}");
            assert!(
                error.fix.contains("before you send it again") && !error.fix.contains("try again"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_unknown_function_is_no_unknown_plugin() {
        let error = of("UNKNOWN_FUNCTION");
        assert!(error.why.contains("`clock` 1.2.0 runs here"), "{error}");
        assert!(error.fix.contains("lists the functions"), "{error}");
    }

    #[test]
    fn a_bad_input_names_field_and_schema() {
        let bad = r#"{"error":{"code":"BAD_INPUT","message":"expected u64","field":"count"}}"#;
        let error = explained(bad).error;
        assert_eq!(error.what, "clock/time can't take the field `count`: expected u64");
        assert!(
            error.fix.contains("controller describe FILE") && error.fix.contains("`clock` 1.2.0"),
            "{error}"
        );
        let whole = explained(&bad.replace("count", ".")).error;
        assert_eq!(whole.what, "clock/time can't take the input: expected u64");
    }

    #[test]
    fn a_plugins_own_code_stands_beside_the_code_with_a_page() {
        let own = r#"{"error":{"code":"PLUGIN_ERROR","plugin_code":"NOT_TODAY","message":"no"}}"#;
        let failure = explained(own);
        assert_eq!((&*failure.error.code, failure.error.what.as_str()), ("PLUGIN_ERROR", "NOT_TODAY: no"));
        assert_eq!(failure.plugin_code.as_deref(), Some("NOT_TODAY"));
    }

    #[test]
    fn every_code_of_the_front_has_words_of_its_own() {
        let rest = of("SOMETHING_NEWER").why;
        for code in [
            "UNKNOWN_PLUGIN",
            "UNKNOWN_FUNCTION",
            "BAD_INPUT",
            "BAD_TIMEOUT",
            "BODY_TOO_LARGE",
            "BODY_TOO_SLOW",
            "BODY_BROKEN",
            "NO_ROUTE",
            "OUTPUT_TOO_LARGE",
            "QUEUE_FULL",
            "PLUGIN_PANICKED",
            "WORKER_DIED",
            "PLUGIN_DOWN",
            "DEADLINE_EXCEEDED",
            "AGENT_STOPPING",
            "AGENT_SAFE_MODE",
            "PLUGIN_ERROR",
        ] {
            assert_ne!(of(code).why, rest, "{code}");
        }
    }
}
