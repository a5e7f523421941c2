"""Plain watches of their own, from which is known what had to arrive."""

import datetime
import threading
import time

from journal import bare
from kube import ApiError


class Recorder(threading.Thread):
    """Follows one collection from a list onwards."""

    path = ""

    def __init__(self, api):
        super().__init__(daemon=True, name=f"recorder of {self.path}")
        self.api = api
        self.failure = None
        self.lock = threading.Lock()
        listed = api.get(self.path)
        self.version = listed["metadata"]["resourceVersion"]
        for item in listed["items"]:
            self.seen("LISTED", item)

    def seen(self, change, item):
        raise NotImplementedError

    def run(self):
        while True:
            try:
                for change, item in self.api.watch(self.path, self.version):
                    self.version = item["metadata"]["resourceVersion"]
                    if change != "BOOKMARK":
                        with self.lock:
                            self.seen(change, item)
            except ApiError as failure:
                # Whatever it missed it cannot know: the comparison has to fail.
                self.failure = failure
                return
            except OSError:
                time.sleep(0.2)


class Events(Recorder):
    """Every state of every Event: (uid, resourceVersion)."""

    path = "/api/v1/events"

    def __init__(self, api):
        self.states = {}
        super().__init__(api)

    def seen(self, change, item):
        if change != "DELETED":
            metadata = item["metadata"]
            self.states[metadata["uid"], metadata["resourceVersion"]] = item

    def between(self, after, last):
        with self.lock:
            return {state for state in self.states if after < int(state[1]) <= last}

    def describe(self, state):
        item = self.states.get(state)
        if not item:
            return f"{state}"
        return f"{item['metadata']['namespace']}/{item['metadata']['name']} {item.get('reason')} rv {state[1]}"


class Deaths(Recorder):
    """Every termination that a pod's status shows, by container id."""

    path = "/api/v1/pods"

    # "seen" is when the watch told of it: what a plain watch would have taken.

    def __init__(self, api):
        self.deaths = {}
        super().__init__(api)

    def seen(self, change, item):
        status = item.get("status", {})
        for field in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(field) or []:
                for state in (container.get("state"), container.get("lastState")):
                    ended = (state or {}).get("terminated")
                    if ended and ended.get("containerID") and ended.get("finishedAt"):
                        self.deaths.setdefault(bare(ended["containerID"]), {
                            "seen": time.time(),
                            "namespace": item["metadata"]["namespace"],
                            "pod": item["metadata"]["name"],
                            "uid": item["metadata"]["uid"],
                            "container": container["name"],
                            "exit": ended["exitCode"],
                            "reason": ended.get("reason", ""),
                            "finished": datetime.datetime.fromisoformat(ended["finishedAt"].replace("Z", "+00:00")).timestamp(),
                        })

    def known(self):
        with self.lock:
            return dict(self.deaths)
