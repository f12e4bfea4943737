#!/usr/bin/env python3
"""Faults of a supervised job of four ranks: real processes, real signals.

    launch_fault_test.py SPROCKET SOURCE_DIR MAKE_CLIP FAULTS_LIBRARY SPROCKET_WITH_FAULTS [CLASS[.test_NAME] …]

Says, for each fault, after how long the supervisor noticed and when the first new step was done.
"""
import ctypes
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest

from supervised_job import CONSTANT_RATE, DISCONNECT, LEAVE, RANKS, Job, Site, wait_until

ORPHANS = 10  # after a supervisor that was killed
# Seconds; on an idle machine 2 (a hang: 5 after its limit) and 15 are promised.
NOTICED, FIRST_STEP = 20, 90
SKIPPED = 77  # exit status
SITE = None


def setUpModule():
    global SITE
    SITE = Site(*sys.argv[1:6])


def tearDownModule():
    SITE.close()


class JobTest(unittest.TestCase):
    def tearDown(self):
        SITE.end_jobs()

    def report(self, what, detected, first_step, limit=0):
        self.assertLess(detected, limit + NOTICED, what)
        self.assertLess(first_step, FIRST_STEP, what)
        print(f"{what:<34} noticed after {detected:5.2f} s, first new step {first_step:5.1f} s later", flush=True)


