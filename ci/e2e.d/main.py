"""The main job on a real Kubernetes: what ci/e2e runs inside the cluster's network namespace."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.request

import cases
import journal
import load
import processes
import recorder
from checks import Failed, Report, expect, say, some, until
from kube import Api, ApiError, kubectl, kubectl_clean
from prometheus import Account, Prometheus
from receivers import Loki, Webhook

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
ACCOUNT = "system:serviceaccount:nodetap:nodetap-agent"
COMMANDS = {"agent": "nodetap-agent", "aggregator": "nodetap-aggregator"}
PORTS = {"agent": 9465, "aggregator": 2112}
LOAD_SECONDS = 30


class Test:
    """The cluster, what watches it, and what receives."""

    def __init__(self, arguments):
        self.work = pathlib.Path(arguments.work)
        self.programs = pathlib.Path(arguments.prometheus)
        self.report = Report()
        self.api = Api()
        self.volume = journal.Volume(self.work / "journal")
        self.webhook = Webhook(("10.99.0.1", 8081))
        self.loki = Loki(("10.99.0.1", 3100))
        # Before anything is installed, so that nothing escapes them.
        self.events = recorder.Events(self.api)
        self.deaths = recorder.Deaths(self.api)
        self.events.start()
        self.deaths.start()
        self.begun_version = 0
        self.begun_ns = 0

    # --- what is there

    def pods(self, component):
        listed = self.api.get(f"/api/v1/namespaces/nodetap/pods?labelSelector=app.kubernetes.io/component={component}")["items"]
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def our_pods(self):
        return [(component, pod) for component in COMMANDS for pod in self.pods(component)]

    def process(self, component, pod):
        found = processes.of_pod(pod["metadata"]["uid"], COMMANDS[component])
        if len(found) != 1:
            raise LookupError(f"{component} on {pod['spec']['nodeName']} has processes {found}")
        return found[0]

    def ready(self):
        """All of ours, and whether they are ready."""
        states = [(pod["metadata"]["name"], next((c["status"] for c in pod["status"].get("conditions", []) if c["type"] == "Ready"), "False"))
                  for _, pod in self.our_pods()]
        return len(states) == 3 and all(state == "True" for _, state in states)

    def metrics(self, component, pod, accept="text/plain"):
        request = urllib.request.Request(f"http://{pod['status']['podIP']}:{PORTS[component]}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.headers.get("Content-Type"), answer.read().decode()

    def marker(self):
        """Writes an event; the resourceVersion up to which all must have arrived."""
        posted = self.api.post("/api/v1/namespaces/e2e/events", load.event(f"marker-{time.time_ns()}", "e2e", reason="Marker"))
        uid, version = posted["metadata"]["uid"], posted["metadata"]["resourceVersion"]
        until("the marker is in the journal", lambda: self.volume.has_event(uid, version), 60)
        until("the marker is on the record", lambda: self.events.failure or (uid, version) in self.events.states, 20)
        expect(self.events.failure is None, f"the recording watch broke: {self.events.failure}")
        return int(version)

    def arrived(self, seconds=60):
        """Waits until what is in the journal is at every receiver. Keys by receiver, as often as they came."""
        wanted = self.journalled()
        def lacking():
            return {name: wanted - set(keys) for name, keys in self.delivered().items()}
        try:
            until("everything is delivered", lambda: not any(lacking().values()), seconds, 0.5)
        except Failed as failure:
            raise Failed("; ".join(f"{name} lacks {len(keys)} of {len(wanted)}: {some(keys, 3)}" for name, keys in lacking().items() if keys) or str(failure)) from None
        return wanted, self.delivered()

    def journalled(self):
        events = {("event", uid, version) for uid, version in self.volume.events()}
        return events | {("death", death["uid"], death["container"], death["id"]) for death in self.volume.deaths()}

    def delivered(self):
        return {
            "file": [journal.key(record) for record in self.volume.file_records()[0]],
            "webhook": [journal.key(record) for record in self.webhook.records()],
            "loki": [journal.key(record) for record in self.loki.records()],
        }

    def compare(self):
        """The journal's states of events against the record's, from the beginning to now."""
        last = self.marker()
        ours = self.volume.event_states(self.begun_version, last)
        theirs = self.events.between(self.begun_version, last)
        expect(theirs, "nothing was recorded")
        missing, extra = theirs - set(ours), set(ours) - theirs
        expect(not missing, f"{len(missing)} of {len(theirs)} are lost: {some(map(self.events.describe, missing))}")
        expect(not extra, f"{len(extra)} are in the journal that nobody recorded: {some(extra)}")
        expect(len(ours) == len(set(ours)), f"{len(ours) - len(set(ours))} are there twice")
        return f"{len(theirs)} states, none missing, none twice"

    def compare_deaths(self):
        """Every death that pods' status showed is in the journal once."""
        known = {container: death for container, death in self.deaths.known().items() if death["finished"] * 10**9 > self.begun_ns}
        def missing():
            there = {death["id"] for death in self.volume.deaths()}
            return {f"{d['namespace']}/{d['pod']}/{d['container']} exit {d['exit']}" for container, d in known.items() if container not in there}
        try:
            until("every death is in the journal", lambda: not missing(), 30, 0.5)
        except Failed:
            raise Failed(f"{len(missing())} of {len(known)} are missing: {some(missing())}") from None
        ids = [(d["uid"], d["container"], d["id"]) for d in self.volume.deaths()]
        twice = {i for i in ids if ids.count(i) > 1}
        expect(not twice, f"there twice: {some(twice)}")
        return f"{len(known)} recorded, {len(ids)} in the journal"

    def save_logs(self):
        """What our containers said, beside the rest of this run."""
        folder = self.work / "logs"
        folder.mkdir(exist_ok=True)
        for component, pod in self.our_pods():
            for previous in ([], ["--previous"]):
                try:
                    text = kubectl("-n", "nodetap", "logs", pod["metadata"]["name"], *previous)
                    (folder / f"{component}-{pod['spec'].get('nodeName')}{'-previous' if previous else ''}.log").write_text(text)
                except OSError:
                    pass
        (folder / "pods.yaml").write_text(kubectl("-n", "nodetap", "get", "pods", "-o", "yaml"))


