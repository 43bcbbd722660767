//! All plugins of this host, for callers.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{FutureExt, future::BoxFuture};

use super::Service;
use crate::calls::{Answer, CallFailure, CallRequest, Calls, PluginInfo};

/// The plugins by name.
#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<BTreeMap<String, Arc<Service>>>);

impl Registry {
    /// Makes a plugin known to callers.
    pub(crate) fn add(&self, name: String, service: Arc<Service>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, service);
    }

    fn find(&self, name: &str) -> Option<Arc<Service>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Calls for Registry {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Answer> {
        let service = self.find(&request.plugin);
        async move {
            match service {
                Some(service) => service.call(request).await,
                None => Answer { tag: None, outcome: Err(CallFailure::UnknownPlugin(request.plugin)) },
            }
        }
        .boxed()
    }

    fn plugins(&self) -> Vec<PluginInfo> {
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        services.values().filter_map(|service| service.info()).collect()
    }
}
