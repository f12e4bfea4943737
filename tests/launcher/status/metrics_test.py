#!/usr/bin/env python3
"""/metrics as Prometheus' own parser reads it: metrics_test.py SERVE_STATUS."""
import sys
import unittest

from prometheus_client.parser import text_string_to_metric_families

from served import Served

SERVE = sys.argv.pop(1)


class Metrics(unittest.TestCase):
    def setUp(self):
        self.served = Served(SERVE)
        self.addCleanup(self.served.end)

    def families(self):
        return {family.name: family for family in text_string_to_metric_families(self.served.get("/metrics"))}

    def test_the_examples_numbers_are_read_back(self):
        found, job = self.families(), self.served.status()["job"]

        def value(name):
            samples = found[name].samples
            self.assertEqual(len(samples), 1, name)
            return samples[0].value
        for name, key in (("steps_done", "step"), ("steps", "total_steps"), ("loss", "loss"), ("step_seconds", "step_seconds"),
                          ("tokens_per_second", "tokens_per_second"), ("exposed_communication_ratio", "exposed_communication_share"),
                          ("eta_seconds", "eta_seconds"), ("checkpoint_step", "checkpoint_step"),
                          ("checkpoint_age_seconds", "checkpoint_age_seconds"), ("restarts", "restarts")):
            self.assertAlmostEqual(value(f"sprocket_job_{name}"), job[key], msg=name, delta=1e-6 * abs(job[key]))
        self.assertEqual(found["sprocket_job_restarts"].type, "counter")
        states = {sample.labels["state"]: sample.value for sample in found["sprocket_job_state"].samples}
        self.assertEqual(states, {"starting": 0, "running": 1, "stopping": 0, "waiting to restart": 0})
        for family in found.values():
            self.assertTrue(family.documentation, family.name)
            self.assertIn(family.type, ("gauge", "counter"), family.name)

    def test_ranks_are_labels(self):
        own = {sample.labels["rank"]: sample for sample in self.families()["sprocket_rank_own_seconds"].samples}
        self.assertEqual(sorted(own), ["0", "1", "2"])
        self.assertEqual(own["2"].labels, {"rank": "2", "host": "node2"})
        self.assertAlmostEqual(own["2"].value, 1.02)

    def test_labels_with_quotes_and_line_ends_are_read_back(self):
        status = self.served.status()
        hostile = 'no"de\\1\nx'
        status["ranks"][0]["host"] = hostile
        status["job"]["step"] = 121
        self.served.show(status)
        while self.served.status()["job"]["step"] != 121:
            pass
        hosts = {sample.labels["rank"]: sample.labels["host"] for sample in self.families()["sprocket_rank_connected"].samples}
        self.assertEqual(hosts["0"], hostile)


if __name__ == "__main__":
    unittest.main()
