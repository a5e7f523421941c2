//! The lives of pods and containers: created, started, ended, in back-off, started again, deleted.
//!
//! Each step writes what a kubelet writes: the pod's status, its events, its logs; and each death is noted in the truth.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use super::events::Reference;
use super::logs::{self, Logs};
use super::object::Resource;
use super::pods::{
    Container, ContainerKind, ContainerState, Ending, Pod, PodSpec, RestartPolicy, Termination,
};
use super::recorder::{Occurrence, Recorder};
use super::state::State;
use super::status::Status;
use super::truth::Death;

/// All pods of the cluster.
#[derive(Debug)]
pub struct Lives {
    state: Arc<State>,
    recorder: Arc<Recorder>,
    /// Log folder by node.
    folders: BTreeMap<String, PathBuf>,
    back_off: Duration,
    back_off_max: Duration,
    pods: Mutex<BTreeMap<String, Pod>>,
}

/// Which pod is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// spec.nodeName
    pub node: String,
}

/// How a container in back-off is shown: the kubelet does both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackOff {
    /// `state.waiting` is CrashLoopBackOff, `lastState.terminated` is this death.
    Waiting,
    /// `state.terminated` is this death, `lastState.terminated` the one before.
    Terminated,
}

// === impl Lives ===

impl Lives {
    pub(super) fn new(
        state: Arc<State>,
        recorder: Arc<Recorder>,
        folders: BTreeMap<String, PathBuf>,
        options: &super::Options,
    ) -> Self {
        let (back_off, back_off_max) = (options.back_off, options.back_off_max);
        Self { state, recorder, folders, back_off, back_off_max, pods: Mutex::default() }
    }

    /// Creates a pod that is bound to its node and waits for its containers.
    ///
    /// # Errors
    /// There is a pod of that name, or no such node.
    pub fn create(&self, spec: PodSpec) -> anyhow::Result<PodRef> {
        anyhow::ensure!(self.folders.contains_key(&spec.node), "no node is called {}", spec.node);
        let has_init = spec.containers.iter().any(|container| container.kind != ContainerKind::App);
        let waits_for = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let containers = spec.containers.iter().map(|spec| Container::new(spec.clone(), waits_for)).collect();
        let pod = Pod {
            uid: self.state.random.uid(),
            owner_uid: self.state.random.uid(),
            created: Timestamp::now(),
            deleted: None,
            containers,
            spec,
        };
        let reference = PodRef {
            namespace: pod.spec.namespace.clone(),
            name: pod.spec.name.clone(),
            uid: pod.uid.clone(),
            node: pod.spec.node.clone(),
        };
        let mut pods = self.lock();
        let taken = |pod: &Pod| pod.spec.namespace == reference.namespace && pod.spec.name == reference.name;
        anyhow::ensure!(!pods.values().any(taken), "a pod {}/{} exists", reference.namespace, reference.name);
        self.state.put_pod(|revision| pod.store(revision));
        pods.insert(reference.uid.clone(), pod);
        drop(pods);
        let message =
            format!("Successfully assigned {}/{} to {}", reference.namespace, reference.name, reference.node);
        self.tell(&reference, None, "Scheduled", message, "Normal", "default-scheduler");
        Ok(reference)
    }

    /// Creates a pod and runs it: init containers to their end, then sidecars and app containers.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Self::start`].
    pub fn run(&self, spec: PodSpec) -> anyhow::Result<PodRef> {
        let containers = spec.containers.clone();
        let pod = self.create(spec)?;
        for container in containers.iter().filter(|container| container.kind != ContainerKind::App) {
            self.start(&pod, &container.name)?;
            if container.kind == ContainerKind::Init {
                self.end(&pod, &container.name, &Ending::exit(0, "ready"))?;
            }
        }
        for container in containers.iter().filter(|container| container.kind == ContainerKind::App) {
            self.start(&pod, &container.name)?;
        }
        Ok(pod)
    }

