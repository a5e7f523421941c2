"""What the aggregator delivers to: a webhook, and a stand-in for Loki's push API with the rules of the real one."""

import gzip
import http.server
import json
import re
import sys
import threading
import time

WEEK = 7 * 24 * 3600 * 10**9
HOUR = 3600 * 10**9
MINUTE = 60 * 10**9


class Quiet(http.server.ThreadingHTTPServer):
    """Does not complain of a sender that was killed before it heard the answer."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Server(threading.Thread):
    """An HTTP server that keeps what it took."""

    def __init__(self, address, handle):
        super().__init__(daemon=True, name=f"receiver at {address}")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, text = handle(self.path, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.http = Quiet(address, Handler)

    def run(self):
        self.http.serve_forever(poll_interval=0.1)


class Webhook:
    """Takes every POST of a JSON object."""

    def __init__(self, address):
        self.lock = threading.Lock()
        self.taken = []
        self.refused = []
        self.server = Server(address, self.handle)
        self.server.start()

    def handle(self, path, headers, body):
        try:
            record = json.loads(body)
        except ValueError as failure:
            with self.lock:
                self.refused.append(str(failure))
            return 400, str(failure)
        with self.lock:
            self.taken.append(record)
        return 200, ""

    def records(self):
        with self.lock:
            return list(self.taken)


class Loki:
    """POST /loki/api/v1/push with JSON, as Loki 3 takes it with its default limits (pkg/distributor/validator.go, docs: limits_config)."""

    label_name = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
    max_labels = 15  # max_label_names_per_series
    max_label_name = 1024
    max_label_value = 2048
    max_line = 256 * 1024  # max_line_size
    max_age = WEEK  # reject_old_samples_max_age
    grace = 10 * MINUTE  # creation_grace_period
    behind = HOUR  # half of max_chunk_age: how far behind the newest entry of its stream one may be

    def __init__(self, address, clock=time.time_ns):
        self.lock = threading.Lock()
        self.clock = clock
        self.streams = {}
        self.newest = {}
        self.refused = []
        self.repeated = 0
        self.pushes = 0
        self.server = Server(address, self.handle) if address else None
        if self.server:
            self.server.start()

    def handle(self, path, headers, body):
        if path != "/loki/api/v1/push":
            return self.refuse(404, f"404 page not found: {path}")
        if headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            return self.refuse(415, f"Content-Type {headers.get('Content-Type')!r}, expected application/json")
        try:
            push = json.loads(body)
            streams = [(stream["stream"], stream["values"]) for stream in push["streams"]]
        except (ValueError, KeyError, TypeError) as failure:
            return self.refuse(400, f"malformed push: {failure!r}")
        wrong = []
        with self.lock:
            self.pushes += 1
            for labels, values in streams:
                problem = self.label_problem(labels)
                if problem:
                    wrong.append(problem)
                    continue
                for value in values:
                    problem = self.add(tuple(sorted(labels.items())), value)
                    if problem:
                        wrong.append(problem)
        # As the real one does: what is right is kept, and the answer names what is not.
        return self.refuse(400, "; ".join(wrong)) if wrong else (204, "")

    def refuse(self, status, text):
        self.refused.append(f"{status} {text}"[:500])
        return status, text

    def label_problem(self, labels):
        if not isinstance(labels, dict) or not labels:
            return "error at least one label pair is required per stream"
        if len(labels) > self.max_labels:
            return f"stream has {len(labels)} label names; limit {self.max_labels}"
        for name, value in labels.items():
            if not self.label_name.fullmatch(name):
                return f"invalid label name {name!r}"
            if not isinstance(value, str):
                return f"label {name}: a value has to be a string"
            if len(name) > self.max_label_name or len(value) > self.max_label_value:
                return f"label {name} is too long"
        return None

    def add(self, stream, value):
        if not isinstance(value, list) or len(value) not in (2, 3) or not all(isinstance(part, str) for part in value[:2]):
            return f"a value has to be [\"<ns>\", \"<line>\"]: {str(value)[:80]}"
        if not re.fullmatch(r"[0-9]+", value[0]):
            return f"timestamp {value[0]!r} is no whole number of nanoseconds"
        stamp, line, now = int(value[0]), value[1], self.clock()
        if len(line.encode()) > self.max_line:
            return f"max entry size '{self.max_line}' bytes exceeded"
        if stamp < now - self.max_age:
            return f"entry for stream {dict(stream)} has timestamp too old: {stamp}"
        if stamp > now + self.grace:
            return f"entry for stream {dict(stream)} has timestamp too new: {stamp}"
        if stamp < self.newest.get(stream, 0) - self.behind:
            return f"entry too far behind, entry timestamp is: {stamp}"
        self.newest[stream] = max(stamp, self.newest.get(stream, 0))
        entries = self.streams.setdefault(stream, {})
        if (stamp, line) in entries:
            self.repeated += 1  # the same entry again is no second one
        entries[stamp, line] = True
        return None

    def records(self):
        with self.lock:
            return [json.loads(line) for entries in self.streams.values() for _, line in entries]

    def stamps(self):
        with self.lock:
            return [(stamp, json.loads(line)) for entries in self.streams.values() for stamp, line in entries]
