//! What an agent has to tell after its aggregator was away: deaths with their last words.

use nodetap_agent::outbox::{Intake, Taken};
use nodetap_wire::{ContainerDied, ContainerKind, LogLine, Record, Source, record, time};

use crate::random::Random;

/// Last lines of each death.
const LINES: usize = 20;

/// Has an agent take so many deaths. Ends early where the link has ended.
pub(super) async fn tell(intake: Intake, node: String, deaths: usize, seed: u64) {
    let random = Random::new(seed);
    for number in 0..deaths {
        let record = Record { kind: Some(record::Kind::Death(death(&node, number, &random).into())) };
        if intake.take(Taken::Record(record)).await.is_err() {
            return;
        }
    }
}

fn death(node: &str, number: usize, random: &Random) -> ContainerDied {
    let now_ns = time::now_ns();
    let lines = (0..LINES).map(|line| LogLine {
        time_ns: now_ns,
        stderr: true,
        text: format!("level=error request={} msg=\"no answer\" attempt={line}", random.hex64()),
    });
    ContainerDied {
        namespace: "shop".to_owned(),
        pod: format!("web-{}", random.suffix(5)),
        pod_uid: random.uid(),
        node: node.to_owned(),
        container: "app".to_owned(),
        container_kind: ContainerKind::App.into(),
        ordinal: u32::try_from(number).unwrap_or(u32::MAX),
        container_id: format!("containerd://{}", random.hex64()),
        image: "registry.example/shop/app:1.4.2".to_owned(),
        exit_code: Some(1),
        reason: "Error".to_owned(),
        started_ns: now_ns - 60_000_000_000,
        finished_ns: now_ns,
        seen_ns: now_ns,
        source: Source::Kubelet.into(),
        last_lines: lines.collect(),
        ..ContainerDied::default()
    }
}
