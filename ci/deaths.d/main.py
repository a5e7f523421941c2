"""Every way to die, on a real Kubernetes, with the runtime's own events as the oracle: what ci/deaths runs inside the cluster."""

import argparse
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.append(str(HERE.parent / "e2e.d"))

import cases  # noqa: E402
import processes  # noqa: E402
from cases import NAMESPACE  # noqa: E402
from checks import Failed, Report, expect, say, some, until  # noqa: E402
from journal import bare  # noqa: E402
from history import History  # noqa: E402
from kube import Api, ApiError, kubectl  # noqa: E402
from oracle import Oracle, Reported, container_id  # noqa: E402

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Test:
    """The cluster, the oracle, and what nodetap delivered."""

    def __init__(self, arguments):
        self.work, self.run_folder = pathlib.Path(arguments.work), pathlib.Path(arguments.run)
        self.api, self.report = Api(), Report()
        self.oracle = Oracle(arguments.run, [1, 2])
        self.reported = Reported(self.work / "journal")
        self.rows, self.seen = [], {}
        self.latencies = []

    # --- ours

    def agents(self):
        listed = self.api.get("/api/v1/namespaces/nodetap/pods?labelSelector=app.kubernetes.io/component=agent")["items"]
        return {pod["spec"]["nodeName"]: pod for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def ready(self):
        listed = self.api.get("/api/v1/namespaces/nodetap/pods")["items"]
        states = [condition["status"] for pod in listed for condition in pod["status"].get("conditions", []) if condition["type"] == "Ready"]
        return len(listed) == 3 and states == ["True"] * 3

    def counted(self, name, container=""):
        """What the agents that run now have counted, of all containers or one."""
        total = 0.0
        for pod in self.agents().values():
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9465/metrics", timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(f"nodetap_agent_tap_{name}_total{{") and f'container="{container}' in line:
                        total += float(line.split()[-1])
        return int(total)

    def missed(self, container=""):
        """Deaths that the agents know of and that nobody saw, by their metrics; of all containers or one."""
        return self.counted("missed_deaths", container) + self.counted("unseen_ends", container)

    def accounted(self, case):
        ends, records = self.deaths(case.name)
        return len(records) + self.missed(case.container) >= len(ends) > 0

    def history(self):
        """The aggregator's history, as a client of the Service would ask it."""
        listed = self.api.get("/api/v1/namespaces/nodetap/pods?labelSelector=app.kubernetes.io/component=aggregator")["items"]
        folder = self.work / "certificates"
        return History(listed[0]["status"]["podIP"], folder / "ca.crt", (folder / "history-token").read_text().strip())

    # --- pods

    def create(self, body):
        self.api.post(PODS, body)

    def statuses(self, name):
        status = self.api.get(f"{PODS}/{name}")["status"]
        return [state for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses") for state in status.get(field) or []]

    def until_running(self, name):
        until(f"{name} runs", lambda: any("running" in state.get("state", {}) for state in self.statuses(name)), 90)
        time.sleep(1.5)

    def until_died(self, name, times=1):
        until(f"{name} dies", lambda: sum(1 for end in self.oracle.of(NAMESPACE) if end["pod"] == name) >= times, 120)

    def take_from_status(self, prefix):
        """Adds to the oracle what the runtime did not tell, or told to nobody: the ends that stand in the pods' status."""
        for pod in self.api.get(PODS)["items"]:
            if not pod["metadata"]["name"].startswith(prefix):
                continue
            for state in pod["status"].get("containerStatuses", []):
                for ended in (state.get(field, {}).get("terminated") for field in ("state", "lastState")):
                    if ended and ended.get("containerID"):
                        name = {"pod": pod["metadata"]["name"], "namespace": NAMESPACE, "uid": pod["metadata"]["uid"], "container": state["name"], "type": "container"}
                        self.oracle.names.setdefault(bare(ended["containerID"]), name)
                        self.oracle.ended(bare(ended["containerID"]), ended["exitCode"], time.time_ns(), int(pod["spec"]["nodeName"][-1]))

    def deaths(self, prefix):
        """The oracle's ends and nodetap's records of the pods whose name begins so."""
        of = re.compile(re.escape(prefix) + r"(-.*)?$")
        ends = [end for end in self.oracle.of(NAMESPACE) if of.match(end["pod"])]
        records = [record for record in self.reported.of(NAMESPACE) if of.match(record["involvedObject"]["name"])]
        return ends, records

    def settle(self, prefix, seconds=20):
        """Waits until as many are reported as died, or it is clear that they will not be."""
        def equal():
            ends, records = self.deaths(prefix)
            return {end["id"] for end in ends} <= {container_id(record) for record in records}
        deadline = time.monotonic() + seconds
        while not equal() and time.monotonic() < deadline:
            time.sleep(0.3)
        return self.deaths(prefix)

    def row(self, name, prefix=None, seconds=20, unseen=lambda: 0):
        """One line of the table. `unseen`: how many ends the agents say that they have not seen."""
        ends, records = self.settle(prefix or name, seconds)
        keys = [(record["involvedObject"]["uid"], record["container"]["name"], container_id(record) or record["container"]["ordinal"]) for record in records]
        said = sum(record["container"].get("missedBefore", 0) for record in records) + unseen()
        twice = len(keys) - len(set(keys))
        lacking = [end for end in ends if end["id"] not in {container_id(record) for record in records}]
        by_log = sum(1 for record in records if not container_id(record))
        first = min(records, key=lambda record: (record["container"]["ordinal"], record["container"].get("finishedAt") or ""), default=None)
        row = {"name": name, "died": len(ends), "reported": len(set(keys)), "missed": said, "lost": max(0, len(lacking) - by_log - said), "twice": twice,
               "lacking": lacking, "records": records, "ends": ends, "sentence": first["container"].get("explanation", "") if first else ""}
        self.rows.append(row)
        codes = {end["id"]: end["exit"] for end in ends}
        # A runtime that was killed does not know itself, after it is back, how what ended meanwhile ended: 255 and Unknown.
        own = [(record["container"].get("exitCode"), codes[container_id(record)]) for record in records
               if container_id(record) in codes and record["container"].get("reason") != "Unknown"]
        row["wrong"] = [f"exit {told} for {died}" for told, died in own if told not in (None, died)]
        row["unknown"] = sum(1 for record in records if record["container"].get("reason") == "Unknown")
        return row


def judge(row, at_least=1):
    expect(row["died"] >= at_least, f"the oracle saw {row['died']} deaths")
    expect(row["twice"] == 0, f"{row['twice']} twice")
    expect(not row["wrong"], some(row["wrong"]))
    expect(row["reported"] <= row["died"], f"{row['died']} died, and {row['reported']} are reported")
    expect(row["lost"] == 0, f"{row['lost']} of {row['died']} neither reported nor said to be missed: {some(end['pod'] + '/' + end['container'] for end in row['lacking'])}")
    unknown = f", {row['unknown']} of them with an exit code that the runtime has lost" if row["unknown"] else ""
    return f"{row['died']} died, {row['reported']} reported{unknown}, {row['missed']} missed and said so"


def matches(case, sentence):
    return any(sentence.startswith(expected) for expected in case.expected.split("|"))


# --- installing

def install(test):
    """The manifests bring agents and aggregator to ready."""
    done = subprocess.run([str(ROOT / "manifests" / "make-certificates"), "--folder", str(test.work / "certificates")], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, done.stderr)
    kubectl("apply", "-f", "-", text=(HERE.parent / "e2e.d" / "storage.yaml").read_text().replace("JOURNAL", str(test.work / "journal")))
    kubectl("apply", "-k", str(HERE / "overlay"))
    kubectl("create", "namespace", NAMESPACE)
    until("all are ready", test.ready, 90)
    until("there is a service account", lambda: kubectl("-n", NAMESPACE, "get", "serviceaccount", "default"), 30)


# --- the table

def make(test):
    """Pods that die in every way can be made."""
    test.cases = cases.ends() + cases.deleted() + [cases.EPHEMERAL, cases.STATIC, cases.JOB]
    (test.run_folder / "static").mkdir(exist_ok=True)
    (test.run_folder / "static" / "static-pod.json").write_text(json.dumps(cases.static_pod()))
    test.api.post(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", cases.job())
    failures, threads = [], []
    def act(case):
        try:
            case.act(test, case)
        except Exception as failure:  # told below, with the others
            failures.append(f"{case.name}: {failure}")
    for case in test.cases:
        if case.body:
            test.create(case.body)
        if case.act:
            threads.append(threading.Thread(target=act, args=(case,)))
            threads[-1].start()
    test.until_running("ephemeral")
    debugger = cases.container("debugger", "sleep 1; echo found nothing; exit 4")
    test.api.patch(f"{PODS}/ephemeral/ephemeralcontainers", {"spec": {"ephemeralContainers": [debugger]}})
    for thread in threads:
        thread.join()
    for case in test.cases:
        try:
            if case.by_status:
                until(f"{case.name} has ended", lambda: test.take_from_status(case.name) or test.deaths(case.name)[0], 90)
            elif case is not cases.JOB:
                test.until_died(case.name, case.deaths)
        except Failed as failure:  # told with the others: the rest is looked at all the same
            failures.append(str(failure))
    until("the job fails", lambda: len(test.deaths("job")[0]) >= 2, 120)
    expect(not failures, some(failures))
    return f"{len(test.cases)} cases"


def side_by_side(test):
    """The same crashes by kubectl describe and by the history, for docs/deaths.md."""
    test.until_died("two-causes", 2)
    until("it runs again", lambda: any("running" in state.get("state", {}) for state in test.statuses("two-causes")), 60)
    rows = until("both can be asked for", lambda: len(found := test.history().records(record="death", name="two-causes")) == 2 and found, 30)
    said = [f"{row['time']}  {row['event']['message']}" for row in rows]
    described = kubectl("-n", NAMESPACE, "describe", "pod", "two-causes")
    (test.work / "side-by-side.txt").write_text(described + "\n\n" + "\n".join(said) + "\n\n" + json.dumps(rows, indent=1))
    return "; ".join(said)


def stop_loops(test):
    """What goes on for ever is deleted."""
    (test.run_folder / "static" / "static-pod.json").unlink()
    for case in test.cases:
        if case.body and not (case.act and case.name != "deleted-mid-crash"):
            try:
                test.api.delete(f"{PODS}/{case.name}", 1)
            except ApiError as failure:
                if failure.status != 404:
                    raise
    until("they are gone", lambda: not [p for p in test.api.get(PODS)["items"] if not p["metadata"]["name"].startswith("job")], 90)


def exit_case(case):
    def check(test):
        if case.unseen:
            # It is judged a minute after the pod was seen last.
            until("each end is seen, or said not to have been", lambda: test.accounted(case), 120)
        row = test.row(case.name, seconds=1 if case.unseen else 20, unseen=lambda: test.missed(case.container) if case.unseen else 0)
        note = judge(row)
        if case.unseen and not row["records"]:
            return note
        own = [record["container"] for record in row["records"] if record["container"]["name"] == case.container]
        first = min(own, key=lambda container: (container["ordinal"], container.get("finishedAt") or ""), default=None)
        expect(first, f"nothing of {case.container}")
        row["sentence"] = first["explanation"]
        if case.exit_code is not None:
            expect(first["exitCode"] == case.exit_code, f"exit {first['exitCode']}, not {case.exit_code}")
        expect(matches(case, first["explanation"]), f"says: {first['explanation']}; expected: {case.expected}")
        return note
    check.__doc__ = f"{case.name}: each death once, with its sentence"
    return check


def rapid(test):
    """Ten deaths of one container, as fast as the kubelet starts it again."""
    test.create(cases.rapid())
    test.until_died("rapid", 10)
    ends = sorted(end["at_ns"] for end in test.deaths("rapid")[0])
    test.api.delete(f"{PODS}/rapid", 1)
    until("it is gone", lambda: not [p for p in test.api.get(PODS)["items"] if p["metadata"]["name"] == "rapid"], 60)
    row = test.row("rapid")
    return f"ten within {(ends[9] - ends[0]) / 1e9:.1f} s; {judge(row, 10)}"


def restarted(what, node, down):
    def check(test):
        prefix = f"{what}-restart"
        for body in cases.dying(prefix, 10, node):
            test.create(body)
        until("two have died", lambda: len(test.deaths(prefix)[0]) >= 2, 90)
        done = subprocess.run([str(ROOT / "ci" / "cluster"), "restart", what, "--node", node, "--after", str(down)], capture_output=True, text=True, timeout=60)
        expect(done.returncode == 0, done.stderr)
        def over():
            return all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in test.api.get(PODS)["items"] if pod["metadata"]["name"].startswith(prefix))
        until("all have ended", over, 120)
        # What ended while the runtime was down it may not tell; the status does.
        test.take_from_status(prefix)
        row = test.row(f"{what} restarted", prefix)
        return judge(row, 10)
    check.__doc__ = f"{what} is killed and comes back after {down} s while containers die: each death once"
    return check


def evicted_for_storage(test):
    """Pods that write more than they may are evicted: each death once, with its sentence."""
    storage = cases.evicted_for_storage()
    for case in storage:
        test.create(case.body)
    notes = []
    for case in storage:
        # The kubelet looks at its disk every 10 s, at volumes every 5 s as it is set here.
        until(f"{case.name} is evicted", lambda: test.api.get(f"{PODS}/{case.name}")["status"].get("reason") == "Evicted", 180)
        test.until_died(case.name)
        notes.append(exit_case(case)(test))
    return "; ".join(notes)


def evicted_for_memory(test):
    """A pod is evicted for want of memory on its node: its death once, with its sentence."""
    case, path = cases.EVICTED, test.run_folder / "node1" / "kubelet.yaml"
    test.create(case.body)
    test.until_running(case.name)
    before = path.read_text()
    def restart(text):
        path.write_text(text)
        done = subprocess.run([str(ROOT / "ci" / "cluster"), "restart", "kubelet", "--node", "node1"], capture_output=True, text=True, timeout=60)
        expect(done.returncode == 0, done.stderr)
    # More than is ever free, and less than there is, so that the agent's request still has room: the kubelet looks for whom to
    # evict, and takes first who has asked for nothing.
    memory = next(int(line.split()[1]) for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    restart(re.sub("(?m)^evictionHard:.*$", f'evictionHard: {{memory.available: "{memory // 1024 - 300}Mi"}}', before))
    try:
        until("it is evicted", lambda: test.api.get(f"{PODS}/{case.name}")["status"].get("reason") == "Evicted", 60)
    finally:
        restart(before)
    test.until_died(case.name)
    return exit_case(case)(test)


# --- crash loops, and an agent that is killed

def loops(test):
    """100 containers in crash loops and the agents killed by -9 ten times: each death once or said to be missed, last lines right."""
    for body in cases.loops(20, 5):
        test.create(body)
    until("each has died", lambda: len({(end["pod"], end["container"]) for end in test.deaths("loop")[0]}) == 100, 180)
    for number in range(10):
        pod = test.agents()[f"node{1 + number % 2}"]
        old = until("it runs", lambda: processes.of_pod(pod["metadata"]["uid"], "nodetap-agent"), 60, 0.05)
        for process in old:
            processes.kill(process)
        until("it runs again", lambda: set(processes.of_pod(pod["metadata"]["uid"], "nodetap-agent")) - set(old), 90, 0.05)
        time.sleep(2.5)
    time.sleep(5)
    for number in range(20):
        test.api.delete(f"{PODS}/loop-{number}", 1)
    until("they are gone", lambda: not [p for p in test.api.get(PODS)["items"] if p["metadata"]["name"].startswith("loop-")], 120)
    until("the agents are ready", test.ready, 60)
    row = test.row("100 loops, 10 kills", "loop", 40)
    row["sentence"] = ""
    right, wrong, without = 0, [], 0
    for record in row["records"]:
        container = record["container"]
        if container.get("exitCode") != 23:
            continue  # deleted before its last word
        last = (container.get("lastLines") or [None])[-1]
        if last is None:
            without += 1
        elif last == f"round {container['ordinal']} of {container['name']}":
            right += 1
        else:
            wrong.append(f"{record['involvedObject']['name']}/{container['name']} {container['ordinal']}: {last}")
    test.report.figure("last lines of the loops", f"{right} right, {len(wrong)} wrong, {without} without")
    note = judge(row, 100)
    expect(not wrong, f"last lines are wrong: {some(wrong)}")
    return f"{note}; {right} last lines right, {without} without"


# --- agents without a disk

def origins(test):
    """Where the agents' ledgers went on from, by node."""
    found = {}
    for node, pod in test.agents().items():
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9465/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("nodetap_agent_tap_ledger_origins_total{") and line.split()[-1] != "0":
                    found[node] = line.split('"')[1]
    return found


def more_deaths(test, prefix, times):
    """Until each of its pods has died so often from now on."""
    def count():
        ends = test.deaths(prefix)[0]
        return {pod: sum(1 for end in ends if end["pod"] == pod) for pod in {end["pod"] for end in ends}}
    before = count()
    return lambda: all(now >= before[pod] + times for pod, now in count().items())


def without_disk(test):
    """Agents without a disk, killed by -9 while containers die three times, and the aggregator with them: each death once or said to be missed."""
    apply(test, "no-state")
    for node in ("node1", "node2"):
        for body in cases.forgotten(node):
            test.create(body)
    until("each has died twice", lambda: len(test.deaths("forgotten")[0]) >= 12 and len({end["pod"] for end in test.deaths("forgotten")[0]}) == 6, 120)
    until("all of it is told", lambda: len(test.deaths("forgotten")[1]) >= 6, 60)
    kills = []
    for aggregator_too in (False, True):
        # As long as three die in each pod no agent runs for longer than a moment.
        enough = more_deaths(test, "forgotten", 3)
        if aggregator_too:
            listed = test.api.get("/api/v1/namespaces/nodetap/pods?labelSelector=app.kubernetes.io/component=aggregator")["items"]
            for process in processes.of_pod(listed[0]["metadata"]["uid"], "nodetap-aggregator"):
                processes.kill(process)
        killed, until_then = 0, time.monotonic() + 120
        while not enough():
            expect(time.monotonic() < until_then, "they do not die any longer")
            for pod in test.agents().values():
                for process in processes.of_pod(pod["metadata"]["uid"], "nodetap-agent"):
                    try:
                        processes.kill(process)
                        killed += 1
                    except ProcessLookupError:
                        pass
            time.sleep(0.1)
        kills.append(killed)
        until("all are ready", test.ready, 120)
        until("the agents go on from what the aggregator remembers", lambda: set(origins(test).values()) == {"aggregator"} and len(origins(test)) == 2, 30)
        enough = more_deaths(test, "forgotten", 1)
        until("each dies again", enough, 60)
        time.sleep(3)
    # An agent's pod that is made anew, as a rollout does.
    enough = more_deaths(test, "forgotten", 3)
    apply(test, "overlay")
    expect(set(origins(test).values()) == {"aggregator"}, f"ledgers go on from {origins(test)}")
    until("each dies again", enough, 60)
    # What a death is yet to say that was missed before it: of a pod that goes it stays in the metric.
    def unsaid():
        said = sum(record["container"].get("missedBefore", 0) for record in test.deaths("forgotten")[1])
        return test.counted("missed_deaths", "forgotten") - said
    unsaid_before = unsaid()
    for node in ("node1", "node2"):
        for body in cases.forgotten(node):
            test.api.delete(f"{PODS}/{body['metadata']['name']}", 1)
    until("they are gone", lambda: not [p for p in test.api.get(PODS)["items"] if p["metadata"]["name"].startswith("forgotten")], 60)
    # The agents judge a minute after a pod was seen last what of it was not seen.
    test.settle("forgotten", 75)
    row = test.row("without a disk", "forgotten", 0, unseen=lambda: test.counted("unseen_ends", "forgotten") + max(0, unsaid() - unsaid_before))
    row["sentence"] = ""
    return f"{judge(row, 40)}; agents killed {' and '.join(map(str, kills))} times"


# --- last words by way of the API server

def apply(test, overlay):
    """Brings what an overlay says, and waits for all agents to be of it."""
    kubectl("apply", "-k", str(HERE / overlay))
    def rolled():
        agents = test.api.get("/apis/apps/v1/namespaces/nodetap/daemonsets/nodetap-agent")
        status = agents["status"]
        return status.get("observedGeneration") == agents["metadata"]["generation"] and status.get("updatedNumberScheduled") == status.get("numberAvailable") == 2
    until("all agents are of it", lambda: rolled() and test.ready(), 120)


def api_log(test):
    """Agents without the log folder ask the API server: each last line that came is of the life that ended, and says where it came from."""
    apply(test, "api-log")
    for body in cases.by_api_server():
        test.create(body)
    ends = 3 + 25 + 1
    until("all have died", lambda: len(test.deaths("asked")[0]) == ends, 240, 1)
    def accounted():
        records = test.deaths("asked")[1]
        return len(records) + sum(record["container"].get("missedBefore", 0) for record in records) >= ends
    until("each end is told, or said not to have been seen", accounted, 60)
    row = test.row("by the API server", "asked", 1)
    for name in ("asked-slow", "asked-at-once", "asked-once"):
        test.api.delete(f"{PODS}/{name}", 1)
    row["sentence"] = ""
    given, wrong, without = {}, [], {}
    for record in row["records"]:
        container, name = record["container"], record["involvedObject"]["name"]
        lines = container.get("lastLines") or []
        if container.get("exitCode") != 24:
            continue
        if not lines:
            without[name] = without.get(name, 0) + 1
        elif lines[-1] != f"round {container['ordinal']}" or container.get("linesFrom") != "API server":
            wrong.append(f"{name} {container['ordinal']}: {lines[-1]} from {container.get('linesFrom')}")
        else:
            given[name] = given.get(name, 0) + 1
    requests, reasons = {}, {}
    for pod in test.agents().values():
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9465/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if 'verb="get",resource="pods' in line:
                    requests[line.split("{")[1].split("}")[0]] = requests.get(line.split("{")[1].split("}")[0], 0) + float(line.split()[-1])
                if line.startswith("nodetap_agent_tap_log_lines_missing_total{"):
                    reasons[line.split('"')[1]] = reasons.get(line.split('"')[1], 0) + int(float(line.split()[-1]))
    test.report.figure("last lines by way of the API server", f"right {given}, wrong {len(wrong)}, without {without}; missing by reason {reasons}; requests {requests}")
    apply(test, "overlay")
    note = judge(row, 20)
    expect(not wrong, f"words of another life: {some(wrong)}")
    expect(given.get("asked-slow", 0) >= 2 and given.get("asked-once") == 1, f"too few came: {given}, without {without}")
    return f"{note}; last lines {given}"


# --- from the runtime's exit to the answer of a query

def latency(test, count):
    """A death can be asked for within seconds of its end."""
    asked, ended, failures = {}, threading.Event(), []
    wanted = re.compile("late-")
    history = test.history()
    def ask():
        while not ended.is_set():
            try:
                rows = history.records(record="death", namespace=NAMESPACE, limit=100)
            except OSError as failure:
                failures.append(str(failure))
                rows = []
            now = time.time_ns()
            for row in rows:
                asked.setdefault(container_id(row["event"]), now)
            time.sleep(0.05)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    pods = 20
    for number in range(pods):
        test.create(cases.pod(f"late-{number}", cases.main(f"sleep {1 + number % 5}.{number % 10}; echo late; exit 50"), node=f"node{1 + number % 2}", restart="Always", grace=1))
    until(f"{count} have died", lambda: len(test.deaths("late")[0]) >= count, 600, 1)
    for number in range(pods):
        test.api.delete(f"{PODS}/late-{number}", 1)
    ends = [end for end in test.settle("late")[0] if wanted.match(end["pod"]) and end["exit"] == 50]
    time.sleep(2)
    ended.set()
    asking.join()
    took = sorted((asked[end["id"]] - end["at_ns"]) / 1e9 for end in ends if end["id"] in asked)
    test.latencies = took
    (test.work / "latencies.json").write_text(json.dumps(took))
    expect(not failures, f"{len(failures)} questions were not answered: {some(failures)}")
    expect(len(took) == len(ends), f"{len(ends) - len(took)} of {len(ends)} never came")
    return f"p50 {took[len(took) // 2]:.2f} s, p99 {took[int(len(took) * 0.99)]:.2f} s, longest {took[-1]:.2f} s of {len(took)}"


# --- what it costs

def cost(test, pods, seconds, rounds):
    """What an agent costs a node with many pods, and what it costs the kubelet: pairs of looks with and without it, in turn."""
    for number in range(pods):
        test.create(cases.pod(f"still-{number}", cases.main("exec sleep 3600"), node="node1", restart="Always", grace=0))
    until("all run", lambda: sum(p["status"]["phase"] == "Running" for p in test.api.get(PODS)["items"]) >= pods, 400, 1)
    time.sleep(20)
    kubelet = int((test.run_folder / "pid" / "node1-kubelet").read_text())
    running = len(test.api.get("/api/v1/pods?fieldSelector=spec.nodeName=node1")["items"])
    agents = []

    def with_agents(wanted):
        """Brings the agents, or takes them away, and waits until that has cost what it costs."""
        selector = None if wanted else {"nodetap.example/none": "true"}
        test.api.patch("/apis/apps/v1/namespaces/nodetap/daemonsets/nodetap-agent", {"spec": {"template": {"spec": {"nodeSelector": selector}}}})
        until("the agents are ready" if wanted else "the agents are gone", test.ready if wanted else lambda: not test.agents(), 90)
        time.sleep(10)

    def look(wanted):
        own = processes.of_pod(test.agents()["node1"]["metadata"]["uid"], "nodetap-agent")[0] if wanted else None
        before, used, begun = processes.cpu(kubelet), processes.cpu(own) if own else 0.0, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begun
        if own:
            agents.append(((processes.cpu(own) - used) / took * 100, *processes.rss(own)))
        return (processes.cpu(kubelet) - before) / took * 100

    pairs = []
    for number in range(rounds):
        # Each second pair the other way round, so that what drifts does not count for one side.
        order = (True, False) if number % 2 == 0 else (False, True)
        seen = {}
        for wanted in order:
            if wanted != bool(test.agents()):
                with_agents(wanted)
            seen[wanted] = look(wanted)
        pairs.append((seen[True], seen[False]))
        say(f"pair {number + 1} of {rounds}: kubelet {seen[True]:.2f} % of a core with the agent, {seen[False]:.2f} % without")
    differences = sorted(one - other for one, other in pairs)
    added = statistics.median(differences)
    test.report.figure(f"node1 with {running} pods at rest, {rounds} looks of {seconds} s, medians",
                       f"kubelet {statistics.median(one for one, _ in pairs):.2f} % of a core with the agent, {statistics.median(other for _, other in pairs):.2f} % without, {processes.rss(kubelet)[0]:.1f} MiB; "
                       f"agent {statistics.median(cpu for cpu, _, _ in agents):.2f} %, {statistics.median(now for _, now, _ in agents):.1f} MiB, peak {max(peak for _, _, peak in agents):.1f} MiB")
    test.report.figure("kubelet's CPU that the agent adds", f"{added:+.2f} % of a core in the median of {rounds} pairs, from {differences[0]:+.2f} to {differences[-1]:+.2f} (bar 1 %)")
    expect(added <= 1.0, f"the agent adds {added:.2f} % of a core to the kubelet")
    return f"{added:+.2f} % of a core"


def table(test):
    print(f"\n{'case':<22} {'died':>5} {'reported':>9} {'missed and said so':>19} {'lost':>5} {'twice':>6}  sentence of the first")
    for row in test.rows:
        print(f"{row['name']:<22} {row['died']:>5} {row['reported']:>9} {row['missed']:>19} {row['lost']:>5} {row['twice']:>6}  {row['sentence']}")
    (test.work / "table.json").write_text(json.dumps([{key: row[key] for key in ("name", "died", "reported", "missed", "lost", "twice", "sentence")} for row in test.rows], indent=1))


def save_logs(test):
    folder = test.work / "logs"
    folder.mkdir(exist_ok=True)
    for pod in test.api.get("/api/v1/namespaces/nodetap/pods")["items"]:
        for previous in ([], ["--previous"]):
            try:
                (folder / f"{pod['metadata']['name']}{'-previous' if previous else ''}.log").write_text(kubectl("-n", "nodetap", "logs", pod["metadata"]["name"], *previous))
            except OSError:
                pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--deaths", type=int, default=200)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--cost-rounds", type=int, default=5)
    arguments = parser.parse_args()
    # What was found until then is told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    test = Test(arguments)
    report = test.report
    def chosen(name):
        return not arguments.only or name in arguments.only
    try:
        if report.run(install, test):
            time.sleep(3)
            if chosen("cases"):
                report.run(make, test)
                report.run(side_by_side, test)
                report.run(stop_loops, test)
                for case in test.cases:
                    report.run(exit_case(case), test)
            if chosen("rapid"):
                report.run(rapid, test)
            if chosen("latency"):
                report.run(latency, test, arguments.deaths)
            if chosen("restarts"):
                report.run(restarted("kubelet", "node1", 3), test)
                report.run(restarted("containerd", "node2", 2), test)
            if chosen("eviction"):
                report.run(evicted_for_storage, test)
                report.run(evicted_for_memory, test)
            if chosen("loops"):
                report.run(loops, test)
            if chosen("without-disk"):
                report.run(without_disk, test)
            if chosen("api-log"):
                report.run(api_log, test)
            if chosen("cost"):
                report.run(cost, test, arguments.pods, arguments.seconds, arguments.cost_rounds)
    finally:
        table(test)
        try:
            save_logs(test)
        except (OSError, ApiError) as failure:
            say(f"could not save the logs: {failure}")
    (test.work / "records.json").write_text(json.dumps(test.reported.of(NAMESPACE), indent=1))
    say(f"everything is in {test.work}")
    status = report.finish()
    sys.stdout.flush()
    os._exit(status)  # the oracle's threads have nothing more to say


if __name__ == "__main__":
    main()