    /// Starts a container, for the first time or again.
    ///
    /// # Errors
    /// There is no such pod or container, it is running, or its log cannot be written.
    pub fn start(&self, pod: &PodRef, name: &str) -> anyhow::Result<()> {
        let id = format!("containerd://{}", self.state.random.hex64());
        let image = self.change(pod, |found| {
            let container =
                found.container(name).with_context(|| format!("no container is called {name}"))?;
            let again = !container.id.is_empty();
            let waiting = ContainerState::Running { started: Timestamp::now() };
            match std::mem::replace(&mut container.state, waiting) {
                ContainerState::Running { .. } => {
                    anyhow::bail!("container {name} of {} is running", pod.name)
                }
                ContainerState::Terminated(termination) => container.last = Some(termination),
                ContainerState::Waiting { .. } => {}
            }
            if again {
                container.restart_count += 1;
            }
            container.id = id;
            self.logs(pod, name)?.begin(container.restart_count)?;
            Ok(container.spec.image.clone())
        })?;
        let pulled = format!("Container image \"{image}\" already present on machine");
        self.tell(pod, Some(name), "Pulled", pulled, "Normal", "kubelet");
        self.tell(pod, Some(name), "Created", format!("Container created: {name}"), "Normal", "kubelet");
        self.tell(pod, Some(name), "Started", format!("Container started: {name}"), "Normal", "kubelet");
        Ok(())
    }

    /// Lets a running container write to its log.
    ///
    /// # Errors
    /// There is no such pod or container, or its log cannot be written.
    pub fn write(&self, pod: &PodRef, name: &str, stream: &str, lines: &[&str]) -> anyhow::Result<()> {
        let logs = self.logs(pod, name)?;
        let mut pods = self.lock();
        let container = pods.get_mut(&pod.uid).and_then(|pod| pod.container(name));
        let container = container.with_context(|| format!("pod {} has no container {name}", pod.name))?;
        logs.append(container.restart_count, stream, lines.iter().copied())?;
        Ok(())
    }

    /// Ends a running container: the death is noted in the truth.
    ///
    /// # Errors
    /// There is no such pod or container, it does not run, or its log cannot be written.
    pub fn end(&self, pod: &PodRef, name: &str, ending: &Ending) -> anyhow::Result<Death> {
        let logs = self.logs(pod, name)?;
        self.change(pod, |found| {
            let of_deleted_pod = found.deleted.is_some();
            let container =
                found.container(name).with_context(|| format!("no container is called {name}"))?;
            let ContainerState::Running { started } = container.state else {
                anyhow::bail!("container {name} of {} does not run", pod.name);
            };
            logs.append(container.restart_count, "stderr", ending.last_lines.iter().map(String::as_str))?;
            let last_line =
                logs.read(container.restart_count)?.pop().map(|(_, line)| line).unwrap_or_default();
            container.state = ContainerState::Terminated(Termination {
                exit_code: ending.exit_code,
                signal: ending.signal,
                reason: ending.reason.clone(),
                message: ending.message.clone(),
                started,
                finished: Timestamp::now(),
                container_id: container.id.clone(),
            });
            let death = Death {
                node: pod.node.clone(),
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                pod_uid: pod.uid.clone(),
                container: name.to_owned(),
                container_id: container.id.clone(),
                ordinal: container.restart_count,
                exit_code: ending.exit_code,
                signal: ending.signal,
                reason: ending.reason.clone(),
                last_line,
                of_deleted_pod,
            };
            self.state.truth.death(death.clone());
            Ok(death)
        })
    }

    /// Puts an ended container into back-off, and says so by a BackOff event.
    ///
    /// # Errors
    /// There is no such pod or container, or it has not ended.
    pub fn back_off(&self, pod: &PodRef, name: &str, shape: BackOff) -> anyhow::Result<()> {
        let delay = self.change(pod, |found| {
            let container =
                found.container(name).with_context(|| format!("no container is called {name}"))?;
            let ContainerState::Terminated(termination) = &container.state else {
                anyhow::bail!("container {name} of {} has not ended", pod.name);
            };
            let delay = self.delay(container.restart_count);
            if shape == BackOff::Waiting {
                container.last = Some(termination.clone());
                container.state = ContainerState::Waiting {
                    reason: "CrashLoopBackOff",
                    message: back_off_message(delay, name, pod),
                };
            }
            Ok(delay)
        })?;
        self.tell(pod, Some(name), "BackOff", back_off_message(delay, name, pod), "Warning", "kubelet");
        Ok(())
    }

