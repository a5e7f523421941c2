//! What is asked of the API server, counted by whoever asks: the event watches and the tap alike.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Requests to the API server. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Requests(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    resource: &'static str,
    code: &'static str,
}

// === impl Requests ===

impl Requests {
    /// Names the family in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_agent_api_requests",
            "Requests to the API server, by verb, resource and class of the answer's status",
            self.0.clone(),
        );
    }

    /// `code`: the status of the answer; `None` where there was none.
    pub fn count(&self, verb: &'static str, resource: &'static str, code: Option<u16>) {
        let code = match code {
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(_) => "5xx",
            None => "none",
        };
        self.0.get_or_create(&Labels { verb, resource, code }).inc();
    }

    /// How often something was asked for and answered so.
    #[cfg(test)]
    pub(crate) fn counted(&self, verb: &'static str, resource: &'static str, code: &'static str) -> u64 {
        self.0.get_or_create(&Labels { verb, resource, code }).get()
    }
}
