"""What our service accounts ask of the API server once everything watches: what ci/audit runs inside the cluster's namespace."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import sys
import time

import load
import main
from checks import expect, say

OURS = "system:serviceaccount:nodetap:"
# After its start everybody has listed what it lists.
SETTLED = 60


class Audit:
    """The API server's audit log, a line a stage of a request."""

    def __init__(self, file):
        self.file = pathlib.Path(file)

    def ours(self, begin, end):
        """How often each of our accounts asked for what between two times."""
        asked = {}
        for line in self.file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line that is being written
            user = entry.get("user", {}).get("username", "")
            at = datetime.datetime.fromisoformat(entry["requestReceivedTimestamp"].replace("Z", "+00:00")).timestamp()
            if user.startswith(OURS) and begin <= at < end:
                target = entry.get("objectRef") or {}
                what = "/".join(filter(None, (target.get("resource"), target.get("subresource")))) or entry["requestURI"]
                asked[entry["auditID"]] = (user.removeprefix(OURS), entry["verb"], what)
        return collections.Counter(asked.values())


def phase(name, seconds, audit, during=None):
    """Lets time pass, and tells what was asked for meanwhile."""
    begin = time.time()
    if during:
        during.start()
    time.sleep(seconds)
    written = during.stop() if during else 0
    end = time.time()
    time.sleep(2)  # until the log has it
    asked = audit.ours(begin, end)
    say(f"{name}: {seconds / 60:g} minutes, {written} states of events written")
    for (account, verb, what), times in sorted(asked.items()):
        say(f"  {account:<20} {verb:<8} {what:<24} {times}")
    if not asked:
        say("  nothing was asked for")
    return asked


def tell(name, asked):
    """A figure line for each verb that is not to be there; whether none is."""
    good = True
    for verb in ("list", "get"):
        times = sum(count for (_, asked_verb, _), count in asked.items() if asked_verb == verb)
        good = good and times == 0
        print(f"figure audit-{name}-{verb} {times} requests bar 0 {'ok' if times == 0 else 'short'}", flush=True)
    others = sum(count for (_, verb, _), count in asked.items() if verb not in ("list", "get"))
    print(f"figure audit-{name}-other {others} requests", flush=True)
    return good


def run():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.set_defaults(prometheus="")
    arguments = parser.parse_args()
    test = main.Test(arguments)
    for check in (main.certificates, main.install, main.begin):
        expect(test.report.run(check, test), "the rest cannot be checked")
    audit = Audit(test.work / "audit.log")
    started = audit.ours(0, time.time())
    expect(started, "the audit log knows nothing of our accounts")
    say(f"until everything was ready: {dict(('%s %s %s' % key, times) for key, times in started.items())}")
    time.sleep(SETTLED)
    seconds = 60 * arguments.minutes
    quiet = phase("quiet", seconds, audit)
    busy = phase(f"{arguments.rate:g} events/s", seconds, audit, load.Generator(test.api, "e2e-load", arguments.rate))
    # Both were seen to arrive: it was not quiet for want of watches.
    say(test.compare())
    good = [tell("quiet", quiet), tell("busy", busy)]
    sys.stdout.flush()
    os._exit(0 if all(good) else 1)  # the watches' threads have nothing more to say


if __name__ == "__main__":
    run()
