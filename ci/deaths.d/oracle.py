"""What the runtime itself says of its tasks: `ctr events` of each node, independent of kubelet and API server."""

import json
import os
import pathlib
import subprocess
import threading
import time

import journal
from journal import bare

NAMES = {"pod": "io.kubernetes.cri.sandbox-name", "namespace": "io.kubernetes.cri.sandbox-namespace", "uid": "io.kubernetes.cri.sandbox-uid",
         "container": "io.kubernetes.cri.container-name", "type": "io.kubernetes.cri.container-type"}


class Node(threading.Thread):
    """Follows the events of one node's containerd; goes on after it was restarted."""

    def __init__(self, oracle, run, number):
        super().__init__(daemon=True, name=f"ctr events of node{number}")
        self.oracle, self.run_folder, self.number = oracle, pathlib.Path(run), number
        self.bundles = self.run_folder / f"node{number}" / "root/run/containerd/io.containerd.runtime.v2.task/k8s.io"
        self.listening = threading.Event()

    def run(self):
        while True:
            try:
                pid = (self.run_folder / "pid" / f"node{self.number}-kube-proxy").read_text().strip()
                process = subprocess.Popen(["nsenter", "--target", pid, "--net", "--mount", os.environ["CTR"], "-n", "k8s.io", "events"],
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                self.listening.set()
                for line in process.stdout:
                    self.take(line)
                process.wait()
            except (OSError, ValueError) as failure:
                print(f"        oracle of node{self.number}: {failure}", flush=True)
            # It is being restarted. What ended meanwhile is told by the shims when it is back, else by the pods' status.
            self.oracle.breaks += 1
            time.sleep(0.1)

    def take(self, line):
        stamp, _, rest = line.partition(" k8s.io ")
        topic, _, body = rest.partition(" ")
        if topic in ("/tasks/create", "/tasks/start"):
            self.learn(json.loads(body)["container_id"])
        elif topic == "/tasks/exit":
            event = json.loads(body)
            # Of a process that a probe or a person ran in it, the id is another.
            if event.get("id") in (None, event["container_id"]):
                self.oracle.ended(event["container_id"], event.get("exit_status", 0), nanoseconds(event.get("exited_at")) or time.time_ns(), self.number)

    def learn(self, container):
        if container in self.oracle.names:
            return
        try:
            annotations = json.loads((self.bundles / container / "config.json").read_text()).get("annotations", {})
        except (OSError, ValueError):
            return  # gone already
        self.oracle.names[container] = {key: annotations.get(name, "") for key, name in NAMES.items()}


class Oracle:
    """Every end of a container, of all nodes, by container id."""

    def __init__(self, run, nodes):
        self.lock = threading.Lock()
        self.names, self.ends, self.breaks = {}, {}, 0
        self.nodes = [Node(self, run, number) for number in nodes]
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.listening.wait(10)
        time.sleep(0.5)  # until ctr has subscribed; nothing of ours runs yet

    def ended(self, container, exit_code, at_ns, node):
        with self.lock:
            self.ends.setdefault(container, {"id": container, "exit": exit_code, "at_ns": at_ns, "node": node})

    def of(self, namespace):
        """The ends of the containers of a namespace, sandboxes left out."""
        with self.lock:
            ends = list(self.ends.values())
        found = []
        for end in ends:
            name = self.names.get(end["id"])
            if name and name["type"] == "container" and name["namespace"] == namespace:
                found.append(end | name)
        return found

    def nameless(self):
        """Ends of containers whose names nobody could read in time."""
        with self.lock:
            return [end for end in self.ends.values() if end["id"] not in self.names]


def nanoseconds(stamp):
    """A protobuf timestamp as containerd prints it."""
    if isinstance(stamp, dict):
        return int(stamp.get("seconds", 0)) * 10**9 + int(stamp.get("nanos", 0))
    return None


class Reported:
    """The deaths that nodetap delivered, as it delivered them."""

    def __init__(self, folder):
        self.volume = journal.Volume(folder)

    def of(self, namespace):
        """Faces, as often as they came."""
        return [record for record in self.volume.file_records()[0]
                if record.get("container") and record["involvedObject"].get("namespace") == namespace]


def container_id(record):
    return bare(record["container"].get("containerId", ""))


