"""Events at a steady rate: new ones, and ones that happened before."""

import datetime
import random
import threading
import time

from kube import ApiError


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def event(name, namespace, count=1, reason="Load", message="made by the end-to-end test"):
    return {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": name, "uid": f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012}"},
        "reason": reason, "message": message, "type": "Normal", "count": count,
        "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "nodetap-e2e", "host": "node1"},
    }


def update(api, posted, count):
    """One more state of an event."""
    path = f"/api/v1/namespaces/{posted['metadata']['namespace']}/events/{posted['metadata']['name']}"
    return api.patch(path, {"count": count, "lastTimestamp": now()})


class Generator(threading.Thread):
    """Writes at a rate until it is told to stop."""

    def __init__(self, api, namespace, rate=20):
        super().__init__(daemon=True, name="load")
        self.api, self.namespace, self.rate = api, namespace, rate
        self.ending = threading.Event()
        self.posted = set()
        self.failures = []
        self.live = []

    def run(self):
        chance = random.Random(1)
        begun, number = time.monotonic(), 0
        while not self.ending.wait(max(0.0, begun + number / self.rate - time.monotonic())):
            number += 1
            try:
                if self.live and chance.random() < 0.5:
                    posted = chance.choice(self.live)
                    posted = update(self.api, posted, posted["count"] + 1)
                    self.live = [other for other in self.live if other["metadata"]["uid"] != posted["metadata"]["uid"]]
                else:
                    posted = self.api.post(f"/api/v1/namespaces/{self.namespace}/events", event(f"load-{self.name_of(number)}", self.namespace))
                self.live = (self.live + [posted])[-200:]
                self.posted.add((posted["metadata"]["uid"], posted["metadata"]["resourceVersion"]))
            except (ApiError, OSError) as failure:
                self.failures.append(failure)

    def name_of(self, number):
        return f"{id(self) % 9973}-{number}"

    def stop(self):
        self.ending.set()
        self.join()
        return len(self.posted)
