"""The Kubernetes API with what Python has: independent of what is tested, and of the client libraries it uses."""

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

# The API server closes a connection that is unused for 90 s, and what cannot be repeated is not to find that out.
KEPT = 30


class ApiError(OSError):
    """An answer of 300 or above."""

    def __init__(self, status, text):
        try:
            self.message = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            self.message = text[:300]
        super().__init__(f"{status}: {self.message}")
        self.status = status


class Api:
    """A client of the API server of the kubeconfig that KUBECONFIG names. One connection a thread."""

    def __init__(self):
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        address = urllib.parse.urlsplit(cluster["server"])
        self.host, self.port = address.hostname, address.port
        self.tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:
            for key in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[key]))
            pair.flush()
            self.tls.load_cert_chain(pair.name)
        self.local = threading.local()

    def connect(self, timeout):
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.tls)

    def kept(self):
        """This thread's connection, where it was used of late."""
        connection = getattr(self.local, "connection", None)
        if connection and time.monotonic() - self.local.used > KEPT:
            connection.close()
            return None
        return connection

    def request(self, method, path, body=None, kind="application/json"):
        """The JSON of the answer."""
        data = None if body is None else json.dumps(body)
        for attempt in (1, 2):
            connection = self.kept() or self.connect(20)
            self.local.connection, self.local.used = connection, time.monotonic()
            try:
                connection.request(method, path, data, {"Content-Type": kind, "Accept": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.local.connection = None
                # A kept connection may have been closed meanwhile. Only what can be repeated is.
                if attempt == 2 or method not in ("GET", "DELETE"):
                    raise
        if answer.status >= 300:
            raise ApiError(answer.status, text)
        return json.loads(text)

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body):
        return self.request("POST", path, body)

    def patch(self, path, body):
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path, grace=None):
        return self.request("DELETE", path + ("" if grace is None else f"?gracePeriodSeconds={grace}"))

    def watch(self, path, version):
        """Yields (type, object) until the server ends the watch. Raises ApiError for an ERROR frame.

        One watch for as long as a run is: of events there is a bookmark in ten minutes, etcd is compacted every five, and so one
        that begins again after a silence may ask for what is gone.
        """
        connection = self.connect(3700)
        query = f"watch=1&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=3600"
        try:
            connection.request("GET", f"{path}?{query}", headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise ApiError(answer.status, answer.read().decode())
            for line in answer:
                frame = json.loads(line)
                if frame["type"] == "ERROR":
                    raise ApiError(frame["object"].get("code", 500), line.decode())
                yield frame["type"], frame["object"]
        finally:
            connection.close()


def kubectl(*arguments, text=None):
    """Output of kubectl; raises with its errors."""
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=180)
    if done.returncode != 0:
        raise OSError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def kubectl_clean(*arguments, text=None):
    """Exit code, and all that kubectl warned of."""
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=180)
    return done.returncode, done.stderr.strip()
