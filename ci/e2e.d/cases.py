"""Pods that die in the ways that users' pods die."""

NAMESPACE = "e2e"


def pod(name, script, node=None, restart="Never", memory=None, grace=30, init=None, selector=None):
    """A pod of one container called main."""
    def container(called, shell, limit=None):
        body = {"name": called, "image": "local/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", shell]}
        if limit:
            body["resources"] = {"limits": {"memory": limit}}
        return body
    spec = {"restartPolicy": restart, "terminationGracePeriodSeconds": grace, "automountServiceAccountToken": False,
            "containers": [container("main", script, memory)]}
    if init:
        spec["initContainers"] = [container("prepare", init)]
    if node:
        spec["nodeName"] = node
    if selector:
        spec["nodeSelector"] = selector
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}, "spec": spec}


class Death:
    """What has to arrive of one container's death."""

    def __init__(self, body, container, exit_code, reason, last_line, kind="app", told=None):
        self.body, self.container, self.exit_code, self.reason, self.last_line, self.kind = body, container, exit_code, reason, last_line, kind
        # How its explanation begins; it ends with the last line.
        self.told = told or f"{container} failed (exit {exit_code})"
        self.pod = body["metadata"]["name"]


def named():
    """One death each, in ways of their own."""
    return [
        # To one stream: between two of them the runtime decides on the order.
        Death(pod("exits-seven", "echo starting >&2; echo the config is missing >&2; exit 7", "node1"), "main", 7, "Error", "the config is missing"),
        # One buffer larger than the limit, filled: killed by the kernel, not by us.
        Death(pod("out-of-memory", "echo about to take too much; exec dd if=/dev/zero of=/dev/null bs=128M count=4", "node2", memory="32Mi"),
              "main", 137, "OOMKilled", "about to take too much", told="main was killed: it went over its memory limit of 32Mi (exit 137, OOMKilled)"),
        Death(pod("init-fails", "echo never runs", "node1", init="echo no database here; exit 3"), "prepare", 3, "Error", "no database here", "init",
              "init container prepare failed (exit 3)"),
        Death(unhealthy(), "main", 12, "Error", "told to stop",
              told="main ended when it was told to stop: the kubelet stopped it after its liveness probe failed with \"no heartbeat\" (exit 12)"),
    ]


def unhealthy():
    body = pod("not-alive", "trap 'echo told to stop; exit 12' TERM; while true; do sleep 0.1; done", "node2")
    probe = {"exec": {"command": ["sh", "-c", "echo no heartbeat; exit 1"]}, "initialDelaySeconds": 2, "periodSeconds": 1, "failureThreshold": 1}
    body["spec"]["containers"][0]["livenessProbe"] = probe
    return body


def told_to_stop(count):
    """Some that are deleted with grace, say a last word and go; their logs go with them."""
    return [Death(pod(f"told-to-stop-{number}", f"trap 'echo number {number} was told to stop; exit 9' TERM; echo running; while true; do sleep 0.1; done",
                      f"node{1 + number % 2}", grace=10), "main", 9, "Error", f"number {number} was told to stop",
                  told="main ended when it was told to stop: its pod was deleted (exit 9)") for number in range(count)]


def storm(count):
    """Many that end once, on both nodes."""
    return [Death(pod(f"storm-{number:03}", f"echo storm {number:03} is over; exit {10 + number % 50}", f"node{1 + number % 2}"),
                  "main", 10 + number % 50, "Error", f"storm {number:03} is over") for number in range(count)]


def loops(count):
    """Some that end again and again."""
    return [pod(f"loop-{number}", "echo round and round; sleep 0.2; exit 21", f"node{1 + number % 2}", restart="Always") for number in range(count)]


def unschedulable():
    return pod("fits-nowhere", "true", selector={"nodetap.example/nowhere": "true"})
