"""The stand-in for Loki refuses what Loki refuses: python3 -m unittest discover ci/e2e.d"""

import json
import unittest

import journal
from receivers import HOUR, MINUTE, WEEK, Loki

NOW = 1_800_000_000 * 10**9


class LokiTest(unittest.TestCase):
    def setUp(self):
        self.loki = Loki(None, lambda: NOW)

    def push(self, labels, *values, kind="application/json", path="/loki/api/v1/push"):
        return self.loki.handle(path, {"Content-Type": kind}, json.dumps({"streams": [{"stream": labels, "values": list(values)}]}).encode())

    def test_a_good_push_is_taken_without_a_body(self):
        self.assertEqual((204, ""), self.push({"source": "nodetap"}, [str(NOW), '{"a":1}']))
        self.assertEqual([{"a": 1}], self.loki.records())

    def test_a_stream_needs_labels_with_valid_names(self):
        for labels in (None, {}, {"a-b": "c"}, {"1a": "b"}, {"a": 1}, {f"l{number}": "v" for number in range(16)}):
            status, text = self.push(labels, [str(NOW), "{}"])
            self.assertEqual(400, status, text)

    def test_a_timestamp_is_a_string_of_nanoseconds_within_bounds(self):
        for stamp in (NOW, "x", "1.5", str(NOW - WEEK - 1), str(NOW + 10 * MINUTE + 1)):
            self.assertEqual(400, self.push({"a": "b"}, [stamp, "{}"])[0], stamp)
        self.assertEqual(204, self.push({"a": "b"}, [str(NOW - WEEK), "{}"])[0])

    def test_an_entry_may_be_an_hour_behind_its_own_stream_and_no_more(self):
        self.push({"a": "b"}, [str(NOW), "{}"])
        self.assertEqual(204, self.push({"a": "b"}, [str(NOW - HOUR), "{}"])[0])
        self.assertEqual(400, self.push({"a": "b"}, [str(NOW - HOUR - 1), "{}"])[0])
        self.assertEqual(204, self.push({"a": "c"}, [str(NOW - HOUR - 1), "{}"])[0])

    def test_what_is_right_in_a_refused_push_is_kept(self):
        status, text = self.push({"a": "b"}, [str(NOW), '{"kept":1}'], ["0", '{"old":1}'])
        self.assertEqual(400, status)
        self.assertIn("too old", text)
        self.assertEqual([{"kept": 1}], self.loki.records())

    def test_an_equal_entry_is_no_second_one(self):
        for _ in range(2):
            self.assertEqual(204, self.push({"a": "b"}, [str(NOW), "{}"])[0])
        self.assertEqual((1, 1), (len(self.loki.records()), self.loki.repeated))

    def test_another_address_or_kind_is_refused(self):
        self.assertEqual(404, self.push({"a": "b"}, path="/")[0])
        self.assertEqual(415, self.push({"a": "b"}, kind="text/plain")[0])


class KeyTest(unittest.TestCase):
    def test_an_event_is_known_by_its_state_and_a_death_by_its_container(self):
        event = {"metadata": {"uid": "u", "resourceVersion": "7"}, "involvedObject": {"uid": "p"}}
        self.assertEqual(("event", "u", "7"), journal.key(event))
        self.assertEqual(("death", "p", "main", "1"), journal.key(event | {"container": {"name": "main", "containerId": "containerd://1"}}))


if __name__ == "__main__":
    unittest.main()