class Faults(JobTest):
    def test_dying_ranks_and_the_bits_after_them(self):
        validation = f'training.validation {{ path: "{SITE.data}" interval: 4 levels: 1 }}'
        sets = (CONSTANT_RATE, validation)
        job = Job(SITE, "dying", plans=True, interval=5, sets=sets)
        wait_until(lambda: "ranks start", lambda: len(job.ranks()) == RANKS)
        start, detected = job.inject(1, signal.SIGKILL, "launch: crash: ")
        job.await_log("was ended by SIGKILL", start)
        # It is among those of which nothing was heard yet, if anything was heard of any.
        self.assertRegex(job.log(start), r"launch: crash: (rank (\d+, )*1\b|a rank )")
        self.report("SIGKILL in init", detected, job.await_first_step(start))
        step = 0
        for what, rank, fault, ending in [
                ("SIGKILL in a forward", 2, ("forward", "kill"), "crash: rank 2 ("),
                ("SIGKILL in a backward", 1, ("backward", "kill"), "was ended by SIGKILL"),
                ("SIGKILL in the optimizer", 3, ("optimizer", "kill"), "was ended by SIGKILL"),
                ("SIGKILL in a validation", 0, ("sample", "kill"), "was ended by SIGKILL"),
                ("exception", 2, ("forward", "throw"), "thrown on purpose"),
                ("out of memory", 3, ("backward", "memory"), "can't allocate memory"),
                ("abort", 3, signal.SIGABRT, "was ended by SIGABRT"),
                ("segmentation fault", 0, signal.SIGSEGV, "was ended by SIGSEGV"),
                ("early exit 0", 1, LEAVE, "crash: rank 1")]:
            step = job.await_steps(step + 6)
            kind = "out of memory" if what == "out of memory" else "crash"
            # A rank that can still speak says it before it dies.
            notice = f"launch: {kind}: " if what in ("exception", "out of memory") else "is gone"
            start, detected = (job.inject(rank, fault, notice) if isinstance(fault, int)
                               else job.meet(rank, *fault, notice))
            job.await_log(f"launch: {kind}: ", start)
            first_step = job.await_first_step(start)
            said = [line for line in job.log(start).splitlines() if f"launch: {kind}: " in line]
            self.assertEqual(len(said), 1, job.log())
            self.assertIn(f"{kind}: rank {rank} (", said[0])
            self.assertIn(ending, said[0])
            self.report(what, detected, first_step)
        job.await_steps(step + 6)
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        self.assertIn("asked to stop", job.log())
        self.assertIn("interrupted: stopped by a signal after a checkpoint", job.log())
        self.assertEqual(job.everything(), [])
        last = job.newest_step()
        undisturbed = Job(SITE, "undisturbed", steps=last, sets=sets)
        self.assertEqual(undisturbed.end(), 0, undisturbed.log())
        self.assertEqual(job.differences(undisturbed, last), "")

    def test_the_teacher_of_a_distillation(self):
        teacher = Job(SITE, "teacher", steps=1, sets=(CONSTANT_RATE,))
        self.assertEqual(teacher.end(), 0, teacher.log())
        sets = (CONSTANT_RATE, f'distillation {{ teacher {{ weights: "{teacher.run}" }} guidance: 2 }}')
        job = Job(SITE, "distillation", command="distill", plans=True, steps=8, interval=2, sets=sets)
        job.await_steps(3)
        start, detected = job.meet(1, "teacher", "kill")
        job.await_log("launch: crash: rank 1 (", start)
        self.report("SIGKILL in the teacher's forward", detected, job.await_first_step(start))
        self.assertEqual(job.end(), 0, job.log())
        undisturbed = Job(SITE, "distillation_undisturbed", command="distill", steps=8, sets=sets)
        self.assertEqual(undisturbed.end(), 0, undisturbed.log())
        self.assertEqual(job.differences(undisturbed, 8), "")

    def test_collectives_in_another_order(self):
        job = Job(SITE, "reordered", "--limit", "step=8", plans=True)
        job.await_steps(12)
        start, detected = job.meet(2, "all_reduce", "stray", "launch: hang: ")
        sentence = next(line for line in job.log(start).splitlines() if "launch: hang: " in line)
        self.assertIn("launch: hang: rank 2 (", sentence)
        self.assertIn("the others wait in all_reduce", sentence)
        self.report("another order of two groups", detected, job.await_first_step(start), limit=8)
        # Within one group the sizes do not match: a rank says so, or dies of what it received (docs/decisions/mpi_truncation.md).
        job.await_steps(job.newest_step() + 12)
        start, detected = job.meet(2, "all_reduce", "reorder", "launch: crash: ")
        self.assertRegex(job.log(start), r"launch: crash: .*(rank|peer) 2\b")
        self.report("another order in a group", detected, job.await_first_step(start))
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        checked = Job(SITE, "checked", plans=True, sets=("parallel.check_collectives: true",))
        checked.await_steps(2)
        start, detected = checked.meet(2, "all_reduce", "reorder", "launch: crash: ")
        sentence = next(line for line in checked.log(start).splitlines() if "launch: crash: " in line)
        self.assertIn("rank 2", sentence)
        self.report("the same, checked", detected, checked.await_first_step(start))

    def test_gradients_that_are_no_numbers_end_the_job(self):
        job = Job(SITE, "nan", plans=True, sets=("training.max_skipped_steps: 3",))
        step = job.await_steps(12)
        job.plan(1, "gradients", "nan")
        self.assertEqual(job.end(), 7, job.log())
        self.assertIn("launch: wrong numbers", job.log())
        self.assertNotIn("starting again", job.log())
        self.assertEqual(job.log().count("the gradient was not finite in 3 steps in a row"), 1, job.log())
        self.assertIn("in a row (training.max_skipped_steps) (before the sum: on rank 1 of 4); ", job.log())
        self.assertEqual(SITE.intact(job.run), [job.checkpoint(10)])
        self.assertLess(step, 20)

    def test_damaged_checkpoints_are_passed_over(self):
        job = Job(SITE, "damaged", steps=30, interval=5, sets=(CONSTANT_RATE, "output.keep_checkpoints: 0"))
        self.assertEqual(job.end(), 0, job.log())
        whole = [job.checkpoint(step) for step in range(5, 31, 5)]
        self.assertEqual(sorted(SITE.intact(job.run)), whole)
        os.truncate(shards(whole[5])[1], os.path.getsize(shards(whole[5])[1]) - 1)
        flip_a_bit(shards(whole[4])[2])
        os.truncate(shards(whole[3])[0], 0)
        os.remove(shards(whole[2])[3])
        os.remove(os.path.join(whole[1], "MANIFEST"))
        job = Job(SITE, "damaged", "--max-restarts", "0", steps=31, resume="latest",
                  sets=(CONSTANT_RATE, "output.keep_checkpoints: 0"))
        self.assertEqual(job.end(), 0, job.log())
        for path in whole[1:]:
            self.assertIn(f"{path} is damaged and passed over: ", job.log())
        self.assertIn(f"resuming from {whole[0]}", job.log())
        undisturbed = Job(SITE, "not_damaged", steps=31, sets=(CONSTANT_RATE,))
        self.assertEqual(undisturbed.end(), 0, undisturbed.log())
        self.assertEqual(job.differences(undisturbed, 31), "")

    def test_a_port_that_is_taken(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            job = Job(SITE, "port", port=port)
            self.assertEqual(job.end(), 2, job.log())
            self.assertIn(str(port), job.log())
            self.assertIn("in use", job.log())
        self.assertFalse(os.path.exists(job.run))

    def test_a_slow_rank_and_a_stopped_one_are_named_and_one_that_goes_on_in_time_survives(self):
        job = Job(SITE, "stopped", "--limit", "step=12", plans=True)
        job.await_steps(15)
        slow = job.plan(3, "optimizer", "slow")
        before = time.monotonic()
        job.await_log("launch: straggler: rank 3 (")
        print(f"{'slow rank':<34} named after {time.monotonic() - before:.2f} s", flush=True)
        os.remove(slow)
        job.await_log("launch: straggler no more: rank 3 (")
        victim = job.ranks()[2]
        start = job.log_end()
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: "the job stands still", lambda: stands_still(job))
        time_to_be_silent = time.monotonic() + 5
        wait_until(lambda: "it has been silent for long enough to be noticed",
                   lambda: time.monotonic() > time_to_be_silent)
        os.kill(victim, signal.SIGCONT)
        step = job.await_steps(job.newest_step() + 10)
        job.await_log("launch: rank 2 (", start)
        self.assertIn("is heard again after", job.log(start))
        self.assertNotIn("hang", job.log())
        start, detected = job.inject(2, signal.SIGSTOP, "launch: hang: rank 2 (")
        self.assertIn("the process of rank 2 is stopped", job.log())
        self.assertIn("the others wait in", job.log())
        self.report("SIGSTOP, limit 12 s", detected, job.await_first_step(start), limit=12)
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
        job = Job(SITE, "dropped", port=port)
        job.await_steps(15)
        with open(f"/proc/{job.process.pid}/cmdline", "rb") as file:
            self.assertNotRegex(file.read(), rb"[0-9a-f]{64}")
        start, _ = job.inject(0, DISCONNECT, "the supervisor does not answer")
        job.await_steps(job.newest_step() + 10)
        # By the connection that was made anew.
        self.assertEqual(job.end(signal.SIGTERM), 75, job.log())
        self.assertNotIn("crash", job.log(start))

    def test_ranks_do_not_outlive_their_supervisor_or_finish_alone(self):
        job = Job(SITE, "orphans")
        job.await_steps(15)
        job.end(signal.SIGKILL)
        before = time.monotonic()
        wait_until(lambda: f"all have ended: {job.everything()}", lambda: not job.everything(), ORPHANS)
        print(f"{'supervisor killed':<34} no process left after {time.monotonic() - before:.2f} s", flush=True)
        alone = Job(SITE, "alone", "--if-abandoned", "finish", steps=150)
        alone.await_steps(15)
        alone.end(signal.SIGKILL)
        wait_until(lambda: "the other job is done", lambda: alone.newest_step() == 150 and not alone.everything())
        self.assertTrue(os.path.exists(os.path.join(alone.run, "step_00000150", "MANIFEST")))

    def test_a_configuration_error_is_said_once_and_never_tried_again(self):
        job = Job(SITE, "wrong", sets=["parallel.ulysses: 3"])
        self.assertEqual(job.end(), 2, job.log())
        self.assertEqual(job.log().count("does not divide model.heads"), 1, job.log())
        self.assertIn("launch: configuration error", job.log())
        self.assertNotIn("starting again", job.log())
        self.assertFalse(os.path.exists(job.run))


