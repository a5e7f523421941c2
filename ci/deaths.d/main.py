"""Every way to die, on a real Kubernetes, with the runtime's own events as the oracle: what ci/deaths runs inside the cluster."""

import argparse
import json
import os
import pathlib
import re
import signal
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

    def missed(self, container=""):
        """Deaths that the agents know of and that nobody saw, by their metrics; of all containers or one."""
        total = 0.0
        for pod in self.agents().values():
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9465/metrics", timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    of = line.startswith(("nodetap_agent_tap_missed_deaths_total{", "nodetap_agent_tap_unseen_ends_total{"))
                    if of and f'container="{container}' in line:
                        total += float(line.split()[-1])
        return int(total)

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


def evicted(test):
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

def cost(test, pods, seconds):
    """What an agent costs a node with many pods, and what it costs the kubelet."""
    for number in range(pods):
        test.create(cases.pod(f"still-{number}", cases.main("exec sleep 3600"), node="node1", restart="Always", grace=0))
    until("all run", lambda: sum(p["status"]["phase"] == "Running" for p in test.api.get(PODS)["items"]) >= pods, 400, 1)
    time.sleep(20)
    kubelet = int((test.run_folder / "pid" / "node1-kubelet").read_text())
    agent = test.agents()["node1"]
    process = processes.of_pod(agent["metadata"]["uid"], "nodetap-agent")[0]
    def taken(name, with_agent):
        before, own, begun = processes.cpu(kubelet), processes.cpu(process) if with_agent else 0.0, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begun
        percent = (processes.cpu(kubelet) - before) / took * 100
        said = f"kubelet {percent:.2f} % of a core, {processes.rss(kubelet)[0]:.1f} MiB"
        if with_agent:
            now, peak = processes.rss(process)
            said += f"; agent {(processes.cpu(process) - own) / took * 100:.2f} %, {now:.1f} MiB, peak {peak:.1f} MiB"
        test.report.figure(f"node1 with {pods} pods at rest, {name}", said)
        return percent
    running = len([p for p in test.api.get("/api/v1/pods?fieldSelector=spec.nodeName=node1")["items"]])
    with_agent = [taken("with the agent", True)]
    body = {"spec": {"template": {"spec": {"nodeSelector": {"nodetap.example/none": "true"}}}}}
    test.api.patch("/apis/apps/v1/namespaces/nodetap/daemonsets/nodetap-agent", body)
    until("the agents are gone", lambda: not test.agents(), 90)
    time.sleep(5)
    without = [taken("without the agent", False)]
    test.report.figure("kubelet's CPU that the agent adds", f"{with_agent[0] - without[0]:+.2f} % of a core, with {running} pods on the node")


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
    parser.add_argument("--seconds", type=int, default=40)
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
            if "eviction" in arguments.only:
                report.run(evicted, test)
            if chosen("loops"):
                report.run(loops, test)
            if chosen("cost"):
                report.run(cost, test, arguments.pods, arguments.seconds)
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
