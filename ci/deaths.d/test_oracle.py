"""What `ctr events` prints is read as it is meant: python3 -m unittest discover ci/deaths.d"""

import pathlib
import sys
import threading
import unittest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "e2e.d"))

import oracle  # noqa: E402

EXIT = ('2026-07-01 12:00:01.123456789 +0000 UTC k8s.io /tasks/exit {"container_id":"c1","id":"%s","pid":12,"exit_status":7,'
        '"exited_at":{"seconds":1782907201,"nanos":5}}')


class OracleTest(unittest.TestCase):
    def setUp(self):
        self.oracle = oracle.Oracle.__new__(oracle.Oracle)
        self.oracle.lock, self.oracle.names, self.oracle.ends, self.oracle.breaks = threading.Lock(), {}, {}, 0
        self.node = oracle.Node(self.oracle, "/nowhere", 1)

    def name(self, container, kind):
        self.oracle.names[container] = {"pod": "p", "namespace": "deaths", "uid": "u", "container": "main", "type": kind}

    def test_an_exit_is_one_of_a_container_at_its_own_time(self):
        self.node.take(EXIT % "c1")
        self.node.take(EXIT % "c1")
        self.name("c1", "container")
        ends = self.oracle.of("deaths")
        self.assertEqual([("c1", 7, 1782907201 * 10**9 + 5)], [(end["id"], end["exit"], end["at_ns"]) for end in ends])
        self.assertEqual([], self.oracle.of("other"))

    def test_an_exit_without_a_status_is_a_clean_one(self):
        self.node.take('2026-07-01 12:00:01 +0000 UTC k8s.io /tasks/exit {"container_id":"c1","id":"c1","pid":1}')
        self.assertEqual(0, self.oracle.ends["c1"]["exit"])

    def test_what_a_probe_ran_is_no_container(self):
        self.node.take(EXIT % "probe")
        self.assertEqual({}, self.oracle.ends)

    def test_a_sandbox_is_left_out(self):
        self.node.take(EXIT % "c1")
        self.name("c1", "sandbox")
        self.assertEqual([], self.oracle.of("deaths"))

    def test_other_topics_are_passed_over(self):
        self.node.take('2026-07-01 12:00:01 +0000 UTC k8s.io /images/update {"name":"x"}')
        self.assertEqual(({}, {}), (self.oracle.ends, self.oracle.names))


if __name__ == "__main__":
    unittest.main()
