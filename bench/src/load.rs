//! Load: events as a kubelet, a scheduler and controllers write them, and containers that die, at set rates.
//!
//! What is chosen is decided by the seed. A death stays to be seen for `visible` before the next step hides it, as the real
//! kubelet's back-off and deletions leave time; how often recurrences happen follows from how few things there are to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Random;
use crate::cluster::{
    ContainerSpec, Ending, Lives, Occurrence, PodRef, PodSpec, Recorder, Reference, RestartPolicy,
    SimulatedCluster,
};

/// What is to happen.
#[derive(Clone, Debug)]
pub struct Load {
    /// Events a second, beside those that lives bring.
    pub events: f64,
    /// Deaths a second.
    pub deaths: f64,
    /// Over so many namespaces.
    pub namespaces: usize,
    /// So many pods on each node.
    pub pods: usize,
    /// How long a death can be seen before the next one of its container, or its pod's end, hides it.
    pub visible: Duration,
    /// Decides all choices.
    pub seed: u64,
}

/// One run of a load, whose pods are there.
#[derive(Debug)]
pub struct Run {
    load: Load,
    random: Random,
    lives: Arc<Lives>,
    recorder: Arc<Recorder>,
    nodes: Vec<String>,
    namespaces: Vec<String>,
    born: usize,
    /// When a container died last, by pod uid.
    died: HashMap<String, Instant>,
}

/// How often the generators wake: at high rates they write several at once.
const TICK: Duration = Duration::from_millis(10);

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        Self { events: 20.0, deaths: 0.5, namespaces: 5, pods: 10, visible: Duration::from_secs(5), seed: 1 }
    }
}

impl Load {
    /// Creates the pods, then writes and kills until the future is dropped.
    ///
    /// # Errors
    /// A log folder cannot be written.
    pub async fn run(self, cluster: &SimulatedCluster) -> anyhow::Result<()> {
        self.begin(cluster).await?.go().await
    }

    /// Creates the pods.
    ///
    /// # Errors
    /// A log folder cannot be written.
    pub async fn begin(self, cluster: &SimulatedCluster) -> anyhow::Result<Run> {
        let namespaces = (1..=self.namespaces.max(1)).map(|number| format!("team-{number}")).collect();
        let mut run = Run {
            random: Random::new(self.seed),
            lives: Arc::clone(cluster.lives()),
            recorder: Arc::clone(cluster.recorder()),
            nodes: cluster.nodes().iter().map(|node| node.name.clone()).collect(),
            namespaces,
            born: 0,
            died: HashMap::new(),
            load: self,
        };
        for _ in 0..run.load.pods * run.nodes.len() {
            run.spawn_pod()?;
            tokio::task::yield_now().await;
        }
        Ok(run)
    }
}

// === impl Run ===

impl Run {
    /// From now on so many events and deaths a second.
    pub fn at(&mut self, events: f64, deaths: f64) -> &mut Self {
        (self.load.events, self.load.deaths) = (events, deaths);
        self
    }

