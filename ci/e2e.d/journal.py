"""The aggregator's volume: its journal, read with SQLite as anybody would, and the file that it delivers to."""

import json
import os
import pathlib
import sqlite3
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
AGGREGATOR = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release" / "nodetap-aggregator"


class Volume:
    """The folder of the aggregator's claim."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def rows(self, query, *arguments):
        """The rows of every day's file."""
        found = []
        for file in sorted(self.folder.glob("journal-*.sqlite")):
            connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
            try:
                found += connection.execute(query, arguments).fetchall()
            finally:
                connection.close()
        return found

    def event_states(self, after, last):
        """(uid, resourceVersion) of each event, as often as it is there."""
        return [(uid, version) for uid, version in self.events() if after < int(version) <= last]

    def events(self):
        """(uid, resourceVersion) of every event, as `journal export` prints them."""
        printed = subprocess.run([AGGREGATOR, "journal", "export", self.folder], check=True, capture_output=True, timeout=120).stdout
        records = (json.loads(line) for line in printed.splitlines())
        return [(record["metadata"]["uid"], record["metadata"]["resourceVersion"]) for record in records if not record.get("container")]

    def has_event(self, uid, version):
        return (uid, str(version)) in self.events()

    def deaths(self):
        """Each death as a dict."""
        names = ("namespace", "pod", "uid", "container", "id", "ordinal", "exit", "reason", "taken_ns", "time_ns")
        rows = self.rows("SELECT namespace, pod, uid, container, container_id, ordinal, exit_code, reason, taken_ns, time_ns FROM death")
        return [dict(zip(names, row)) | {"id": bare(row[4])} for row in rows]

    def file_records(self):
        """The records of the file receiver, and how many of its lines are none."""
        records, torn = [], 0
        for file in sorted(self.folder.glob("events*.json*")):
            for line in file.read_bytes().splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    torn += 1
        return records, torn


def bare(container):
    """A container's id without the name of its runtime: containerd://4f1... is 4f1..."""
    return (container or "").rpartition("://")[2]


def key(record):
    """What a delivered record is: a death by its container, an event by its state."""
    container = record.get("container")
    if container:
        return ("death", record["involvedObject"].get("uid"), container["name"], bare(container.get("containerId")))
    return ("event", record["metadata"]["uid"], record["metadata"]["resourceVersion"])
