#!/usr/bin/env python3
"""`sprocket status` and the status port of a job of two ranks: real processes.

    status_command_test.py SPROCKET SOURCE_DIR MAKE_CLIP
"""
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

SPROCKET, SOURCE, MAKE_CLIP = (os.path.abspath(path) for path in sys.argv[1:4])
PATIENCE = 120  # of what takes seconds on an idle machine


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE} s in vain until {what()}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sprocket(*words):
    return subprocess.run([SPROCKET, *words], capture_output=True, text=True, timeout=PATIENCE)


class StatusOfAJob(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")
        cls.folder = tempfile.mkdtemp(prefix="sprocket_status_")
        clip, data = os.path.join(cls.folder, "clip.mp4"), os.path.join(cls.folder, "data")
        subprocess.run([MAKE_CLIP, clip], check=True)
        subprocess.run([SPROCKET, "data", "encode", clip, "--output", data, "--width", "128", "--height", "80", "--frames",
                        "17", "--max-clips", "1", "--text-tokens", "16", "--text-dim", "64"], check=True,
                       stdout=subprocess.DEVNULL)
        cls.run_folder, cls.log_path = os.path.join(cls.folder, "run"), os.path.join(cls.folder, "log")
        cls.port = free_port()
        cls.url = f"http://127.0.0.1:{cls.port}"
        cls.words = [SPROCKET, "launch", "--np", "2", "--http", str(cls.port), "--", "train", "--config",
                     os.path.join(SOURCE, "configs/quickstart.txtpb"), "--output", cls.run_folder, "--set",
                     f'data.path: "{data}" training.steps: 1000000 output.checkpoint_interval: 20', "--set",
                     "model.dim: 32 model.layers: 2 model.ffn_dim: 64 sampling.steps: 2 output.tensorboard: false"]
        with open(cls.log_path, "wb") as log:
            cls.job = subprocess.Popen(cls.words, stdout=log, stderr=log, cwd=cls.folder)

    @classmethod
    def tearDownClass(cls):
        if cls.job.poll() is None:
            for _ in range(2):
                cls.job.send_signal(signal.SIGTERM)
            cls.job.wait(PATIENCE)
        shutil.rmtree(cls.folder)

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def seen(self):
        found = sprocket("status", self.run_folder, "--json")
        return json.loads(found.stdout) if found.returncode == 0 else None

    def get(self, path, **headers):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_a_job_is_asked_from_its_beginning_to_its_end(self):
        wait_until(lambda: f"a checkpoint is shown: {self.log()}",
                   lambda: (self.seen() or {"job": {"checkpoint_step": -1}})["job"]["checkpoint_step"] >= 20)
        seen = self.seen()
        self.assertEqual(seen["job"]["state"], "running")
        self.assertEqual(seen["job"]["folder"], self.run_folder)
        self.assertEqual(seen["job"]["total_steps"], 1000000)
        self.assertGreater(seen["job"]["tokens_per_second"], 0)
        self.assertGreater(seen["job"]["eta_seconds"], 0)
        self.assertEqual([rank["process"] > 0 for rank in seen["ranks"]], [True, True])
        for rank in seen["ranks"]:
            self.assertGreater(rank["own_seconds"], 0)
            self.assertGreater(rank["memory_bytes"], 1e6)

        table = sprocket("status", self.run_folder)
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertEqual(len(table.stdout.splitlines()), 4 + 1 + 3 + table.stdout.count("straggler: "), table.stdout)
        by_url = sprocket("status", "--url", self.url)
        self.assertEqual(by_url.returncode, 0, by_url.stderr)

        self.assertEqual(self.get("/healthz"), (200, "ok\n"))
        self.assertIn("\nsprocket_job_steps 1000000\n", self.get("/metrics")[1])
        self.assertIn("<!doctype html>", self.get("/")[1])
        self.assertEqual(self.get("/status.json", Host="evil.example")[0], 421)
        self.assertEqual(self.get("/../../etc/passwd")[0], 404)

        taken = subprocess.run(self.words, capture_output=True, text=True, cwd=self.folder, timeout=PATIENCE)
        self.assertEqual(taken.returncode, 2, taken.stderr)
        self.assertIn(f"--http: cannot listen on 127.0.0.1 port {self.port}", taken.stderr)

        self.watch_on_a_terminal()
        with subprocess.Popen([SPROCKET, "status", self.run_folder, "--watch"], stdout=subprocess.PIPE, text=True) as watch:
            self.assertIn("running   step ", watch.stdout.readline())
            self.job.send_signal(signal.SIGTERM)
            self.assertEqual(self.job.wait(PATIENCE), 75, self.log())
            lines = watch.stdout.read().splitlines()
            self.assertEqual(watch.wait(PATIENCE), 0)
        self.assertEqual(lines[-1], "the supervisor has ended")
        self.assertFalse(os.path.exists(os.path.join(self.run_folder, "sprocket_status.json")))
        gone = sprocket("status", self.run_folder)
        self.assertEqual((gone.returncode, gone.stdout), (3, ""))
        self.assertIn("no job is supervised here", gone.stderr)
        gone = sprocket("status", "--url", self.url)
        self.assertEqual(gone.returncode, 3)
        self.assertIn("no supervisor answers there", gone.stderr)

    def watch_on_a_terminal(self):
        child, terminal = pty.fork()
        if child == 0:
            os.execv(SPROCKET, [SPROCKET, "status", self.run_folder, "--watch"])
        shown = b""
        while b"last operation" not in shown:
            shown += os.read(terminal, 65536)
        self.assertIn(b"\033[?1049h", shown)
        os.kill(child, signal.SIGINT)
        shown = b""
        while True:
            try:
                more = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            shown += more
        _, status = os.waitpid(child, 0)
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertIn(b"\033[?1049l", shown)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