    /// Writes and kills until the future is dropped.
    ///
    /// # Errors
    /// A log folder cannot be written.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        let mut steps = JoinSet::new();
        let (mut events, mut deaths) = (0.0, 0.0);
        let mut last = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = Instant::now();
            let passed = (now - last).as_secs_f64();
            last = now;
            events += self.load.events * passed;
            deaths += self.load.deaths * passed;
            while events >= 1.0 {
                events -= 1.0;
                self.event(&self.lives.pods());
            }
            while deaths >= 1.0 {
                deaths -= 1.0;
                self.death(&mut steps);
            }
            while let Some(step) = steps.try_join_next() {
                step??;
            }
        }
    }

    fn next_pod(&mut self) -> PodSpec {
        self.born += 1;
        let number = self.born;
        let app = *self.random.pick(APPS).unwrap_or(&"web");
        let set = format!("{app}-{}", self.random.suffix(9));
        let node = self.nodes.get(number % self.nodes.len().max(1)).cloned().unwrap_or_default();
        let mut containers = vec![ContainerSpec::app(app)];
        match number % 4 {
            1 => containers.insert(0, ContainerSpec::init("migrate")),
            2 => containers.insert(0, ContainerSpec::sidecar("proxy")),
            3 => containers.push(ContainerSpec::app("exporter")),
            _ => {}
        }
        PodSpec {
            namespace: self.random.pick(&self.namespaces).cloned().unwrap_or_default(),
            name: format!("{set}-{}", self.random.suffix(5)),
            node,
            labels: BTreeMap::from([
                ("app.kubernetes.io/name".to_owned(), app.to_owned()),
                ("pod-template-hash".to_owned(), self.random.suffix(9)),
            ]),
            annotations: BTreeMap::from([("prometheus.io/scrape".to_owned(), "true".to_owned())]),
            owner: Some(("ReplicaSet", set)),
            containers,
            restart: RestartPolicy::Always,
        }
    }

    fn spawn_pod(&mut self) -> anyhow::Result<PodRef> {
        let spec = self.next_pod();
        let pod = self.lives.run(spec)?;
        self.died.insert(pod.uid.clone(), Instant::now());
        Ok(pod)
    }

    /// A pod none of whose containers died lately, and one of its containers that runs.
    fn victim(&mut self) -> Option<(PodRef, String)> {
        let now = Instant::now();
        let mut pods = self.lives.pods();
        let quiet = |pod: &PodRef| self.died.get(&pod.uid).is_none_or(|at| now - *at > self.load.visible);
        pods.retain(|pod| quiet(pod) && !self.lives.is_going(pod) && pod.name.rsplit('-').count() > 2);
        let pod = self.random.pick(&pods)?.clone();
        let running = self.lives.running(&pod);
        let container = self.random.pick(&running)?.clone();
        self.died.insert(pod.uid.clone(), now);
        Some((pod, container))
    }

    fn death(&mut self, steps: &mut JoinSet<anyhow::Result<()>>) {
        let visible = self.load.visible;
        let lives = Arc::clone(&self.lives);
        match self.random.below(20) {
            0 | 1 => {
                // A rollout replaces a pod.
                let Some((old, _)) = self.victim() else { return };
                let new = self.next_pod();
                steps.spawn(async move {
                    lives.run(new)?;
                    lives.delete(&old, visible).await
                });
            }
            2 => {
                // A job runs to its end.
                let mut spec = self.next_pod();
                spec.name = format!("job-{}", self.random.suffix(5));
                spec.owner = Some(("Job", "report-29341620".to_owned()));
                spec.restart = RestartPolicy::Never;
                spec.containers = vec![ContainerSpec::app("report")];
                let code = if self.random.chance(30) { 3 } else { 0 };
                steps.spawn(async move {
                    let pod = lives.run(spec)?;
                    lives.end(&pod, "report", &Ending::exit(code, "report written"))?;
                    tokio::time::sleep(visible).await;
                    lives.remove(&pod)
                });
            }
            3 => {
                // An init container fails once.
                let mut spec = self.next_pod();
                spec.name = format!("init-{}", self.random.suffix(5));
                spec.containers = vec![ContainerSpec::init("migrate"), ContainerSpec::app("api")];
                steps.spawn(async move {
                    let pod = lives.create(spec)?;
                    lives.start(&pod, "migrate")?;
                    lives
                        .crash(
                            &pod,
                            "migrate",
                            &Ending::exit(2, "migration 0042 failed: relation \"orders\" is locked"),
                        )
                        .await?;
                    tokio::time::sleep(visible).await;
                    lives.end(&pod, "migrate", &Ending::exit(0, "migrated"))?;
                    lives.start(&pod, "api")?;
                    tokio::time::sleep(visible).await;
                    lives.delete(&pod, visible).await
                });
            }
            _ => {
                let Some((pod, container)) = self.victim() else { return };
                let ending = self.ending();
                let busy = self.random.below(1000);
                let lines: Vec<String> = (0..self.random.below(6))
                    .map(|number| {
                        format!("level=info msg=\"request served\" status=200 took={}ms", busy + number)
                    })
                    .collect();
                steps.spawn(async move {
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    lives.write(&pod, &container, "stdout", &lines)?;
                    lives.crash(&pod, &container, &ending).await?;
                    Ok(())
                });
            }
        }
    }

    fn ending(&self) -> Ending {
        match self.random.below(10) {
            0..3 => Ending::out_of_memory("level=warn msg=\"cache grows\" bytes=536870912"),
            3 => Ending::signal(11, "SIGSEGV: segmentation violation"),
            4 => Ending::exit(2, "goroutine 1 [running]: main.main()"),
            5 => Ending::exit(0, "done"),
            6 => Ending::exit(7, "fatal: cannot reach the database at db:5432: connection refused"),
            _ => Ending::exit(1, "Error: EADDRINUSE: address already in use :::8080"),
        }
    }

    /// The pods that a burst may be about.
    pub fn pods(&self) -> Vec<PodRef> {
        self.lives.pods()
    }

    /// So many events as fast as they can be written, without a runtime: for a thread that may block. The pods are handed in, so
    /// that many small bursts do not each copy the names of all.
    pub fn burst(&self, pods: &[PodRef], events: usize) {
        self.recorder.together(|| (0..events).for_each(|_| self.event(pods)));
    }

    fn event(&self, pods: &[PodRef]) {
        let occurrence = self.occurrence(pods);
        if let Err(status) = self.recorder.record(occurrence) {
            tracing::warn!(message = status.message, "an event was refused");
        }
    }

    fn occurrence(&self, pods: &[PodRef]) -> Occurrence {
        let Some(pod) = self.random.pick(pods) else { return Occurrence::default() };
        let of_pod = |field_path: &str| Reference {
            kind: "Pod".to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            api_version: "v1".to_owned(),
            field_path: field_path.to_owned(),
            ..Reference::default()
        };
        let kubelet = |reason: &str, message: String, kind: &'static str| Occurrence {
            object: of_pod("spec.containers{app}"),
            reason: reason.to_owned(),
            message,
            kind,
            component: "kubelet".to_owned(),
            host: pod.node.clone(),
            new_api: false,
        };
        let port = 8080 + self.random.below(3);
        match self.random.below(10) {
            0..3 => kubelet(
                "Unhealthy",
                format!(
                    "Readiness probe failed: Get \"http://10.244.1.{}:{port}/readyz\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    pod.name.len()
                ),
                "Warning",
            ),
            3 => kubelet(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"config\" : configmap \"settings\" not found"
                    .to_owned(),
                "Warning",
            ),
            4 => kubelet(
                "Pulled",
                format!(
                    "Successfully pulled image \"registry.example/app:1.4.{}\" in {}ms ({}ms including waiting). Image size: 52428800 bytes.",
                    self.random.below(50),
                    self.random.below(9000),
                    self.random.below(9000)
                ),
                "Normal",
            ),
            5 => Occurrence {
                object: of_pod(""),
                reason: "FailedScheduling".to_owned(),
                message: format!(
                    "0/{} nodes are available: {} Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.",
                    self.nodes.len(),
                    self.nodes.len()
                ),
                kind: "Warning",
                component: "default-scheduler".to_owned(),
                host: String::new(),
                new_api: true,
            },
            6 => Occurrence {
                object: Reference {
                    kind: "Deployment".to_owned(),
                    namespace: pod.namespace.clone(),
                    name: self.random.pick(APPS).map(|app| (*app).to_owned()).unwrap_or_default(),
                    uid: format!("5f0c7a52-0000-4000-8000-{:012x}", self.random.below(50)),
                    api_version: "apps/v1".to_owned(),
                    ..Reference::default()
                },
                reason: "ScalingReplicaSet".to_owned(),
                message: format!(
                    "Scaled up replica set web-{} from {} to {}",
                    self.random.suffix(9),
                    port - 8079,
                    port - 8078
                ),
                kind: "Normal",
                component: "deployment-controller".to_owned(),
                host: String::new(),
                new_api: false,
            },
            7 => Occurrence {
                object: Reference {
                    kind: "Node".to_owned(),
                    name: pod.node.clone(),
                    uid: pod.node.clone(),
                    ..Reference::default()
                },
                reason: "NodeHasDiskPressure".to_owned(),
                message: format!("Node {} status is now: NodeHasDiskPressure", pod.node),
                kind: "Normal",
                component: "kubelet".to_owned(),
                host: pod.node.clone(),
                new_api: false,
            },
            _ => kubelet(
                "BackOff",
                format!(
                    "Back-off pulling image \"registry.example/{}:latest\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image",
                    pod.name
                ),
                "Normal",
            ),
        }
    }
}

const APPS: &[&str] = &["web", "api", "checkout", "billing", "search", "worker"];

#[cfg(test)]
mod tests;
