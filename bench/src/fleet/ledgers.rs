//! What agents have their aggregator remember: the ledger of a node, each of whose containers has died before and runs again.

use std::collections::HashSet;

use anyhow::Context as _;
use nodetap_agent::link;
use nodetap_agent::outbox::{Intake, Taken, Told};
use nodetap_agent::tap::ledger::{Ledger, Seen};
use nodetap_agent::tap::memory::Memory;
use nodetap_agent::tap::metrics::Metrics;
use nodetap_agent::tap::pods::Pod;
use nodetap_wire::{Source, time};
use serde_json::json;
use tokio::sync::{oneshot, watch};

use crate::random::Random;

/// The ledger of one node. Its clones share what they tell, so that thousands take no memory here.
#[derive(Clone, Debug)]
pub(crate) struct Ledgers {
    told: Vec<Told>,
}

// === impl Ledgers ===

impl Ledgers {
    /// Of so many pods, each of two containers; `None` of none.
    ///
    /// # Errors
    /// A pod cannot be read as the kubelet's are.
    pub(crate) fn of(pods: usize, seed: u64) -> anyhow::Result<Option<Self>> {
        if pods == 0 {
            return Ok(None);
        }
        let random = Random::new(seed);
        let now_ns = time::now_ns();
        let mut ledger = Ledger::new("node", now_ns);
        let mut present = HashSet::new();
        for number in 0..pods {
            let pod = pod(number, &random).context("a pod of the simulated ledger")?;
            present.insert(pod.uid().to_owned());
            ledger.observe(&pod, Seen { at_ns: now_ns, source: Source::Kubelet });
        }
        ledger.end_snapshot(&present, now_ns);
        let mut memory = Memory::new(&mut ledger, Metrics::default());
        Ok(Some(Self { told: memory.tell(&mut ledger, Vec::new(), &[]) }))
    }

    /// Bytes of what is remembered of a node.
    pub(crate) fn bytes(&self) -> usize {
        self.told.iter().flat_map(|told| &told.ledger).map(|entry| entry.state.len()).sum()
    }

    /// The link's ends, and the task that tells it: once the aggregator has said what it remembers, and whenever it has forgotten.
    pub(crate) fn tell(self, intake: Intake) -> (link::Memory, impl Future<Output = ()> + Send + 'static) {
        let (answer, answered) = oneshot::channel();
        let (again, mut forgotten) = watch::channel(0);
        let telling = async move {
            // An error is the end of the link, and so of this.
            let mut has_ended = answered.await.is_err();
            while !has_ended {
                for told in &self.told {
                    has_ended |= intake.take(Taken::Told(told.clone())).await.is_err();
                }
                has_ended |= forgotten.changed().await.is_err();
            }
        };
        (link::Memory { answer, again }, telling)
    }
}

fn pod(number: usize, random: &Random) -> Result<Pod, serde_json::Error> {
    let status = |name: &str| {
        let image = format!("registry.example/shop/{name}:1.4.2");
        json!({
            "name": name, "restartCount": 1, "image": image, "imageID": format!("sha256:{}", random.hex64()), "ready": true,
            "containerID": format!("containerd://{}", random.hex64()),
            "state": {"running": {"startedAt": "2026-07-01T10:00:05Z"}},
            "lastState": {"terminated": {
                "exitCode": 1, "reason": "Error", "containerID": format!("containerd://{}", random.hex64()),
                "startedAt": "2026-07-01T09:00:00Z", "finishedAt": "2026-07-01T10:00:04Z",
            }},
        })
    };
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("web-{number}-{}", random.suffix(5)), "namespace": "shop", "uid": random.uid(),
            "creationTimestamp": "2026-07-01T09:00:00Z",
        },
        "spec": {},
        "status": {"phase": "Running", "containerStatuses": [status("app"), status("proxy")]},
    }))
}
