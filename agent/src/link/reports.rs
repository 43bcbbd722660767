//! Which reports are due: a function of how the host stands and of what the controller has acknowledged.

use std::collections::BTreeMap;

use fleetswap_proto::v1;

use super::Standing;

/// What one stream has told of each plugin.
#[derive(Debug, Default)]
pub(super) struct Reports {
    told: BTreeMap<String, Told>,
    sequence: u64,
}

#[derive(Debug)]
struct Told {
    generation: v1::Generation,
    status: v1::PluginStatus,
    /// 0 for what the hello told.
    sequence: u64,
    acknowledged: bool,
}

impl Reports {
    /// The hello has told everything once; the welcome acknowledged it.
    pub(super) fn after_hello(standing: Standing) -> Self {
        let generation = standing.highest;
        let told = |status| Told { generation, status, sequence: 0, acknowledged: true };
        let plugins = standing.plugins.into_iter();
        Self { told: plugins.map(|(plugin, status)| (plugin, told(status))).collect(), sequence: 0 }
    }

    /// A report for every plugin of which something else was told before.
    pub(super) fn due(&mut self, standing: &Standing) -> Vec<v1::Report> {
        let gone = self.told.keys().filter(|plugin| !standing.plugins.contains_key(*plugin));
        let mut now: Vec<_> = gone.map(|plugin| empty(plugin)).collect();
        now.extend(standing.plugins.values().cloned());
        now.retain(|status| !self.was_told(status, standing.highest));
        now.into_iter().map(|status| self.tell(status, standing.highest)).collect()
    }

    /// What was told and not acknowledged, as it was told.
    pub(super) fn unacknowledged(&self) -> Vec<v1::Report> {
        let open = self.told.values().filter(|told| !told.acknowledged);
        let mut reports: Vec<_> = open.map(Told::report).collect();
        reports.sort_unstable_by_key(|report| report.sequence);
        reports
    }

    /// The report with this number is safe with the controller. One that a newer report replaced is not looked at.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        for told in self.told.values_mut().filter(|told| told.sequence == sequence) {
            told.acknowledged = true;
        }
    }

    fn was_told(&self, status: &v1::PluginStatus, generation: v1::Generation) -> bool {
        let told = self.told.get(&status.plugin);
        told.is_some_and(|told| told.status == *status && told.generation == generation)
    }

    fn tell(&mut self, status: v1::PluginStatus, generation: v1::Generation) -> v1::Report {
        self.sequence += 1;
        let told = Told { generation, status, sequence: self.sequence, acknowledged: false };
        let report = told.report();
        self.told.insert(told.status.plugin.clone(), told);
        report
    }
}

impl Told {
    fn report(&self) -> v1::Report {
        v1::Report {
            sequence: self.sequence,
            generation: Some(self.generation),
            status: Some(self.status.clone()),
        }
    }
}

/// A plugin that the host no longer knows.
fn empty(plugin: &str) -> v1::PluginStatus {
    v1::PluginStatus {
        plugin: plugin.to_owned(),
        service: v1::ServiceState::Empty.into(),
        ..v1::PluginStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(n: u64, plugins: &[(&str, v1::ServiceState)]) -> Standing {
        let status = |&(plugin, service): &(&str, v1::ServiceState)| {
            (plugin.to_owned(), v1::PluginStatus { service: service.into(), ..empty(plugin) })
        };
        Standing {
            highest: v1::Generation { epoch: 1, n },
            plugins: plugins.iter().map(status).collect(),
            ..Standing::default()
        }
    }

    const SERVING: v1::ServiceState = v1::ServiceState::Serving;
    const DOWN: v1::ServiceState = v1::ServiceState::Down;

    #[test]
    fn only_what_changed_since_the_hello_is_reported() {
        let mut reports = Reports::after_hello(standing(1, &[("a", SERVING), ("b", SERVING)]));
        assert!(reports.due(&standing(1, &[("a", SERVING), ("b", SERVING)])).is_empty());
        let due = reports.due(&standing(1, &[("a", SERVING), ("b", DOWN)]));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].status.as_ref().unwrap().plugin, "b");
        assert_eq!(due[0].sequence, 1);
    }

    #[test]
    fn a_report_is_repeated_until_it_is_acknowledged() {
        let mut reports = Reports::after_hello(Standing::default());
        let due = reports.due(&standing(1, &[("a", SERVING), ("b", DOWN)]));
        assert_eq!(reports.unacknowledged(), due);
        reports.acknowledge(due[0].sequence);
        assert_eq!(reports.unacknowledged(), due[1..]);
        reports.acknowledge(due[1].sequence);
        assert!(reports.unacknowledged().is_empty());
    }

    #[test]
    fn the_acknowledgement_of_an_older_report_does_not_count_for_the_newer() {
        let mut reports = Reports::after_hello(Standing::default());
        let older = reports.due(&standing(1, &[("a", SERVING)]));
        let newer = reports.due(&standing(1, &[("a", DOWN)]));
        reports.acknowledge(older[0].sequence);
        assert_eq!(reports.unacknowledged(), newer);
    }

    #[test]
    fn a_new_generation_is_answered_even_if_nothing_changed() {
        let mut reports = Reports::after_hello(standing(1, &[("a", SERVING)]));
        let due = reports.due(&standing(2, &[("a", SERVING)]));
        assert_eq!(due[0].generation, Some(v1::Generation { epoch: 1, n: 2 }));
    }

    #[test]
    fn a_plugin_that_is_gone_is_reported_as_empty_once() {
        let mut reports = Reports::after_hello(standing(1, &[("a", SERVING)]));
        let due = reports.due(&standing(1, &[]));
        assert_eq!(due[0].status, Some(empty("a")));
        assert!(reports.due(&standing(1, &[])).is_empty());
    }
}
