"""A real Prometheus, which finds its targets as the Prometheus Operator would have it by our ServiceMonitors."""

import json
import os
import pathlib
import subprocess
import urllib.parse
import urllib.request

ADDRESS = "10.99.0.1:9090"


def meta(label):
    """How service discovery spells a label's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def scrape_config(monitor, kubeconfig):
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
            "metrics_path": endpoint.get("path", "/metrics"), "scheme": endpoint.get("scheme", "http"),
            "kubernetes_sd_configs": [{"role": "endpointslice", "kubeconfig_file": kubeconfig, "namespaces": {"names": [namespace]}}],
            "relabel_configs": relabel,
        })
    return jobs


class Prometheus:
    """Runs until it is stopped."""

    def __init__(self, program, folder, monitors):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [job for monitor in monitors for job in scrape_config(monitor, os.environ["KUBECONFIG"])]
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}, indent=1))
        with open(folder / "prometheus.log", "wb") as log:
            self.process = subprocess.Popen(
                [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={ADDRESS}"],
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
