"""What is made of a ServiceMonitor: python3 -m unittest discover ci/e2e.d"""

import types
import unittest

from prometheus import by_kubernetes, scrape_config

MONITOR = {
    "metadata": {"namespace": "nodetap", "name": "nodetap-agent"},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "nodetap"}},
        "endpoints": [{"port": "metrics", "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]}],
    },
}
ACCOUNT = types.SimpleNamespace(server="https://api:6443", token="token", ca="ca.crt")


class ScrapeConfigTest(unittest.TestCase):
    def setUp(self):
        [self.job] = scrape_config(MONITOR, by_kubernetes(ACCOUNT))

    def test_services_are_kept_by_label_and_endpoints_by_the_name_of_their_port(self):
        kept = [rule for rule in self.job["relabel_configs"] if rule.get("action") == "keep"]
        label = "app_kubernetes_io_name"
        self.assertEqual([
            {"action": "keep", "regex": "(nodetap);true",
             "source_labels": [f"__meta_kubernetes_service_label_{label}", f"__meta_kubernetes_service_labelpresent_{label}"]},
            {"action": "keep", "regex": "metrics", "source_labels": ["__meta_kubernetes_endpointslice_port_name"]},
        ], kept)

    def test_relabelings_of_the_monitor_come_last(self):
        self.assertEqual({"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"}, self.job["relabel_configs"][-1])

    def test_the_api_server_is_asked_for_its_namespace_alone(self):
        self.assertEqual("serviceMonitor/nodetap/nodetap-agent/0", self.job["job_name"])
        [discovery] = self.job["kubernetes_sd_configs"]
        self.assertEqual(("endpointslice", {"names": ["nodetap"]}), (discovery["role"], discovery["namespaces"]))
        self.assertEqual({"credentials_file": "token"}, discovery["authorization"])


if __name__ == "__main__":
    unittest.main()
