"""Containers that die in every way that users' containers die."""

NAMESPACE = "deaths"
LOOP_NODE = "node2"


def container(name, script=None, command=None, memory=None, **more):
    """A container that runs a script."""
    body = {"name": name, "image": "local/busybox:1", "imagePullPolicy": "Never", "command": command or ["sh", "-c", script]}
    if memory:
        body["resources"] = {"limits": {"memory": memory}}
    return body | more


def pod(name, containers, node="node1", restart="Never", grace=30, init=(), share=False, volumes=()):
    """A pod. `share`: its containers are not the first process of their namespace, to which signals do nothing."""
    spec = {"nodeName": node, "restartPolicy": restart, "terminationGracePeriodSeconds": grace, "automountServiceAccountToken": False,
            "containers": list(containers), "shareProcessNamespace": share}
    if init:
        spec["initContainers"] = list(init)
    if volumes:
        spec["volumes"] = list(volumes)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"case": name}}, "spec": spec}


class Case:
    """A pod, what is done to it, and what has to be told of the first death of one of its containers.

    `deaths`: so many are waited for. `by_status`: the runtime tells of no end, since nothing began, so the pod's status is the oracle.
    `unseen`: nothing in Kubernetes shows the end, and it is enough that the agent says that it did not see it."""

    def __init__(self, name, body, expected, exit_code=None, container="main", act=None, deaths=1, by_status=False, unseen=False):
        self.name, self.body, self.expected, self.exit_code = name, body, expected, exit_code
        self.container, self.act, self.deaths, self.by_status, self.unseen = container, act, deaths, by_status, unseen


def probe(**more):
    return {"exec": {"command": ["sh", "-c", "echo no heartbeat; exit 1"]}, "periodSeconds": 1, "failureThreshold": 2, "initialDelaySeconds": 2} | more


SELF = "$$$$"  # in a command of Kubernetes, two are one
LONG = "while true; do sleep 0.2; done"


def main(script, **more):
    return [container("main", script, **more)]


def ends():
    """What dies by itself, at once or after a moment."""
    return [
        Case("exit-0", pod("exit-0", main("echo done; exit 0")), "main completed (exit 0)", 0),
        Case("exit-1", pod("exit-1", main("echo one; exit 1")), "main failed (exit 1)", 1),
        Case("exit-7", pod("exit-7", main("sleep 3; echo the config is missing; exit 7")), "main failed (exit 7) after 3 s; last line: the config is missing|main failed (exit 7) after 4 s; last line: the config is missing", 7),
        Case("exit-126", pod("exit-126", main("/etc/nsswitch.conf")), "main failed: by the convention of shells, a command was found and could not be run (exit 126)", 126),
        Case("exit-127", pod("exit-127", main("no-such-command")), "main failed: by the convention of shells, a command was not found (exit 127)", 127),
        Case("exit-255", pod("exit-255", main("exit 255")), "main failed (exit 255)", 255),
        Case("no-command", pod("no-command", [container("main", command=["/no/such/program"])]), "main could not be started: exec: \"/no/such/program\": stat /no/such/program: no such file or directory (exit 128, StartError)", 128, by_status=True),
        Case("sigsegv", pod("sigsegv", main(f"echo before; kill -SEGV {SELF}; sleep 9"), share=True), "main was ended by SIGSEGV, an invalid access to memory, going by its exit code (exit 139)", 139),
        Case("sigabrt", pod("sigabrt", main(f"kill -ABRT {SELF}; sleep 9"), share=True), "main was ended by SIGABRT, abort, going by its exit code (exit 134)", 134),
        Case("sigkill", pod("sigkill", main(f"kill -KILL {SELF}; sleep 9"), share=True), "main was killed by SIGKILL, going by its exit code, and nothing known says by whom (exit 137)", 137),
        Case("oom-main", pod("oom-main", main("echo taking; exec dd if=/dev/zero of=/dev/null bs=128M count=4", memory="32Mi")), "main was killed: it went over its memory limit of 32Mi (exit 137, OOMKilled)", 137),
        Case("oom-child", pod("oom-child", main("dd if=/dev/zero of=/dev/null bs=128M count=4; sleep 2; echo my child is gone; exit 3", memory="32Mi")),
             "main failed, and a process in it was killed: the container went over its memory limit of 32Mi (exit 3, OOMKilled)", 3),
        Case("liveness-honoured", pod("liveness-honoured", main("exec sleep 600", livenessProbe=probe()), restart="Always", share=True),
             "main stopped when it was told to: its liveness probe failed with \"no heartbeat\" (exit 143)", 143),
        Case("liveness-ignored", pod("liveness-ignored", main(f"trap '' TERM; {LONG}", livenessProbe=probe()), restart="Always", grace=3),
             "main was killed: its liveness probe failed with \"no heartbeat\", and it had not stopped when its grace period of 3 s was over (exit 137)", 137),
        Case("startup-probe", pod("startup-probe", main("exec sleep 600", startupProbe=probe()), restart="Always", share=True),
             "main stopped when it was told to: its startup probe failed with \"no heartbeat\" (exit 143)", 143),
        Case("init-fails", pod("init-fails", main("echo never"), init=[container("prepare", "echo no database here; exit 3")]),
             "init container prepare failed (exit 3)", 3, container="prepare"),
        Case("sidecar-dies", pod("sidecar-dies", main(LONG), init=[container("proxy", "sleep 2; echo lost upstream; exit 5", restartPolicy="Always")]),
             "sidecar proxy failed (exit 5)", 5, container="proxy"),
        Case("post-start", pod("post-start", main("exec sleep 600", lifecycle={"postStart": {"exec": {"command": ["false"]}}}), share=True, restart="Always"),
             "main stopped when it was told to: its postStart hook failed (exit 143)"
             # The death can be journalled before the event that says so: then it says less.
             "|main was ended by SIGTERM, the request to stop, going by its exit code (exit 143)", 143),
        two_causes(),
        Case("deadline", deadline("deadline", 3), "main stopped when it was told to: its pod had been active for longer than its deadline (exit 143)", 143),
    ]


