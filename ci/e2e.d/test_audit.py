"""What is counted of an audit log."""

import json
import pathlib
import tempfile
import unittest

from audit import Audit


def entry(number, second, verb, user="system:serviceaccount:nodetap:nodetap-agent", stage="ResponseComplete", **target):
    return json.dumps({"auditID": str(number), "stage": stage, "verb": verb, "user": {"username": user}, "requestURI": "/readyz",
                       "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02}.000000Z"} | ({"objectRef": target} if target else {}))


class OursTest(unittest.TestCase):
    def test_each_request_of_ours_in_the_time_counts_once(self):
        lines = [
            entry(1, 10, "watch", stage="ResponseStarted", resource="events"),
            entry(1, 10, "watch", resource="events"),  # the same request, later
            entry(2, 11, "get", resource="nodes", subresource="pods"),
            entry(3, 12, "list", user="system:admin", resource="events"),  # somebody else
            entry(4, 40, "list", resource="events"),  # later
            entry(5, 12, "get"),
            '{"auditID": "6", "sta',  # being written
        ]
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "audit.log"
            log.write_text("\n".join(lines))
            asked = Audit(log).ours(1767225600 + 10, 1767225600 + 30)
        self.assertEqual(asked, {("nodetap-agent", "watch", "events"): 1, ("nodetap-agent", "get", "nodes/pods"): 1, ("nodetap-agent", "get", "/readyz"): 1})


if __name__ == "__main__":
    unittest.main()
