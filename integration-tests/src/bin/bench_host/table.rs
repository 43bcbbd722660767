//! The table that is printed, and the object with the same facts.
use serde_json::{Value, json};

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Ours, with its unit.
    pub(crate) ours: f64,
    /// The baseline of the same run in the same unit; NaN without one.
    pub(crate) baseline: f64,
    pub(crate) unit: &'static str,
    /// What counts, and how much of it is wanted.
    pub(crate) verdict: Option<Verdict>,
    /// What else to know.
    pub(crate) note: String,
}

/// A figure with an aim.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) aim: Aim,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Verdict {
    fn reached(&self) -> bool {
        match self.aim {
            Aim::AtLeast(aim) => self.value >= aim,
            Aim::AtMost(aim) => self.value <= aim,
        }
    }

    fn words(&self) -> String {
        let aim = match self.aim {
            Aim::AtLeast(aim) => format!(">= {}", number(aim)),
            Aim::AtMost(aim) => format!("<= {}", number(aim)),
        };
        let reached = if self.reached() { "reached" } else { "not reached" };
        format!("{} {} (aim {aim}: {reached})", self.name, number(self.value))
    }
}

impl Row {
    /// A figure with its baseline.
    pub(crate) fn against(what: impl Into<String>, unit: &'static str, ours: f64, baseline: f64) -> Self {
        Self { what: what.into(), ours, baseline, unit, verdict: None, note: String::new() }
    }

    /// A figure for itself.
    pub(crate) fn alone(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self::against(what, unit, ours, f64::NAN)
    }

    /// Something that was not measured, and why.
    pub(crate) fn skipped(what: impl Into<String>, why: &str) -> Self {
        Self::alone(what, "", f64::NAN).note(why)
    }

    pub(crate) fn aim(self, name: &'static str, value: f64, aim: Aim) -> Self {
        Self { verdict: Some(Verdict { name, value, aim }), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn json(&self) -> Value {
        let known = |value: f64| value.is_finite().then_some(value);
        json!({
            "what": self.what, "unit": self.unit, "ours": known(self.ours), "baseline": known(self.baseline),
            "figure": self.verdict.as_ref().map(|it| it.name),
            "value": self.verdict.as_ref().and_then(|it| known(it.value)),
            "reached": self.verdict.as_ref().map(Verdict::reached), "note": self.note,
        })
    }

    fn text(&self) -> String {
        let side = |value: f64| {
            if value.is_finite() { format!("{} {}", number(value), self.unit) } else { "-".into() }
        };
        let verdict = self.verdict.as_ref().map(Verdict::words);
        let more: Vec<String> =
            verdict.into_iter().chain(Some(self.note.clone()).filter(|it| !it.is_empty())).collect();
        let (ours, baseline) = (side(self.ours), side(self.baseline));
        format!("{:<58} {:>14} {:>14}  {}", self.what, ours.trim(), baseline.trim(), more.join("; "))
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Everything as text.
pub(crate) fn text(rows: &[Row], about: &str) -> String {
    let head = format!("{:<58} {:>14} {:>14}  {}", "what", "ours", "baseline", "figure");
    let lines = rows.iter().map(Row::text);
    let lines: Vec<String> =
        [head].into_iter().chain(lines).chain([String::new(), about.to_owned()]).collect();
    lines.join("\n")
}

/// Everything as one object.
pub(crate) fn json(rows: &[Row], about: &str) -> String {
    json!({ "schema": 1, "about": about, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_aim_is_reached() {
        let row = |value| Row::against("rate", "/s", 9.0, 10.0).aim("ratio", value, Aim::AtLeast(0.9));
        assert!(row(0.9).text().ends_with("ratio 0.90 (aim >= 0.90: reached)"));
        assert!(row(0.89).text().ends_with("not reached)"));
        assert_eq!(row(0.5).json()["reached"], false);
        assert_eq!(Row::skipped("nginx", "not installed").json()["ours"], Value::Null);
    }
}