def two_causes():
    """Fails, is killed for its memory, and then runs: what `kubectl describe` shows of it is in docs/deaths.md."""
    script = """
        n=$(cat /state/n 2>/dev/null || echo 0); echo $((n+1)) >/state/n; sleep 3
        case $n in
          0) echo "db.shop.svc:5432: connection refused"; exit 7 ;;
          1) echo "loading the catalogue"; exec dd if=/dev/zero of=/dev/null bs=128M count=4 ;;
        esac
        exec sleep 600"""
    body = pod("two-causes", main(script, memory="32Mi", volumeMounts=[{"name": "state", "mountPath": "/state"}]), restart="Always",
               volumes=[{"name": "state", "emptyDir": {}}])
    return Case("two-causes", body, "main failed (exit 7)", 7, deaths=2)


def deadline(name, seconds):
    body = pod(name, main("exec sleep 600"), share=True)
    body["spec"]["activeDeadlineSeconds"] = seconds
    return body


def deleted():
    """What is deleted once it runs."""
    return [
        Case("term-honoured", pod("term-honoured", main("exec sleep 600"), share=True), "main stopped when it was told to: its pod was deleted (exit 143)", 143, act=delete()),
        Case("term-handled", pod("term-handled", main(f"trap 'echo goodbye; exit 9' TERM; {LONG}"), node="node2"), "main ended when it was told to stop: its pod was deleted (exit 9)", 9, act=delete()),
        Case("term-ignored", pod("term-ignored", main(f"trap '' TERM; {LONG}"), grace=3),
             "main was killed: its pod was deleted, and it had not stopped when its grace period of 3 s was over (exit 137)", 137, act=delete()),
        Case("deleted-now", pod("deleted-now", main(f"trap '' TERM; {LONG}"), node="node2"), "main was killed: its pod was deleted", 137, act=delete(1)),
        Case("deleted-by-force", pod("deleted-by-force", [container("forced", "exec sleep 600")], share=True), "", container="forced", act=delete(0), unseen=True),
        Case("deleted-mid-crash", pod("deleted-mid-crash", main("sleep 1; echo round; exit 21"), node="node2", restart="Always"), "main failed (exit 21)", 21, act=after_first_death(delete())),
        Case("evicted-by-api", pod("evicted-by-api", main("exec sleep 600"), share=True), "main stopped when it was told to: its pod was evicted through the API, as by a drain (exit 143)", 143, act=evict),
    ]


# --- what is done to a pod that runs

def delete(grace=None):
    def act(test, case):
        test.until_running(case.name)
        test.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{case.name}", grace)
    return act


def evict(test, case):
    test.until_running(case.name)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": case.name, "namespace": NAMESPACE}}
    test.api.post(f"/api/v1/namespaces/{NAMESPACE}/pods/{case.name}/eviction", body)


def after_first_death(then):
    def act(test, case):
        test.until_died(case.name)
        then(test, case)
    return act


# --- what is no pod of its own

