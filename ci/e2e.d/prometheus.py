"""A real Prometheus, which finds its targets as the Prometheus Operator would have it by our ServiceMonitors."""

import base64
import http.server
import json
import pathlib
import subprocess
import threading
import urllib.parse
import urllib.request

from kube import kubectl

HERE = pathlib.Path(__file__).parent
ADDRESS = "10.99.0.1:9090"
DISCOVERY = ("10.99.0.1", 8082)


def meta(label):
    """How service discovery spells a label's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def scrape_config(monitor, discovery):
    """The job that the operator makes of a ServiceMonitor (prometheus-operator, pkg/prometheus/promcfg.go)."""
    namespace, name = monitor["metadata"]["namespace"], monitor["metadata"]["name"]
    jobs = []
    for index, endpoint in enumerate(monitor["spec"]["endpoints"]):
        target = [f"__meta_kubernetes_endpointslice_address_target_{what}" for what in ("kind", "name")]
        relabel = [{"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}]
        for label, value in monitor["spec"]["selector"]["matchLabels"].items():
            relabel.append({
                "action": "keep", "regex": f"({value});true",
                "source_labels": [f"__meta_kubernetes_service_label_{meta(label)}", f"__meta_kubernetes_service_labelpresent_{meta(label)}"],
            })
        relabel.append({"action": "keep", "source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": endpoint["port"]})
        for kind in ("Node", "Pod"):
            relabel.append({"source_labels": target, "separator": ";", "regex": f"{kind};(.*)", "replacement": "${1}", "target_label": kind.lower()})
        for ours, theirs in (("namespace", "namespace"), ("service", "service_name"), ("pod", "pod_name"), ("container", "pod_container_name")):
            relabel.append({"source_labels": [f"__meta_kubernetes_{theirs}"], "target_label": ours})
        relabel.append({"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"})
        relabel.append({"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job", "replacement": "${1}"})
        relabel.append({"target_label": "endpoint", "replacement": endpoint["port"]})
        for rule in endpoint.get("relabelings", []):
            relabel.append({"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]})
        jobs.append({
            "job_name": f"serviceMonitor/{namespace}/{name}/{index}",
            "scrape_interval": "1s", "scrape_timeout": "1s",  # theirs is slower; the test would wait for it
            "honor_labels": endpoint.get("honorLabels", False),
            "metrics_path": endpoint.get("path", "/metrics"), "scheme": endpoint.get("scheme", "http"),
            **discovery(namespace),
            "relabel_configs": relabel,
        })
    return jobs


def by_kubernetes(account):
    """Prometheus asks the API server itself, as the operator has it do, under an account of its own."""
    def discovery(namespace):
        return {"kubernetes_sd_configs": [{
            "role": "endpointslice", "api_server": account.server, "namespaces": {"names": [namespace]},
            "authorization": {"credentials_file": str(account.token)}, "tls_config": {"ca_file": str(account.ca)},
        }]}
    return discovery


def by_http(namespace):
    """Prometheus asks us: Debian builds it without its Kubernetes client."""
    return {"http_sd_configs": [{"url": f"http://{DISCOVERY[0]}:{DISCOVERY[1]}/{namespace}", "refresh_interval": "1s"}]}


class Account:
    """A service account with what the operator's documentation gives Prometheus in a namespace, and nothing more."""

    NAME = "system:serviceaccount:monitoring:prometheus"

    def __init__(self, folder):
        kubectl("apply", "-f", str(HERE / "prometheus-account.yaml"))
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
        self.server, self.token, self.ca = config["server"], folder / "token", folder / "ca.crt"
        self.token.write_text(kubectl("-n", "monitoring", "create", "token", "prometheus").strip())
        self.ca.write_bytes(base64.b64decode(config["certificate-authority-data"]))


def targets_of(api, namespace):
    """What the role endpointslice finds in a namespace, all of it, with the labels it gives (prometheus, discovery/kubernetes/endpointslice.go)."""
    services = {item["metadata"]["name"]: item for item in api.get(f"/api/v1/namespaces/{namespace}/services")["items"]}
    groups = []
    for piece in api.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")["items"]:
        service = piece["metadata"]["labels"]["kubernetes.io/service-name"]
        labels = {"__meta_kubernetes_namespace": namespace, "__meta_kubernetes_service_name": service}
        for label, value in services[service]["metadata"].get("labels", {}).items():
            labels[f"__meta_kubernetes_service_label_{meta(label)}"] = value
            labels[f"__meta_kubernetes_service_labelpresent_{meta(label)}"] = "true"
        for port in piece.get("ports") or []:
            for endpoint in piece.get("endpoints") or []:
                groups.append({"targets": [f"{endpoint['addresses'][0]}:{port['port']}"], "labels": labels | {
                    "__meta_kubernetes_endpointslice_port_name": port["name"],
                    "__meta_kubernetes_endpointslice_address_target_kind": (endpoint.get("targetRef") or {}).get("kind", ""),
                    "__meta_kubernetes_endpointslice_address_target_name": (endpoint.get("targetRef") or {}).get("name", ""),
                    "__meta_kubernetes_pod_name": (endpoint.get("targetRef") or {}).get("name", ""),
                    "__meta_kubernetes_pod_node_name": endpoint.get("nodeName", ""),
                }})
    return groups


def serve_discovery(api):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(targets_of(api, self.path.strip("/"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(DISCOVERY, Handler)
    threading.Thread(target=server.serve_forever, daemon=True, name="discovery").start()
    return server


class Prometheus:
    """Runs until it is stopped."""

    def __init__(self, programs, folder, monitors, api):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for self.itself, discovery in ((True, by_kubernetes(Account(folder))), (False, by_http)):
            jobs = [job for monitor in monitors for job in scrape_config(monitor, discovery)]
            # JSON is YAML.
            (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}, indent=1))
            checked = subprocess.run([programs / "promtool", "check", "config", folder / "prometheus.yml"], capture_output=True, text=True)
            if checked.returncode == 0:
                break
        else:
            raise ValueError(f"promtool: {checked.stderr}")
        self.server = None if self.itself else serve_discovery(api)
        with open(folder / "prometheus.log", "wb") as log:
            self.process = subprocess.Popen(
                [programs / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={ADDRESS}"],
                stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def api(self, path, **query):
        with urllib.request.urlopen(f"http://{ADDRESS}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """Values by their labels."""
        return [(sample["metric"], float(sample["value"][1])) for sample in self.api("query", query=expression)["result"]]

    def targets(self):
        """(ServiceMonitor, node or None, health, last error)"""
        return [(target["scrapePool"].split("/")[2], target["labels"].get("node"), target["health"], target["lastError"])
                for target in self.api("targets", state="active")["activeTargets"]]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        if self.server:
            self.server.shutdown()
