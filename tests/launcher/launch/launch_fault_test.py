#!/usr/bin/env python3
"""Faults of a supervised job of four ranks: real processes, real signals.

    launch_fault_test.py SPROCKET SOURCE_DIR MAKE_CLIP FAULTS_LIBRARY

Says, for each fault, after how long the supervisor noticed and when the first new step was done.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SPROCKET, SOURCE, MAKE_CLIP, FAULTS = (os.path.abspath(path) for path in sys.argv[1:5])
RANKS = 4
PATIENCE = 120  # of what takes seconds on an idle machine
ORPHANS = 10  # after a supervisor that was killed
LEAVE, DISCONNECT = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2
FOLDER = None


def setUpModule():
    global FOLDER
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")
    FOLDER = tempfile.mkdtemp(prefix="sprocket_launch_")
    clip, data = os.path.join(FOLDER, "clip.mp4"), os.path.join(FOLDER, "data")
    subprocess.run([MAKE_CLIP, clip], check=True)
    subprocess.run([SPROCKET, "data", "encode", clip, "--output", data, "--width", "128", "--height", "80", "--frames",
                    "17", "--max-clips", "1", "--text-tokens", "16", "--text-dim", "64"], check=True,
                   stdout=subprocess.DEVNULL)


def tearDownModule():
    shutil.rmtree(FOLDER)


def wait_until(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain until {what()}")
        time.sleep(0.02)


def processes():
    """(id, command line) of all processes that have one."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words != [""]:
            yield int(name), words


class Job:
    """A launcher, its ranks and what they write."""

    started = []

    def __init__(self, name, *flags, steps=1000000, sets=(), port=None):
        self.run = os.path.join(FOLDER, name)
        self.log_path = self.run + ".log"
        environment = dict(os.environ, LD_PRELOAD=FAULTS)
        if port:
            environment["FAULT_TEST_PORT"] = str(port)
            flags = (*flags, "--port", str(port))
        words = [SPROCKET, "launch", "--np", str(RANKS), *flags, "--", "train", "--config",
                 os.path.join(SOURCE, "configs/quickstart.txtpb"), "--output", self.run, "--set",
                 f'data.path: "{FOLDER}/data" training.steps: {steps} output.checkpoint_interval: 10', "--set",
                 "model.dim: 32 model.layers: 2 model.ffn_dim: 64 sampling.steps: 2 output.tensorboard: false"]
        for text in sets:
            words += ["--set", text]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=FOLDER)
        Job.started.append(self)

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def ranks(self):
        """Process ids by rank."""
        found = {}
        for process, words in processes():
            if "--supervised" in words and self.run in words and words[0].endswith("sprocket"):
                try:
                    with open(f"/proc/{process}/environ", "rb") as file:
                        rank = re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)\0", file.read())
                except OSError:
                    continue
                if rank:
                    found[int(rank.group(1))] = process
        return found

    def everything(self):
        return [process for process, words in processes() if self.run in words]

    def losses(self):
        """By step, of the lines that are complete."""
        found = {}
        try:
            with open(os.path.join(self.run, "metrics.jsonl")) as file:
                for line in file:
                    if line.endswith("\n"):
                        values = json.loads(line)
                        found[values["step"]] = values["loss"]
        except OSError:
            pass
        return found

    def await_log(self, text, start=0):
        return wait_until(lambda: f"the log says {text!r}: {self.log()}", lambda: self.log().find(text, start) + 1)

    def await_steps(self, step):
        def reached():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before step {step}: {self.log()}")
            return max(self.losses(), default=0) >= step
        wait_until(lambda: f"step {step} is done: {self.log()}", reached)
        return max(self.losses())

    def end(self, *signals):
        for number in signals:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def inject(self, rank, number, notice):
        """Sends a signal to a rank; returns when the supervisor has said `notice`, and after how long."""
        start = len(self.log())
        victim = self.ranks()[rank]
        before = time.monotonic()
        os.kill(victim, number)
        self.await_log(notice, start)
        return start, time.monotonic() - before

    def await_first_step(self, start):
        self.await_log("first new step", start)
        return float(re.search(r"first new step \(\d+\) ([\d.]+) s", self.log()[start:]).group(1))