# --- installing, as a user would

def certificates(test):
    """The certificate script makes the CA, the aggregator's and each node's certificate."""
    script = [str(ROOT / "manifests" / "make-certificates"), "--folder", str(test.work / "certificates")]
    for expected in ("3 made, 0 kept", "0 made, 3 kept"):
        done = subprocess.run(script, capture_output=True, text=True, timeout=60)
        expect(done.returncode == 0, done.stderr)
        expect(expected in done.stderr, f"{expected!r} is not in: {done.stderr}")


def dry_run(test):
    """kubectl apply -k manifests/kubernetes --dry-run=server is clean."""
    status, said = kubectl_clean("apply", "-k", str(ROOT / "manifests" / "kubernetes"), "--dry-run=server")
    expect(status == 0 and not said, f"exit {status}: {said}")


def openshift(test):
    """All of manifests/openshift but OpenShift's own kind is clean, too; and that kind allows what the agent asks for."""
    rendered = kubectl("kustomize", str(ROOT / "manifests" / "openshift")).split("\n---\n")
    theirs = [document for document in rendered if "\nkind: SecurityContextConstraints" in document]
    expect(len(theirs) == 1, f"{len(theirs)} SecurityContextConstraints")
    rest = "\n---\n".join(document for document in rendered if document not in theirs)
    status, said = kubectl_clean("apply", "--dry-run=server", "-f", "-", text=rest)
    expect(status == 0 and not said, f"exit {status}: {said}")
    agent = next(item for item in documents(kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=rest)) if item["kind"] == "DaemonSet")
    spec = agent["spec"]["template"]["spec"]
    allowed = theirs[0].split("\nvolumes:\n")[1].split()
    for volume in spec["volumes"]:
        kind = next(key for key in volume if key != "name")
        expect(kind in allowed, f"volume {volume['name']} is a {kind}, of which the SecurityContextConstraints says nothing")