class MachineFaults(JobTest):
    """Those that take rights over the machine. Where there are none they are skipped, and the exit status says so."""

    def test_a_rank_that_the_kernel_kills_for_memory(self):
        with MemoryGroup() as group:
            job = Job(SITE, "memory", plans=True, before=group.wrapper())
            step = job.await_steps(12)
            group.limit_to_more(512 << 20)
            start, detected = job.meet(2, "forward", "hoard", "launch: out of memory: rank 2 (")
            self.assertIn("was killed by the kernel: its control group ran out of memory", job.log(start))
            self.report("killed for memory", detected, job.await_first_step(start))
            job.await_steps(step + 2)
            self.assertEqual(job.end(signal.SIGTERM), 75, job.log())

    def mounted(self, name, options):
        folder = os.path.join(SITE.folder, name)
        os.mkdir(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        return folder

    def test_a_disk_that_is_full_and_one_that_cannot_be_written(self):
        enter_mounts_of_its_own()
        small, fixed = self.mounted("small", "size=4m"), self.mounted("fixed", "ro")
        job = Job(SITE, "full", run=os.path.join(small, "run"), interval=4, sets=("output.keep_checkpoints: 0",))
        job.await_log("was not saved, the job goes on: ")
        self.assertIn("No space left on device", job.log())
        before = SITE.intact(job.run)
        self.assertGreater(len(before), 1)
        # Not even metrics fit.
        fill(small)
        self.assertEqual(job.end(), 4, job.log())
        self.assertIn("launch: output error", job.log())
        self.assertEqual(SITE.intact(job.run), before)
        job = Job(SITE, "fixed", run=os.path.join(fixed, "run"))
        self.assertEqual(job.end(), 4, job.log())
        self.assertEqual(job.log().count("Read-only file system"), 1, job.log())
        self.assertIn("launch: output error", job.log())
        self.assertNotIn("starting again", job.log())


class MemoryGroup:
    """A control group below this process's own."""

    def __enter__(self):
        with open("/proc/self/cgroup") as file:
            groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in file)
        below = f"sprocket_fault_test_{os.getpid()}"
        if "memory" in groups:
            self.folder, names = "/sys/fs/cgroup/memory" + groups["memory"], ("usage_in_bytes", "limit_in_bytes")
        else:
            self.folder, names = "/sys/fs/cgroup" + groups.get("", ""), ("current", "max")
        self.folder = os.path.join(self.folder, below)
        self.usage, self.limit = (os.path.join(self.folder, "memory." + name) for name in names)
        try:
            os.mkdir(self.folder)
        except OSError as error:
            raise unittest.SkipTest(f"no control group can be made: {error}")
        if not os.access(self.limit, os.W_OK):
            os.rmdir(self.folder)
            raise unittest.SkipTest(f"no {self.limit} that could be written")
        return self

    def __exit__(self, *_):
        SITE.end_jobs()
        wait_until(lambda: "the control group is empty", lambda: self.is_empty())
        os.rmdir(self.folder)

    def is_empty(self):
        with open(os.path.join(self.folder, "cgroup.procs")) as file:
            return file.read() == ""

    def wrapper(self):
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    def limit_to_more(self, bytes_more):
        with open(self.usage) as file:
            most = int(file.read()) + bytes_more
        with open(self.limit, "w") as file:
            file.write(str(most))


def enter_mounts_of_its_own():
    """What this process mounts from now on is seen by it and its children alone, and ends with them."""
    new_mounts = 0x20000  # CLONE_NEWNS
    if ctypes.CDLL(None, use_errno=True).unshare(new_mounts) != 0:
        raise unittest.SkipTest(f"no mounts can be made: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def fill(folder):
    with open(os.path.join(folder, "rest"), "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def shards(checkpoint):
    folder = os.path.join(checkpoint, "model")
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".safetensors"))


def flip_a_bit(path):
    with open(path, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))


def stands_still(job):
    """No step in a second."""
    last = job.newest_step()
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if job.newest_step() != last:
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    result = unittest.main(argv=sys.argv[:1] + sys.argv[6:], verbosity=2, exit=False).result
    sys.exit(1 if not result.wasSuccessful() else SKIPPED if result.skipped else 0)
