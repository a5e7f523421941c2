"""A real Prometheus, which finds its targets as the Prometheus Operator would have it by our ServiceMonitors."""

import http.server
import json
import os
import pathlib
import subprocess
import threading
import urllib.parse
import urllib.request

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
        relabel = []
        for label, value in monitor["spec"]["selector"]["matchLabels"].items():
            relabel.append({
                "action": "keep", "regex": f"({value});true",
                "source_labels": [f"__meta_kubernetes_service_label_{meta(label)}", f"__meta_kubernetes_service_labelpresent_{meta(label)}"],
            })
        relabel.append({"action": "keep", "source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": endpoint["port"]})
        for ours, theirs in (("namespace", "namespace"), ("service", "service_name"), ("pod", "pod_name")):
            relabel.append({"source_labels": [f"__meta_kubernetes_{theirs}"], "target_label": ours})
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


def by_kubernetes(namespace):
    """Prometheus asks the API server itself."""
    return {"kubernetes_sd_configs": [{"role": "endpointslice", "kubeconfig_file": os.environ["KUBECONFIG"], "namespaces": {"names": [namespace]}}]}


def by_http(namespace):
    """Prometheus asks us: Debian builds it without its Kubernetes client."""
    return {"http_sd_configs": [{"url": f"http://{DISCOVERY[0]}:{DISCOVERY[1]}/{namespace}", "refresh_interval": "1s"}]}


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
        for self.discovery in (by_kubernetes, by_http):
            jobs = [job for monitor in monitors for job in scrape_config(monitor, self.discovery)]
            # JSON is YAML.
            (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}, indent=1))
            checked = subprocess.run([programs / "promtool", "check", "config", folder / "prometheus.yml"], capture_output=True, text=True)
            if checked.returncode == 0:
                break
        else:
            raise ValueError(f"promtool: {checked.stderr}")
        self.server = serve_discovery(api) if self.discovery is by_http else None
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
        """(job, node or None, health, last error)"""
        return [(target["labels"]["job"].split("/")[2], target["labels"].get("node"), target["health"], target["lastError"])
                for target in self.api("targets", state="active")["activeTargets"]]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        if self.server:
            self.server.shutdown()