def until_pods(test, what, condition, seconds):
    """As `until`; where it fails it says what keeps pods of the test from running."""
    try:
        return until(what, condition, seconds)
    except Failed as failure:
        raise Failed(f"{failure}; {waiting_pods(test.api, cases.NAMESPACE)}") from None


def waiting_pods(api, namespace):
    """Which pods have not begun, why, and what the nodes say of themselves."""
    def why(pod):
        containers = pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
        waits = {each["state"]["waiting"].get("reason", "") for each in containers if "waiting" in each["state"]}
        return pod["status"].get("reason") or ", ".join(sorted(waits)) or "no container yet"
    # One that has failed by itself was made to; one with a reason was refused or evicted.
    pods = [pod for pod in api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
            if pod["status"].get("phase") == "Pending" or pod["status"].get("reason")]
    reasons = sorted({f"{pod['status']['phase']} on {pod['spec'].get('nodeName', 'no node')}: {why(pod)}" for pod in pods})
    nodes = [f"{node['metadata']['name']} {condition['type']}: {condition.get('message', '')}"
             for node in api.get("/api/v1/nodes")["items"] for condition in node["status"].get("conditions", [])
             if (condition["status"] == "True") != (condition["type"] == "Ready")]
    return f"{len(pods)} pods wait or were refused: {some(reasons) or 'none'}; nodes: {some(nodes) or 'all well'}"


def install(test):
    """kubectl apply -k brings agents and aggregator to ready."""
    storage = (HERE / "storage.yaml").read_text().replace("JOURNAL", str(test.volume.folder))
    kubectl("apply", "-f", "-", text=storage)
    begun = time.monotonic()
    kubectl("apply", "-k", str(HERE / "overlay"))
    try:
        until("one agent a node and the aggregator are ready", test.ready, 90)
    except Failed as failure:
        raise Failed(f"{failure}\n{kubectl('-n', 'nodetap', 'get', 'pods', '-o', 'wide')}") from None
    test.report.figure("from kubectl apply to everything ready", f"{time.monotonic() - begun:.1f} s")
    agents = {pod["spec"]["nodeName"] for pod in test.pods("agent")}
    expect(agents == {"node1", "node2"}, f"agents are on {agents}")


def begin(test):
    """An event posted after that is in the journal within 5 s."""
    kubectl("create", "namespace", "e2e")
    kubectl("create", "namespace", "e2e-load")
    for namespace in ("e2e", "e2e-load"):
        until("its service account is there", lambda: kubectl("-n", namespace, "get", "serviceaccount", "default"), 30)
    posted = time.monotonic()
    test.begun_version = test.marker()
    test.begun_ns = time.time_ns()
    taken = time.monotonic() - posted
    expect(taken < 5, f"took {taken:.1f} s")
    return f"{taken:.2f} s"


