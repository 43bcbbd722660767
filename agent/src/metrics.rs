//! Numbers of the agent, in the text format of Prometheus and OpenMetrics.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// All counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<Call, Counter>,
    swaps: Family<Plugin, Counter>,
    restarts: Family<Plugin, Counter>,
    held: Family<Plugin, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    plugin: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Plugin {
    plugin: String,
}

impl Metrics {
    /// Content type of [`Metrics::text`].
    pub(crate) const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("fleetswap");
        let (calls, swaps, restarts) = (Family::default(), Family::default(), Family::default());
        registry.register("calls", "Calls that were answered, by how they ended", calls.clone());
        registry.register("swaps", "Times that another release took over", swaps.clone());
        registry.register("worker_restarts", "Times that a worker ended unasked", restarts.clone());
        let held = Family::default();
        registry.register("plugin_held", "1 while an operator on the host holds the plugin", held.clone());
        Self { registry, calls, swaps, restarts, held }
    }

    /// A call was answered. `plugin`: empty for a name that no plugin has.
    pub(crate) fn called(&self, plugin: &str, outcome: &'static str) {
        self.calls.get_or_create(&Call { plugin: plugin.to_owned(), outcome }).inc();
    }

    /// Another release of the plugin took over.
    pub(crate) fn swapped(&self, plugin: &str) {
        self.swaps.get_or_create(&Plugin { plugin: plugin.to_owned() }).inc();
    }

    /// The worker of the plugin's active release ended unasked.
    pub(crate) fn restarted(&self, plugin: &str) {
        self.restarts.get_or_create(&Plugin { plugin: plugin.to_owned() }).inc();
    }

    /// Whether an operator on the host holds the plugin.
    pub(crate) fn held(&self, plugin: &str, is_held: bool) {
        self.held.get_or_create(&Plugin { plugin: plugin.to_owned() }).set(is_held.into());
    }

    /// Everything, as text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_project_prefix_and_bounded_labels() {
        let metrics = Metrics::new();
        metrics.called("clock", "OK");
        metrics.called("clock", "OK");
        metrics.swapped("clock");
        metrics.restarted("clock");
        metrics.held("clock", true);
        let text = metrics.text().unwrap();
        assert!(text.contains("fleetswap_calls_total{plugin=\"clock\",outcome=\"OK\"} 2"), "{text}");
        assert!(text.contains("fleetswap_swaps_total{plugin=\"clock\"} 1"));
        assert!(text.contains("fleetswap_plugin_held{plugin=\"clock\"} 1"));
        assert!(text.contains("fleetswap_worker_restarts_total{plugin=\"clock\"} 1"));
    }
}