    /// Ends a container and starts it again as the kubelet does: at once the first time, after a back-off later.
    ///
    /// # Errors
    /// As the steps it takes; a pod that is deleted meanwhile is none.
    pub async fn crash(&self, pod: &PodRef, name: &str, ending: &Ending) -> anyhow::Result<Death> {
        let death = self.end(pod, name, ending)?;
        let restarts = self.restarts(pod, name, ending.exit_code);
        if !restarts {
            return Ok(death);
        }
        if death.ordinal > 0 {
            let shape = if self.state.random.chance(50) { BackOff::Waiting } else { BackOff::Terminated };
            let in_back_off = self.back_off(pod, name, shape);
            if self.is_going(pod) {
                return Ok(death);
            }
            in_back_off?;
            tokio::time::sleep(self.delay(death.ordinal)).await;
        }
        if !self.is_going(pod) {
            self.start(pod, name)?;
        }
        Ok(death)
    }

    /// Asks a pod to go: it has a deletionTimestamp from now on.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn begin_deletion(&self, pod: &PodRef, grace: Duration) -> anyhow::Result<()> {
        let grace = grace.as_secs().try_into().unwrap_or(i64::MAX);
        let running = self.change(pod, |found| {
            found.deleted = Some((Timestamp::now(), grace));
            let running =
                found.containers.iter().filter(|one| matches!(one.state, ContainerState::Running { .. }));
            Ok(running.map(|one| one.spec.name.clone()).collect::<Vec<_>>())
        })?;
        for name in running {
            self.tell(pod, Some(&name), "Killing", format!("Stopping container {name}"), "Normal", "kubelet");
        }
        Ok(())
    }

    /// Takes a pod away, with its logs. Containers that run are ended by SIGKILL before.
    ///
    /// # Errors
    /// There is no such pod, or its logs cannot be removed.
    pub fn remove(&self, pod: &PodRef) -> anyhow::Result<()> {
        for name in self.running(pod) {
            self.end(pod, &name, &Ending::signal(9, ""))?;
        }
        let found = self.lock().remove(&pod.uid);
        found.with_context(|| format!("no pod {}/{}", pod.namespace, pod.name))?;
        self.state
            .delete(Resource::Pods, &[(Arc::from(pod.namespace.as_str()), Arc::from(pod.name.as_str()))]);
        if let Some(folder) = self.folders.get(&pod.node) {
            logs::remove(folder, &pod.namespace, &pod.name, &pod.uid)?;
        }
        Ok(())
    }

    /// Deletes a pod with grace: its containers end by SIGTERM (143), it lingers a moment, it is gone.
    ///
    /// # Errors
    /// As the steps it takes.
    pub async fn delete(&self, pod: &PodRef, linger: Duration) -> anyhow::Result<()> {
        self.begin_deletion(pod, Duration::from_secs(30))?;
        for name in self.running(pod) {
            self.end(pod, &name, &Ending::signal(15, "caught SIGTERM, going down"))?;
        }
        tokio::time::sleep(linger).await;
        self.remove(pod)
    }

    /// The pods there are.
    pub fn pods(&self) -> Vec<PodRef> {
        let of = |pod: &Pod| PodRef {
            namespace: pod.spec.namespace.clone(),
            name: pod.spec.name.clone(),
            uid: pod.uid.clone(),
            node: pod.spec.node.clone(),
        };
        self.lock().values().map(of).collect()
    }

    /// The names of a pod's containers that run.
    pub fn running(&self, pod: &PodRef) -> Vec<String> {
        let pods = self.lock();
        let containers = pods.get(&pod.uid).map(|pod| pod.containers.as_slice()).unwrap_or_default();
        let running = containers.iter().filter(|one| matches!(one.state, ContainerState::Running { .. }));
        running.map(|one| one.spec.name.clone()).collect()
    }

    /// Whether a pod is gone or about to go.
    pub fn is_going(&self, pod: &PodRef) -> bool {
        self.lock().get(&pod.uid).is_none_or(|pod| pod.deleted.is_some())
    }

    /// How long the kubelet waits before it starts a container again: doubled each time, up to a bound.
    pub fn delay(&self, restart_count: u32) -> Duration {
        let times = 1_u32 << restart_count.saturating_sub(1).min(10);
        (self.back_off * times).min(self.back_off_max)
    }

    /// What `pods/log` answers.
    pub(super) fn log(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        previous: bool,
        tail: Option<usize>,
        timestamps: bool,
    ) -> Result<String, Status> {
        let pods = self.lock();
        let pod = pods.values().find(|pod| pod.spec.namespace == namespace && pod.spec.name == name);
        let pod = pod.ok_or_else(|| Status::not_found("pods", name))?;
        let found = match (container, pod.containers.as_slice()) {
            ("", [only]) => only,
            ("", several) => {
                let names: Vec<_> = several.iter().map(|one| one.spec.name.as_str()).collect();
                let names = names.join(" ");
                let why =
                    format!("a container name must be specified for pod {name}, choose one of: [{names}]");
                return Err(Status::bad_request(why));
            }
            (container, several) => {
                several.iter().find(|one| one.spec.name == container).ok_or_else(|| {
                    Status::bad_request(format!("container {container} is not valid for pod {name}"))
                })?
            }
        };
        let container = found.spec.name.as_str();
        // The generation of `lastState`: in back-off it is the container's own. Source: `validateContainerLogStatus` of the kubelet.
        let last = found.last.as_ref().and_then(|last| {
            if last.container_id == found.id {
                Some(found.restart_count)
            } else {
                found.restart_count.checked_sub(1)
            }
        });
        let waits = match &found.state {
            ContainerState::Waiting { reason, .. } => Some(*reason),
            _ => None,
        };
        let generation = match (previous, waits) {
            (true, _) => last.ok_or_else(|| {
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
            }),
            (false, None) => Ok(found.restart_count),
            (false, Some(reason)) => last.ok_or_else(|| {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
            }),
        };
        let generation = generation.map_err(Status::bad_request)?;
        let folder = self.folders.get(&pod.spec.node).ok_or_else(|| Status::not_found("pods", name))?;
        let logs = Logs::new(folder, namespace, name, &pod.uid, container);
        // The kubelet has begun its answer by then: what is wrong stands in it, under a 200.
        Ok(logs.answer(generation, tail, timestamps).unwrap_or_else(|_| {
            let path = logs.file(generation);
            let path = path.display();
            format!(
                "failed to try resolving symlinks in path \"{path}\": lstat {path}: no such file or directory"
            )
        }))
    }

    fn restarts(&self, pod: &PodRef, name: &str, exit_code: i32) -> bool {
        let mut pods = self.lock();
        let Some(pod) = pods.get_mut(&pod.uid) else { return false };
        let policy = pod.spec.restart;
        let kind = pod.container(name).map(|container| container.spec.kind);
        match (kind, policy) {
            (None, _) => false,
            (Some(ContainerKind::Sidecar), _) => true,
            (Some(ContainerKind::Init), RestartPolicy::Always) | (_, RestartPolicy::OnFailure) => {
                exit_code != 0
            }
            (_, RestartPolicy::Always) => true,
            (_, RestartPolicy::Never) => false,
        }
    }

    fn change<T>(
        &self,
        pod: &PodRef,
        change: impl FnOnce(&mut Pod) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut pods = self.lock();
        let found =
            pods.get_mut(&pod.uid).with_context(|| format!("no pod {}/{}", pod.namespace, pod.name))?;
        let answer = change(found)?;
        self.state.put_pod(|revision| found.store(revision));
        Ok(answer)
    }

    fn logs(&self, pod: &PodRef, container: &str) -> anyhow::Result<Logs> {
        let folder =
            self.folders.get(&pod.node).with_context(|| format!("no node is called {}", pod.node))?;
        Ok(Logs::new(folder, &pod.namespace, &pod.name, &pod.uid, container))
    }

    fn tell(
        &self,
        pod: &PodRef,
        container: Option<&str>,
        reason: &str,
        message: String,
        kind: &'static str,
        component: &str,
    ) {
        let by_kubelet = component == "kubelet";
        let occurrence = Occurrence {
            object: Reference {
                kind: "Pod".to_owned(),
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                api_version: "v1".to_owned(),
                resource_version: self.state.store().revision().to_string(),
                field_path: container.map(|name| format!("spec.containers{{{name}}}")).unwrap_or_default(),
            },
            reason: reason.to_owned(),
            message,
            kind,
            component: component.to_owned(),
            host: if by_kubelet { pod.node.clone() } else { String::new() },
            new_api: !by_kubelet,
        };
        if let Err(status) = self.recorder.record(occurrence) {
            tracing::warn!(reason, message = status.message, "an event was refused");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn back_off_message(delay: Duration, container: &str, pod: &PodRef) -> String {
    format!(
        "back-off {}s restarting failed container={container} pod={}_{}({})",
        delay.as_secs(),
        pod.name,
        pod.namespace,
        pod.uid
    )
}