class Faults(unittest.TestCase):
    def tearDown(self):
        """What a test that failed has left behind."""
        while Job.started:
            job = Job.started.pop()
            job.process.kill()
            job.process.wait()
            for process in job.everything():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def report(self, what, detected, first_step):
        print(f"{what:<34} noticed after {detected:5.2f} s, first new step {first_step:5.1f} s later", flush=True)

    def test_dying_ranks_and_the_losses_after_them(self):
        job = Job("dying")
        wait_until(lambda: "ranks start", lambda: len(job.ranks()) == RANKS)
        cases = [("SIGKILL in init", 1, signal.SIGKILL, "was ended by SIGKILL", 0),
                 ("SIGKILL in a step", 2, signal.SIGKILL, "was ended by SIGKILL", 15),
                 ("abort", 3, signal.SIGABRT, "was ended by SIGABRT", 15),
                 ("segmentation fault", 0, signal.SIGSEGV, "was ended by SIGSEGV", 15),
                 ("early exit 0", 1, LEAVE, "crash: rank 1", 15)]
        step = 0
        for what, rank, number, ending, steps in cases:
            if steps:
                step = job.await_steps(step + steps)
            start, detected = job.inject(rank, number, "launch: ")
            job.await_log(ending, start)
            said = [line for line in job.log()[start:].splitlines() if "crash: " in line]
            self.assertEqual(len(said), 1, job.log())
            if what != "SIGKILL in init":
                self.assertIn(f"crash: rank {rank} (", said[0])
            self.report(what, detected, job.await_first_step(start))
        last = job.await_steps(step + 10)
        undisturbed = Job("undisturbed")
        undisturbed.await_steps(last)
        for each in (undisturbed, job):
            self.assertEqual(each.end(signal.SIGTERM), 75, each.log())
            self.assertIn("asked to stop", each.log())
            self.assertIn("interrupted: stopped by a signal after a checkpoint", each.log())
            self.assertEqual(each.everything(), [])
        expected, found = undisturbed.losses(), job.losses()
        self.assertEqual(sorted(found), list(range(1, len(found) + 1)))
        self.assertGreaterEqual(len(expected), last)
        for number in range(1, last + 1):
            self.assertEqual(found[number], expected[number], f"step {number}")

    def test_a_stopped_rank_is_named_and_one_that_goes_on_in_time_survives(self):
        job = Job("stopped", "--limit", "step=12")
        job.await_steps(15)
        victim = job.ranks()[2]
        start = len(job.log())
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: "the job stands still", lambda: stands_still(job))
        time_to_be_silent = time.monotonic() + 5
        wait_until(lambda: "it has been silent for long enough to be noticed",
                   lambda: time.monotonic() > time_to_be_silent)
        os.kill(victim, signal.SIGCONT)
        step = job.await_steps(max(job.losses()) + 10)
        job.await_log("launch: rank 2 (", start)
        self.assertIn("is heard again after", job.log())
        self.assertNotIn("hang", job.log())
        start, detected = job.inject(2, signal.SIGSTOP, "launch: hang: rank 2 (")
        sentence = job.log()[start:].splitlines()[0]
        self.assertIn("the process of rank 2 is stopped", job.log())
        self.assertIn("the others wait in", job.log())
        self.assertLess(detected, 12 + 5 + 15, sentence)
        self.report("SIGSTOP, limit 12 s", detected, job.await_first_step(start))
        report = re.search(r"are in (\S+)", job.log()).group(1)
        with open(report) as file:
            text = file.read()
        for rank in range(RANKS):
            self.assertIn(f"rank {rank} (", text)
        self.assertEqual(text.count("it did not answer"), 1)
        job.await_steps(step + 1)
        # A second signal does not wait for the step.
        os.kill(job.ranks()[1], signal.SIGSTOP)
        job.process.send_signal(signal.SIGTERM)
        job.await_log("asked to stop")
        self.assertEqual(job.end(signal.SIGTERM), 76)
        self.assertEqual(job.everything(), [])

    def test_a_control_connection_that_drops_costs_nothing(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        job = Job("dropped", port=port)
        job.await_steps(15)
        with open(f"/proc/{job.process.pid}/cmdline", "rb") as file:
            self.assertNotRegex(file.read(), rb"[0-9a-f]{64}")
        start, _ = job.inject(0, DISCONNECT, "the supervisor does not answer")
        job.await_steps(max(job.losses()) + 10)
        # By the connection that was made anew.
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        self.assertNotIn("crash", job.log()[start:])

    def test_ranks_do_not_outlive_their_supervisor_or_finish_alone(self):
        job = Job("orphans")
        job.await_steps(15)
        job.end(signal.SIGKILL)
        before = time.monotonic()
        wait_until(lambda: f"all have ended: {job.everything()}", lambda: not job.everything(), ORPHANS)
        print(f"{'supervisor killed':<34} no process left after {time.monotonic() - before:.2f} s", flush=True)
        alone = Job("alone", "--if-abandoned", "finish", steps=150)
        alone.await_steps(15)
        alone.end(signal.SIGKILL)
        wait_until(lambda: "the other job is done", lambda: max(alone.losses()) == 150 and not alone.everything())
        self.assertTrue(os.path.exists(os.path.join(alone.run, "step_00000150", "MANIFEST")))

    def test_a_configuration_error_is_said_once_and_never_tried_again(self):
        job = Job("wrong", sets=["parallel.ulysses: 3"])
        self.assertEqual(job.end(), 2, job.log())
        self.assertEqual(job.log().count("does not divide model.heads"), 1, job.log())
        self.assertIn("launch: configuration error", job.log())
        self.assertNotIn("starting again", job.log())
        self.assertFalse(os.path.exists(job.run))


def stands_still(job):
    """No step in a second."""
    last = max(job.losses())
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if max(job.losses()) != last:
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
