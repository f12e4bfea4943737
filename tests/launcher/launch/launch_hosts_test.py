#!/usr/bin/env python3
"""Supervised jobs on several hosts, which are network namespaces of this machine, and their faults.

    launch_hosts_test.py SPROCKET SOURCE_DIR MAKE_CLIP FAULTS_LIBRARY SPROCKET_WITH_FAULTS

Needs root, ip and tc; exit code 77 where they are missing.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from network_hosts import SKIPPED, Hosts, Unavailable
from supervised_job import Job, Site, wait_until

HERE, ORPHANS = "a", 60
REPLICAS = "parallel.data: 2 training.global_batch: 2 output.keep_checkpoints: 1000"
SITE = HOSTS = None


def launch(name, *flags, hosts="a:2,b:2", **options):
    return Job(SITE, name, "--hosts", hosts, "--agent", HOSTS.agent, *flags, before=HOSTS.on(HERE), sets=(REPLICAS,), **options)


def words_of(rank):
    """The command line of a rank, as it is without a supervisor."""
    with open(f"/proc/{rank}/cmdline", "rb") as file:
        words = file.read().decode().split("\0")[:-1]
    at = words.index("--supervised")
    return words[:at] + words[at + 2:]


def variables_of(process):
    with open(f"/proc/{process}/environ", "rb") as file:
        return dict(line.split("=", 1) for line in file.read().decode(errors="replace").split("\0") if "=" in line)


def undisturbed(name, last, *flags, **options):
    """The losses of a run to which nothing happens, up to a step."""
    job = launch(name, *flags, **options)
    job.await_steps(last)
    assert job.end(signal.SIGTERM) == 75, job.log()
    return job.losses()


class SeveralHosts(unittest.TestCase):
    def setUp(self):
        """All hosts are there."""
        for host in HOSTS.hosts:
            HOSTS.switch_on(host)
            HOSTS.link(host, "up")

    def tearDown(self):
        SITE.end_jobs()

    def assert_losses(self, job, expected, steps):
        found = job.losses()
        for step in steps:
            self.assertEqual(found[step], expected[step], f"step {step}")

    def test_a_link_that_is_pulled_and_put_in_again(self):
        job = launch("link", "--export", "OMP_NUM_THREADS", "--limit", "silence=10", "--wait-for-hosts", "100", "--drop-host-after", "0")
        job.await_steps(15)
        for name in ("PATH", "OMP_NUM_THREADS"):
            self.assertEqual(variables_of(job.ranks()[3]).get(name), os.environ[name])
        start, before = job.log_end(), time.monotonic()
        HOSTS.link("b", "down")
        job.await_log("node loss: host b is not heard any more", start)
        detected = time.monotonic() - before
        self.assertRegex(job.log(start), r"hang: rank 2 \(b, process \d+\), rank 3 \(b, process \d+\) silent for")
        wait_until(lambda: f"the ranks of b have ended: {HOSTS.processes('b')}", lambda: not HOSTS.processes("b"), ORPHANS)
        print(f"link down: said after {detected:.1f} s, nothing left on the host after {time.monotonic() - before:.1f} s", flush=True)
        job.await_log("waiting up to 100 s: host b cannot be reached", start)
        HOSTS.link("b", "up")
        print(f"link up again: first new step {job.await_first_step(start):.1f} s after the failure was said", flush=True)
        last = job.await_steps(job.newest_step() + 10)
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        self.assertEqual(job.everything(), [])
        self.assert_losses(job, undisturbed("link_undisturbed", last), range(1, last + 1))

    def test_hosts_that_stay_away_are_replaced_and_then_done_without(self):
        job = launch("away", "--wait-for-hosts", "2", "--drop-host-after", "2", hosts="a:2,b:2,c:2")
        job.await_steps(15)
        start = job.log_end()
        HOSTS.switch_off("b")
        job.await_log("node loss: host b is gone, with all its ranks", start)
        job.await_log("launch: b keeps failing and is dropped: the other hosts take all 4 ranks", start)
        self.assertIn("node loss: host b cannot be reached", job.log(start))
        job.await_first_step(start)
        full = job.await_steps(job.newest_step() + 15)
        start = job.log_end()
        HOSTS.switch_off("c")
        job.await_log("launch: c keeps failing and is dropped: the job goes on with 2 ranks instead of 4, parallel.data: 1 "
                      "instead of 2", start)
        job.await_first_step(start)
        resumed = int(re.search(r"resuming from .*step_0*(\d+)", job.log(start)).group(1))
        last = job.await_steps(job.newest_step() + 10)
        words = words_of(job.ranks()[0])
        self.assertIn("parallel.data: 1", words)
        self.assertEqual(len(job.ranks()), 2)
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        self.assertEqual(job.everything(), [])
        self.assertGreaterEqual(resumed, full - 15)
        HOSTS.switch_on("b")
        self.assert_losses(job, undisturbed("away_undisturbed", resumed), range(1, resumed + 1))
        self.assert_losses(job, self.resumed_by_two_ranks(job, words, resumed, last), range(resumed + 1, last + 1))

    def resumed_by_two_ranks(self, job, words, step, last):
        """The losses of a job of two ranks from the start, which goes on from the same checkpoint."""
        run = os.path.join(SITE.folder, "two_ranks")
        shutil.copytree(job.checkpoint(step), os.path.join(run, os.path.basename(job.checkpoint(step))))
        words = [run if word == job.run else word for word in words]
        command = ["mpirun", "-np", "2", "--oversubscribe", "--bind-to", "none", *words]
        with subprocess.Popen([*HOSTS.on(HERE), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=SITE.folder) as process:
            other = Job.__new__(Job)
            other.run = run
            wait_until(lambda: f"step {last} is done ({process.poll()})", lambda: other.newest_step() >= last)
            process.terminate()
        return other.losses()

    def test_a_host_that_cannot_be_reached_is_named_before_anything_starts(self):
        HOSTS.link("b", "down")
        job = launch("unreachable")
        self.assertEqual(job.end(), 2, job.log())
        self.assertRegex(job.log(), r'launch: host b cannot be reached by ".*agent" \(exit code 255\)')
        self.assertNotIn("starting again", job.log())

    def test_ranks_that_cannot_reach_the_supervisor_go_on(self):
        port = 45717
        job = launch("blocked", "--port", str(port), "--limit", "silence=20", steps=300)
        job.await_steps(15)
        HOSTS.swallow("b", port)
        self.assertEqual(job.end(), 0, job.log())
        self.assertNotIn("launch: ", job.log())
        self.assertEqual(sorted(job.losses()), list(range(1, 301)))

    def test_a_configuration_error_of_one_rank_alone_is_said_once(self):
        right, wrong = os.path.join(SITE.source, "configs/quickstart.txtpb"), os.path.join(SITE.folder, "wrong.txtpb")
        with open(right) as old, open(wrong, "w") as new:
            new.write(old.read() + "\nno_such_field: 1\n")
        HOSTS.see("b", right, wrong)
        self.addCleanup(HOSTS.see, "b", right, None)
        job = launch("wrong", hosts="a:3,b:1")
        self.assertEqual(job.end(), 2, job.log())
        self.assertEqual(job.log().count("no_such_field"), 1, job.log())
        self.assertIn("launch: configuration error", job.log())


def setUpModule():
    global SITE
    SITE = Site(*sys.argv[1:6])


def tearDownModule():
    SITE.close()


if __name__ == "__main__":
    try:
        with Hosts("a", "b", "c") as HOSTS:
            result = unittest.main(argv=[sys.argv[0], *sys.argv[6:]], verbosity=2, exit=False).result
    except Unavailable as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(SKIPPED)
    sys.exit(not result.wasSuccessful())
