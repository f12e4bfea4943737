"""Small jobs of four ranks under `sprocket launch`: real processes, real signals. For the tests of faults and the soak."""
import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

RANKS = 4
PATIENCE = 120  # of what takes seconds on an idle machine
CONSTANT_RATE = "training.optimizer { warmup_steps: 0 decay: CONSTANT }"  # whatever the number of steps
LEAVE, DISCONNECT = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2  # of faults.c


def wait_until(what, condition, patience=PATIENCE, poll=0.02):
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain until {what()}")
        time.sleep(poll)


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


class Site:
    """What jobs share: programs, and a folder of their own with a data set."""

    def __init__(self, sprocket, source, make_clip, faults, with_faults=""):
        """`with_faults`: sprocket_with_faults, for jobs that plan faults."""
        self.sprocket, self.source, self.faults, self.with_faults = (
            os.path.abspath(path) for path in (sprocket, source, faults, with_faults))
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")
        self.folder = tempfile.mkdtemp(prefix="sprocket_launch_")
        self.data, self.started = os.path.join(self.folder, "data"), []
        clip = os.path.join(self.folder, "clip.mp4")
        subprocess.run([os.path.abspath(make_clip), clip], check=True)
        subprocess.run([self.sprocket, "data", "encode", clip, "--output", self.data, "--width", "128", "--height",
                        "80", "--frames", "17", "--max-clips", "1", "--text-tokens", "16", "--text-dim", "64"],
                       check=True, stdout=subprocess.DEVNULL)

    def intact(self, run):
        """The checkpoints of a run of which `sprocket checkpoint verify` says so."""
        said = subprocess.run([self.sprocket, "checkpoint", "verify", run], stdout=subprocess.PIPE, text=True).stdout
        return [line.split(": ", 1)[0] for line in said.splitlines() if ": intact" in line]

    def close(self):
        self.end_jobs()
        shutil.rmtree(self.folder)

    def end_jobs(self):
        """What somebody who failed has left behind."""
        while self.started:
            job = self.started.pop()
            job.process.kill()
            job.process.wait()
            for process in job.everything():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Job:
    """A launcher, its ranks and what they write."""

    def __init__(self, site, name, *flags, steps=1000000, interval=10, sets=(), port=None, command="train",
                 plans=False, before=(), run=None, resume=None):
        """`before`: words in front of the command; `plans`: with the program that takes planned faults."""
        self.run = run or os.path.join(site.folder, name)
        self.log_path, self.fault_folder = (os.path.join(site.folder, name) + end for end in (".log", ".faults"))
        os.makedirs(self.fault_folder, exist_ok=True)
        variables = dict(os.environ, LD_PRELOAD=site.faults, FAULT_FOLDER=self.fault_folder)
        if port:
            variables["FAULT_TEST_PORT"] = str(port)
            flags = (*flags, "--port", str(port))
        words = [*before, site.with_faults if plans else site.sprocket, "launch", "--np", str(RANKS), *flags, "--", command,
                 "--config", os.path.join(site.source, "configs/quickstart.txtpb"), "--output", self.run]
        if resume:
            words += ["--resume", resume]
        for text in (f'data.path: "{site.data}" training.steps: {steps} output.checkpoint_interval: {interval}',
                     "model.dim: 32 model.layers: 2 model.ffn_dim: 64 sampling.steps: 2 output.tensorboard: false",
                     *sets):
            words += ["--set", text]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=variables, cwd=site.folder)
        site.started.append(self)

    def log(self, start=0):
        """From a position in bytes."""
        with open(self.log_path, "rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def log_end(self):
        return os.path.getsize(self.log_path)

    def ranks(self):
        """Process ids by rank."""
        found = {}
        for process, words in processes():
            if "--supervised" in words and self.run in words and words[0].startswith("/"):
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

    def metrics(self):
        """By step, the lines that are complete."""
        found = {}
        try:
            with open(os.path.join(self.run, "metrics.jsonl")) as file:
                for line in file:
                    if line.endswith("\n"):
                        values = json.loads(line)
                        found[values["step"]] = values
        except OSError:
            pass
        return found

    def losses(self):
        """By step: the loss, or those of a distillation's networks."""
        return {step: values.get("loss", {name: part["loss"] for name, part in values.items()
                                          if isinstance(part, dict) and "loss" in part})
                for step, values in self.metrics().items()}

    def newest_step(self):
        """Of the last line that is complete; 0: none."""
        try:
            with open(os.path.join(self.run, "metrics.jsonl"), "rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 20000, 0))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return 0
        return json.loads(lines[-1])["step"] if lines else 0

    def await_log(self, text, start=0):
        wait_until(lambda: f"the log says {text!r}: {self.log()}", lambda: text in self.log(start))

    def differences(self, other, step):
        """What this run's losses, weights and moments up to a step are other than those of another run; empty: nothing."""
        expected, found = other.losses(), self.losses()
        if any(sorted(losses) != list(range(1, step + 1)) for losses in (expected, found)):
            return f"expected steps 1 to {step}, found {sorted(expected)} and {sorted(found)}"
        wrong = [f"the loss of step {number}" for number in found if found[number] != expected[number]]
        for part in ("model", "optim"):
            folders = [os.path.join(job.checkpoint(step), part) for job in (other, self)]
            names = [sorted(os.listdir(folder)) for folder in folders]
            if names[0] != names[1]:
                return f"other files in {part}: {names}"
            same, _, _ = filecmp.cmpfiles(*folders, names[0], shallow=False)
            wrong += [f"{part}/{name}" for name in names[0] if name not in same]
        return ", ".join(wrong)

    def await_steps(self, step, patience=PATIENCE):
        def reached():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before step {step}: {self.log()}")
            return self.newest_step() >= step
        wait_until(lambda: f"step {step} is done: {self.log()}", reached, patience)
        return self.newest_step()

    def end(self, *signals):
        for number in signals:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def inject(self, rank, number, notice):
        """Sends a signal to a rank; returns when the supervisor has said `notice`, and after how long."""
        start = self.log_end()
        victim = self.ranks()[rank]
        before = time.monotonic()
        os.kill(victim, number)
        self.await_log(notice, start)
        return start, time.monotonic() - before

    def plan(self, rank, moment, fault):
        """What fault_at_moment.cc does to a rank from now on."""
        path = os.path.join(self.fault_folder, f"rank{rank}")
        with open(path + ".tmp", "w") as file:
            file.write(f"{moment} {fault}")
        os.rename(path + ".tmp", path)
        return path

    def meet(self, rank, moment, fault, notice="is gone"):
        """As inject(), from when the rank has come to that moment."""
        start, path = self.log_end(), self.plan(rank, moment, fault)
        wait_until(lambda: f"rank {rank} comes to {moment}: {self.log()}", lambda: not os.path.exists(path))
        before = time.monotonic()
        self.await_log(notice, start)
        return start, time.monotonic() - before

    def checkpoint(self, step):
        return os.path.join(self.run, f"step_{step:08}")

    def await_first_step(self, start):
        """Seconds from when the failure was seen to the first new step."""
        self.await_log("first new step", start)
        return float(re.search(r"first new step \(\d+\) ([\d.]+) s", self.log(start)).group(1))