EPHEMERAL = Case("ephemeral", pod("ephemeral", main(LONG)), "ephemeral container debugger failed (exit 4)", 4, container="debugger")
# Its file goes while it runs: with it goes the pod, and nothing shows how the container ended.
STATIC = Case("static-pod-node1", None, "from-file failed (exit 8)", 8, container="from-file", unseen=True)
JOB = Case("job", None, "main failed (exit 6)", 6)


def static_pod():
    body = pod("static-pod", [container("from-file", "sleep 1; echo from a file; exit 8")], restart="Always")
    del body["spec"]["nodeName"]
    return body


def job():
    template = pod("job", main("echo cannot; exit 6"))
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": NAMESPACE},
            "spec": {"backoffLimit": 1, "template": {"metadata": {"labels": {"case": "job"}}, "spec": template["spec"]}}}


def dying(prefix, count, node):
    """One each half second."""
    return [pod(f"{prefix}-{number}", main(f"sleep {2 + number * 0.5}; echo gone {number}; exit {40 + number}"), node=node) for number in range(count)]


# The kubelet can remove a container that it evicts before it has looked at how it ended.
REMOVED = ("|main ended, and nobody saw how: the kubelet could not find it any more (exit 137, ContainerStatusUnknown);"
           " it had been told to stop: its pod was evicted: ")

# It asks for some memory, less than it takes: one that asks for none would not be admitted again by a kubelet that starts under pressure.
EVICTED = Case("evicted-memory", pod("evicted-memory", main(f"trap '' TERM; {LONG}", resources={"requests": {"memory": "64Ki"}})),
               "main was killed: its pod was evicted: The node was low on resource: memory" + REMOVED, 137)


def evicted_for_storage():
    """Pods that write more than they may: the kubelet evicts them without any pressure on the node."""
    fill = "trap '' TERM; echo filling; dd if=/dev/zero of={0} bs=1M count=8; " + LONG
    scratch = pod("evicted-volume", main(fill.format("/scratch/file"), volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}]), node="node2",
                  volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}])
    own = pod("evicted-storage", main(fill.format("/tmp-file"), resources={"limits": {"ephemeral-storage": "1Mi"}}), node="node2")
    return [
        Case("evicted-volume", scratch, 'main was killed: its pod was evicted: Usage of EmptyDir volume "scratch" exceeds the limit "1Mi" (exit 137)' + REMOVED, 137),
        Case("evicted-storage", own, "main was killed: its pod was evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi (exit 137)"
             '|main was killed: its pod was evicted: Container main exceeded its local ephemeral storage limit "1Mi" (exit 137)' + REMOVED, 137),
    ]


def rapid():
    """Faster than any poll; the kubelet's back-off is at a second."""
    return pod("rapid", main("echo again; exit 30"), node=LOOP_NODE, restart="Always")


def loops(pods, containers):
    """Crash loops whose last line says which round it was: the restartCount."""
    script = "n=$(cat /state/{0} 2>/dev/null || echo 0); echo $((n+1)) >/state/{0}; sleep {1}; echo round $n of {0}; exit 23"
    mount = [{"name": "state", "mountPath": "/state"}]
    return [pod(f"loop-{number}", [container(f"c{index}", script.format(f"c{index}", 12 + (number * containers + index) % 17), volumeMounts=mount) for index in range(containers)],
                node=f"node{1 + number % 2}", restart="Always", grace=1, volumes=[{"name": "state", "emptyDir": {}}]) for number in range(pods)]


def forgotten(node):
    """Containers that die again and again, slowly enough for each end to be looked at, and one that dies as often as two looks."""
    return [pod(f"forgotten-{node}-{number}", [container("forgotten", f"sleep {pause}; echo ended; exit 25")], node=node, restart="Always", grace=1)
            for number, pause in enumerate((2, 3, 1))]


def by_api_server():
    """Pods whose last line says which life wrote it: the restartCount. One loops slowly, one as fast as it can, one dies once. Then they
    rest: without the log folder the agent looks each 10 s, and what dies just before its pod is deleted nobody would see."""
    script = "n=$(cat /state/n 2>/dev/null || echo 0); echo $((n+1)) >/state/n; [ $n -lt {1} ] || exec sleep 600; sleep {0}; echo round $n; exit 24"
    mount, state = [{"name": "state", "mountPath": "/state"}], [{"name": "state", "emptyDir": {}}]
    loops = [pod(f"asked-{name}", main(script.format(seconds, rounds), volumeMounts=mount), restart="Always", grace=1, volumes=state, node=f"node{node}")
             for name, seconds, rounds, node in (("slow", 25, 3, 1), ("at-once", 0, 25, 2))]
    return [*loops, pod("asked-once", main(script.format(2, 1), volumeMounts=mount), node="node2", volumes=state)]