def monitoring(test):
    """kubectl apply -k manifests/monitoring is taken where the operator's kind is known."""
    kubectl("apply", "-f", str(HERE / "service-monitor-crd.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com", "--timeout=30s")
    path = str(ROOT / "manifests" / "monitoring")
    status, said = until("the kind is served", lambda: (lambda r: r if r[0] == 0 else None)(kubectl_clean("apply", "-k", path, "--dry-run=server")), 20)
    expect(not said, said)
    kubectl("apply", "-k", path)


# --- what they may do

def rights(test):
    """The agent's service account may do what it needs and nothing else."""
    listed = kubectl("auth", "can-i", "--list", f"--as={ACCOUNT}")
    ours = {" ".join(line.split()) for line in listed.splitlines()[1:] if line.strip()}
    wanted = {line.strip() for line in (HERE / "can-i.txt").read_text().splitlines() if line.strip() and not line.startswith("#")}
    expect(ours == wanted, f"more: {some(ours - wanted)}; less: {some(wanted - ours)}")


def aggregator_rights(test):
    """The aggregator has no token, and its service account no right that any other has not."""
    spec = test.pods("aggregator")[0]["spec"]
    mounted = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    expect(not any("serviceaccount" in path for path in mounted), f"mounts {mounted}")
    def of(account):
        return {" ".join(line.split()) for line in kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{account}").splitlines()}
    more = of("nodetap:nodetap-aggregator") - of("e2e:default")
    expect(not more, some(more))


def restricted(test):
    """Without hostPath both pods pass the restricted level, and with it nothing but hostPath stands in the way."""
    name = "e2e-restricted"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    def admit(folder):
        rendered = kubectl("kustomize", str(ROOT / "manifests" / folder))
        items = documents(kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=rendered))
        answers = {}
        for item in items:
            if item["kind"] not in ("DaemonSet", "Deployment"):
                continue
            spec = item["spec"]["template"]["spec"]
            for field in ("serviceAccountName", "priorityClassName"):
                spec.pop(field, None)
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": item["metadata"]["name"], "namespace": name}, "spec": spec}
            try:
                test.api.post(f"/api/v1/namespaces/{name}/pods?dryRun=All", body)
                answers[item["kind"]] = ""
            except ApiError as refused:
                answers[item["kind"]] = refused.message
        return answers
    until("its service account is there", lambda: kubectl("-n", name, "get", "serviceaccount", "default"), 30)
    answers = admit("restricted")
    expect(answers == {"DaemonSet": "", "Deployment": ""}, f"{answers}")
    answers = admit("kubernetes")
    expect(answers["Deployment"] == "", answers["Deployment"])
    expect("hostPath" in answers["DaemonSet"], f"hostPath is not what is refused: {answers['DaemonSet']}")
    other = [word for word in ("runAsNonRoot", "capabilities", "allowPrivilegeEscalation", "seccomp", "runAsUser") if word in answers["DaemonSet"]]
    expect(not other, f"{other} as well: {answers['DaemonSet']}")


def documents(text):
    """kubectl prints one JSON document after the other, or a List of them."""
    decoder, rest, found = json.JSONDecoder(), text.strip(), []
    while rest:
        item, end = decoder.raw_decode(rest)
        found += item["items"] if item["kind"] == "List" else [item]
        rest = rest[end:].lstrip()
    return found


def own_certificate(test):
    """A container sees its own node's certificate and no other."""
    for pod in test.pods("agent"):
        process = test.process("agent", pod)
        files = sorted(str(path.relative_to(f"/proc/{process}/root/etc/nodetap")) for path in pathlib.Path(f"/proc/{process}/root/etc/nodetap").rglob("*.*")
                       if path.is_file() and ".." not in str(path.relative_to(f"/proc/{process}/root/etc/nodetap")))
        expect(files == ["ca/ca.crt", "tls/tls.crt", "tls/tls.key"], f"sees {files}")
        text = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", f"/proc/{process}/root/etc/nodetap/tls/tls.crt"], capture_output=True, text=True).stdout
        expect(f"nodetap://node/{pod['spec']['nodeName']}" in text, text)


# --- the load and the deaths

def measure(test, name, seconds):
    """CPU in percent of a core over a while, and memory now. The CPU of all, in seconds."""
    before = {}
    for component, pod in test.our_pods():
        process = test.process(component, pod)
        before[pod["metadata"]["name"]] = component, pod, process, processes.cpu(process)
    begun = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    total = 0.0
    for component, pod, process, cpu in before.values():
        used = processes.cpu(process) - cpu
        total += used
        now, peak = processes.rss(process)
        test.report.figure(f"{component} on {pod['spec']['nodeName']}, {name}",
                           f"{used / took * 100:.2f} % of a core, {now:.1f} MiB resident, peak {peak:.1f} MiB")
    return total


def run_load(test):
    """The deaths, the scheduling failure and the event updated 50 times can be made."""
    generator = load.Generator(Api(), "e2e-load")
    generator.start()
    stopped = cases.told_to_stop(6)
    test.named, test.storm = cases.named() + stopped, cases.storm(60)
    for death in test.named:
        test.api.post("/api/v1/namespaces/e2e/pods", death.body)
    test.api.post("/api/v1/namespaces/e2e/pods", cases.unschedulable())
    def fifty():
        api = Api()
        posted = api.post("/api/v1/namespaces/e2e/events", load.event("updated-fifty-times", "e2e", reason="Recurring"))
        for count in range(2, 52):
            posted = load.update(api, posted, count)
    updating = threading.Thread(target=fifty)
    updating.start()
    for death in stopped:
        path = f"/api/v1/namespaces/e2e/pods/{death.pod}"
        until_pods(test, f"{death.pod} runs", lambda: test.api.get(path)["status"]["phase"] == "Running", 60)
        test.api.delete(path, 10)
    for body in cases.loops(4):
        test.api.post("/api/v1/namespaces/e2e/pods", body)
    # Two a second: as they would come, not a queue before a kubelet.
    def storm():
        api, begun = Api(), time.monotonic()
        for number, death in enumerate(test.storm):
            time.sleep(max(0.0, begun + number / 2 - time.monotonic()))
            api.post("/api/v1/namespaces/e2e/pods", death.body)
    threading.Thread(target=storm, daemon=True).start()
    measure(test, f"with {generator.rate} events/s and {len(test.storm)} deaths", LOAD_SECONDS)
    updating.join(60)
    until_pods(test, "every pod of the storm has ended", lambda: len([d for d in test.deaths.known().values() if d["pod"].startswith("storm-")]) == len(test.storm), 120)
    posted = generator.stop()
    expect(not generator.failures, f"{generator.failures[:3]}")
    expect(generator.posted <= test.events.states.keys() or until("all are recorded", lambda: generator.posted <= test.events.states.keys(), 10), "not recorded")
    return f"{posted} states of events posted"


def equal(test):
    """The states of events in the journal are those that a plain watch recorded."""
    return test.compare()


def deaths_equal(test):
    """Every death that a plain watch of pods saw is in the journal, once."""
    return test.compare_deaths()


def deaths_exact(test):
    """Each death is at file, webhook and Loki exactly once, with code, reason, kind, last line and explanation."""
    _, delivered = test.arrived()
    records = {"file": test.volume.file_records()[0], "webhook": test.webhook.records(), "loki": test.loki.records()}
    wrong = []
    for place, all_records in records.items():
        for death in test.named + test.storm:
            found = [record for record in all_records if record.get("container") and record["involvedObject"].get("name") == death.pod
                     and record["involvedObject"].get("namespace") == "e2e" and record["container"]["name"] == death.container]
            if len(found) != 1:
                wrong.append(f"{place}: {death.pod} came {len(found)} times")
                continue
            container = found[0]["container"]
            for what, ours, wanted in (
                ("exit code", container.get("exitCode"), death.exit_code), ("reason", container.get("reason"), death.reason),
                ("kind", container.get("kind"), death.kind), ("last line", (container.get("lastLines") or [None])[-1], death.last_line),
                ("face", found[0].get("reason"), "ContainerOOMKilled" if death.reason == "OOMKilled" else "ContainerDied"),
            ):
                if ours != wanted:
                    wrong.append(f"{place}: {death.pod}: {what} is {ours!r}, not {wanted!r}")
            told = container.get("explanation", "")
            if not (told.startswith(death.told) and told.endswith(f"; last line: {death.last_line}") and found[0].get("message") == told):
                wrong.append(f"{place}: {death.pod}: is explained by {told!r}, its message is {found[0].get('message')!r}")
    expect(not wrong, f"{len(wrong)} are wrong: {some(wrong, 8)}")
    return f"{len(test.named) + len(test.storm)} deaths at each"


def all_exact(test):
    """Everything in the journal is at file, webhook and Loki, exactly once."""
    wanted, delivered = test.arrived()
    for place, keys in delivered.items():
        expect(len(keys) == len(set(keys)), f"{place}: {len(keys) - len(set(keys))} of {len(keys)} came again")
    expect(not test.webhook.refused, some(test.webhook.refused))
    expect(not test.loki.refused, f"Loki refused: {some(test.loki.refused)}")
    torn = test.volume.file_records()[1]
    expect(torn == 0, f"{torn} lines of the file are cut")
    return f"{len(wanted)} records; {test.loki.pushes} pushes to Loki"


def scheduling(test):
    """The scheduling failure, written through events.k8s.io, is at all three with a time."""
    test.arrived()
    def of(records):
        return [r for r in records if r.get("reason") == "FailedScheduling" and r["involvedObject"].get("name") == "fits-nowhere" and not r.get("container")]
    for place, records in (("file", test.volume.file_records()[0]), ("webhook", test.webhook.records()), ("loki", test.loki.records())):
        found = of(records)
        expect(found, f"{place} lacks it")
        expect(len({journal.key(r) for r in found}) == len(found), f"{place} has it twice")
        expect(found[0].get("eventTime") and not found[0].get("firstTimestamp"), f"{place}: its times are {found[0].get('eventTime')}, {found[0].get('firstTimestamp')}")
    written = of([item for item in test.events.states.values()])
    expect(written and (written[0].get("reportingComponent") or written[0].get("reportingController")) == "default-scheduler", f"not written by the scheduler: {written[:1]}")
    stamps = [stamp for stamp, record in test.loki.stamps() if record.get("reason") == "FailedScheduling"]
    expect(all(abs(time.time_ns() - stamp) < 600 * 10**9 for stamp in stamps), f"Loki has it at {stamps}")


def fifty_times(test):
    """An event updated 50 times is 51 states, each delivered once, and 51 occurrences."""
    test.arrived()
    for place, records in (("file", test.volume.file_records()[0]), ("webhook", test.webhook.records()), ("loki", test.loki.records())):
        found = [r for r in records if r["metadata"].get("name") == "updated-fifty-times" and not r.get("container")]
        counts = sorted(r.get("count", 0) for r in found)
        expect(counts == list(range(1, 52)), f"{place} has {len(counts)} states with counts {counts[:3]}..{counts[-3:]}")
        times = sum(r.get("occurrences", 0) for r in found)
        expect(times == 51, f"{place}: {times} occurrences")


def latency(test):
    """From a death to the journal it takes less than 5 s, at the 99th percentile."""
    known = test.deaths.known()
    ours = [death for death in test.volume.deaths() if death["id"] in known and known[death["id"]]["namespace"] == "e2e" and death["taken_ns"] > test.begun_ns]
    took = sorted(death["taken_ns"] / 10**9 - known[death["id"]]["finished"] for death in ours)
    plain = sorted(known[death["id"]]["seen"] - known[death["id"]]["finished"] for death in ours)
    expect(len(took) >= 50, f"only {len(took)} deaths to tell from")
    def percentile(values, share):
        return values[min(len(values) - 1, int(len(values) * share))]
    said = (f"p50 {percentile(took, 0.5):.2f} s, p99 {percentile(took, 0.99):.2f} s, longest {took[-1]:.2f} s of {len(took)}"
            " (the kubelet cuts the time of death to the second: up to 1 s less)")
    test.report.figure("death to a plain watch of pods", f"p50 {percentile(plain, 0.5):.2f} s, p99 {percentile(plain, 0.99):.2f} s, longest {plain[-1]:.2f} s")
    test.report.figure("death to journal", said)
    expect(percentile(took, 0.99) < 5, said)
    return said


def many(test):
    """The states of events in the journal are those that a plain watch recorded, when 300 a second are asked for."""
    generators = [load.Generator(Api(), "e2e-load", 75) for _ in range(4)]
    for generator in generators:
        generator.start()
    until("they write", lambda: all(generator.posted for generator in generators), 20)
    before, begun = sum(len(generator.posted) for generator in generators), time.monotonic()
    used = measure(test, "with up to 300 events/s", 20)
    written, took = sum(len(generator.posted) for generator in generators) - before, time.monotonic() - begun
    for generator in generators:
        generator.stop()
        expect(not generator.failures, f"{generator.failures[:3]}")
    test.report.figure("CPU of agents and aggregator together, with up to 300 events/s", f"{used / written * 10**6:.0f} us an event; {written / took:.0f} events/s were reached")
    return test.compare()


# --- metrics

def promtool(test):
    """promtool check metrics finds nothing."""
    for component, pod in test.our_pods():
        content, text = test.metrics(component, pod)
        expect(content.startswith("text/plain"), f"{component}: Content-Type {content}")
        done = subprocess.run([test.programs / "promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        expect(done.returncode == 0 and not done.stderr + done.stdout, f"{component}: exit {done.returncode}: {done.stderr}{done.stdout}")


def openmetrics(test):
    """OpenMetrics is given to whom asks for it, whole to its end."""
    for component, pod in test.our_pods():
        content, text = test.metrics(component, pod, "application/openmetrics-text;version=1.0.0")
        expect(content.startswith("application/openmetrics-text"), f"{component}: Content-Type {content}")
        expect(text.endswith("# EOF\n"), f"{component} ends with {text[-30:]!r}")


def scrape(test):
    """Prometheus finds and scrapes the aggregator and both agents by what the ServiceMonitors say."""
    monitors = test.api.get("/apis/monitoring.coreos.com/v1/namespaces/nodetap/servicemonitors")["items"]
    expect(len(monitors) == 2, f"{len(monitors)} ServiceMonitors")
    server = Prometheus(test.programs, test.work / "prometheus", monitors, test.api)
    wanted = {("nodetap-agent", "node1"), ("nodetap-agent", "node2"), ("nodetap-aggregator", None)}
    try:
        try:
            until("all targets are up", lambda: {t[:2] for t in server.targets() if t[2] == "up"} == wanted, 60)
        except Failed:
            raise Failed(f"targets: {server.targets()}") from None
        events = until("it has nodetap_events_total", lambda: server.query("sum(nodetap_events_total)"), 30)[0][1]
        deaths = until("it has the deaths", lambda: server.query('sum(nodetap_container_deaths_total{namespace="e2e",exit="7"})'), 30)[0][1]
        expect(events > 0 and deaths == 1, f"{events} events, {deaths} deaths with exit 7")
        series = server.query('count({job=~".+",__name__=~"nodetap_.+"})')[0][1]
        labelled = server.query('up{namespace="nodetap",service=~"nodetap-(agent|aggregator)",pod=~"nodetap-.+",endpoint="metrics"} == 1')
        expect({(labels["job"], labels.get("node")) for labels, _ in labelled} == wanted, f"not labelled as the operator would: {labelled}")
        found = f"found by its own Kubernetes client as {Account.NAME}" if server.itself else "TOLD BY http_sd of every endpoint, as this build has no Kubernetes client"
        return f"3 targets, {series:.0f} series of ours; {found}"
    finally:
        server.stop()


# --- kills

def kill_each(test):
    """After kill -9 of each of our containers in turn, while events flow and containers die, each is ready again."""
    generator = load.Generator(Api(), "e2e-load")
    generator.start()
    test.killed = []
    for round_number, (component, pod) in enumerate(sorted(test.our_pods(), key=lambda each: each[1]["metadata"]["name"])):
        node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
        # One each second on both nodes: some die just before, some while nobody looks, some after.
        dying = [cases.Death(cases.pod(f"killed-{round_number}-{number}-{which}", f"sleep {number}; echo gone after {number}; exit {40 + number}", which),
                             "main", 40 + number, "Error", f"gone after {number}") for number in range(4) for which in ("node1", "node2")]
        for death in dying:
            test.api.post("/api/v1/namespaces/e2e/pods", death.body)
        test.killed += dying
        first = f"killed-{round_number}-0-{node}"
        until_pods(test, "the first of them has died", lambda: any(d["pod"] == first for d in test.deaths.known().values()), 60)
        old = test.process(component, pod)
        now, peak = processes.rss(old)
        test.report.figure(f"{component} on {node} before its kill", f"{now:.1f} MiB resident, peak {peak:.1f} MiB")
        processes.kill(old)
        def successor():
            found = [process for process in processes.of_pod(uid, COMMANDS[component]) if process != old]
            return found[0] if found else None
        new = until(f"{component} on {node} starts again", successor, 90, 0.02)
        def answers():
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{PORTS[component]}/readyz", timeout=2) as answer:
                return answer.status == 200
        until(f"{component} on {node} is ready again", answers, 60, 0.02)
        test.report.figure(f"{component} on {node}: from start to ready", f"{processes.age(new):.2f} s")
        until("the kubelet says so, too", test.ready, 60)
    until("all that had to die has", lambda: len([d for d in test.deaths.known().values() if d["pod"].startswith("killed-")]) == len(test.killed), 60)
    posted = generator.stop()
    expect(not generator.failures, f"{generator.failures[:3]}")
    return f"{posted} states of events posted meanwhile"


def equal_again(test):
    """The states of events in the journal are still those that a plain watch recorded."""
    return test.compare()


def deaths_equal_again(test):
    """Every death is in the journal still, once, our own containers' among them."""
    said = test.compare_deaths()
    ours = [death for death in test.volume.deaths() if death["namespace"] == "nodetap" and death["exit"] == 137]
    expect(len(ours) == 3, f"{len(ours)} deaths of our own containers")
    return said


def delivered_again(test):
    """Everything is at file, webhook and Loki, at least once."""
    wanted, delivered = test.arrived(120)
    expect(not test.loki.refused, f"Loki refused: {some(test.loki.refused)}")
    for place, keys in delivered.items():
        test.report.figure(f"delivered again to {place} after the kills", f"{len(keys) - len(set(keys))} of {len(set(keys))}")
    test.report.figure("delivered again to loki, which drops equal entries", f"{test.loki.repeated}")
    return f"{len(wanted)} records"


def last_lines_again(test):
    """Deaths around the kills have their code, and where a log was still there, their last line."""
    found = {record["involvedObject"]["name"]: record["container"] for record in test.webhook.records() if record.get("container")}
    wrong = [f"{death.pod}: {found.get(death.pod, {}).get('exitCode')}" for death in test.killed if found.get(death.pod, {}).get("exitCode") != death.exit_code]
    expect(not wrong, some(wrong))
    without = [death.pod for death in test.killed if (found[death.pod].get("lastLines") or [None])[-1] != death.last_line]
    expect(not without, f"without their last line: {some(without)}")
    return f"{len(test.killed)} deaths"


def restarts(test):
    """Nothing of ours restarted but what was killed."""
    counts = {f"{component} on {pod['spec']['nodeName']}": pod["status"]["containerStatuses"][0]["restartCount"] for component, pod in test.our_pods()}
    expect(set(counts.values()) == {1}, f"{counts}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--prometheus", required=True)
    test = Test(parser.parse_args())
    report = test.report
    installing = [certificates, dry_run, openshift, install, begin]
    checking = [
        monitoring, rights, aggregator_rights, restricted, own_certificate,
        run_load, equal, deaths_equal, deaths_exact, all_exact, scheduling, fifty_times, latency, many,
        promtool, openmetrics, scrape,
        kill_each, equal_again, deaths_equal_again, delivered_again, last_lines_again, restarts,
    ]
    try:
        for check in installing:
            if not report.run(check, test):
                say("the rest cannot be checked")
                break
        else:
            measure(test, "at rest", 10)
            for check in checking:
                report.run(check, test)
    finally:
        try:
            test.save_logs()
        except (OSError, ApiError) as failure:
            say(f"could not save the logs: {failure}")
    say(f"logs are in {test.work / 'logs'}")
    status = report.finish()
    sys.stdout.flush()
    os._exit(status)  # the watches' threads have nothing more to say


if __name__ == "__main__":
    main()
