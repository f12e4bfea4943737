"""A slow network inside of one machine: a network namespace for every rank, links between them limited by `tc tbf`.

Two namespaces are joined by a veth pair; more by veths to a bridge in a namespace of its own. Every end of every link has the
rate, so a rank sends at most so much and receives at most so much, whatever the others do. Nothing outside of the namespaces
is changed, and nothing reaches them from outside.
"""
import os
import shutil
import signal
import subprocess
import tempfile

PREFIX = "sprocket"
INTERFACE = "link0"
SUBNET = "10.77.0"
SKIPPED = 77  # exit code where the network cannot be made
# Longer queues than any exchange fills: a full one would drop packets and measure TCP's recovery instead of the link.
QUEUE_BYTES = 64 << 20


class Unavailable(Exception):
    """This machine does not allow it; the text is one sentence."""


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}.")
    return done.stdout


def remove_namespace(name):
    """With the processes in it; they were started there."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    for pid in map(int, pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def remove_abandoned():
    """Namespaces of a process that was killed before it could remove them."""
    for line in output_of("ip", "netns", "list").splitlines():
        name = line.split()[0]
        prefix, _, rest = name.partition("-")
        owner = rest.partition("-")[0]
        if prefix == PREFIX and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            remove_namespace(name)


class SlowNetwork:
    """Context manager. `rate` and `burst` as tc reads them ("200mbit", "128kb"); rate None: unlimited."""

    def __init__(self, ranks, rate, burst="128kb"):
        self.ranks, self.rate, self.burst = ranks, rate, burst
        self.names = [f"{PREFIX}-{os.getpid()}-{rank}" for rank in range(ranks)]
        self.hub = f"{PREFIX}-{os.getpid()}-hub"
        self.made, self.folder = [], None

    def __enter__(self):
        if os.geteuid() != 0:
            raise Unavailable("A slow network needs root, to make network namespaces.")
        for program in ("ip", "tc", "mpirun"):
            if shutil.which(program) is None:
                raise Unavailable(f"A slow network needs the program {program}, which is not installed.")
        try:
            remove_abandoned()
            self._make_namespaces()
            self._make_links()
            self._write_agent()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        while self.made:
            remove_namespace(self.made.pop())
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)  # Open MPI may still be leaving
            self.folder = None

    def address(self, rank):
        return f"{SUBNET}.{rank + 1}"

    def inside(self, rank):
        """Puts a command into the namespace of a rank."""
        return ["ip", "netns", "exec", self.names[rank]]

    def mpirun(self):
        """Starts one rank in every namespace; Open MPI's messages, its own included, take the slow links alone."""
        hosts = ",".join(f"{self.address(rank)}:1" for rank in range(self.ranks))
        subnet = f"{SUBNET}.0/24"
        settings = {"plm": "rsh", "plm_rsh_agent": self.agent, "plm_rsh_no_tree_spawn": "1", "pml": "ob1", "btl": "tcp,self",
                    "btl_tcp_if_include": subnet, "oob_tcp_if_include": subnet, "mpi_yield_when_idle": "1"}
        options = [part for key, value in settings.items() for part in ("--mca", key, value)]
        return [*self.inside(0), "env", f"TMPDIR={self.folder}/0", "mpirun", "--allow-run-as-root", "-np", str(self.ranks), "--host", hosts, "--bind-to", "none", *options]

    def _make_namespaces(self):
        for name in self.names + ([self.hub] if self.ranks > 2 else []):
            output_of("ip", "netns", "add", name)
            self.made.append(name)
            output_of("ip", "-n", name, "link", "set", "lo", "up")

    def _make_links(self):
        ends = [(name, INTERFACE) for name in self.names]
        if self.ranks == 2:
            output_of("ip", "link", "add", INTERFACE, "netns", self.names[0], "type", "veth",
                      "peer", "name", INTERFACE, "netns", self.names[1])
        elif self.ranks > 2:
            output_of("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
            output_of("ip", "-n", self.hub, "link", "set", "bridge", "up")
            for rank, name in enumerate(self.names):
                port = f"port{rank}"
                output_of("ip", "link", "add", INTERFACE, "netns", name, "type", "veth", "peer", "name", port, "netns", self.hub)
                output_of("ip", "-n", self.hub, "link", "set", port, "master", "bridge")
                ends.append((self.hub, port))
        else:
            raise ValueError(f"expected at least 2 ranks, found {self.ranks}")
        for rank, name in enumerate(self.names):
            output_of("ip", "-n", name, "address", "add", f"{self.address(rank)}/24", "dev", INTERFACE)
        for name, device in ends:
            output_of("ip", "-n", name, "link", "set", device, "up")
            if self.rate is not None:
                output_of("tc", "-n", name, "qdisc", "add", "dev", device, "root", "tbf", "rate", self.rate, "burst", self.burst,
                          "limit", str(QUEUE_BYTES))

    def _write_agent(self):
        """What mpirun calls instead of ssh: `agent ADDRESS COMMAND…` runs the command in that address's namespace. Open MPI tells
        nodes apart by host name in its temporary files, and here all have the same: each gets a folder of its own."""
        self.folder = tempfile.mkdtemp(prefix=f"{PREFIX}-network-")
        for rank in range(self.ranks):
            os.mkdir(os.path.join(self.folder, str(rank)))
        self.agent = os.path.join(self.folder, "agent")
        with open(self.agent, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nrank=$((${{1##*.}} - 1))\nshift\nexport TMPDIR="{self.folder}/$rank"\n'
                       f'exec ip netns exec "{PREFIX}-{os.getpid()}-$rank" /bin/sh -c "$*"\n')
        os.chmod(self.agent, 0o755)


def run(command):
    """Runs a command in the foreground and returns its exit status; an interruption ends the command first."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def raise_on_signals():
    """Termination and hang-up unwind like Ctrl-C, so that context managers clean up."""
    def stop(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
