"""Hosts within this machine: each has a network namespace, a host name, and a link to a bridge that can be pulled.

They share the file system, as hosts of a cluster share the folder of a job.
"""
import os
import signal
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../bench/network"))
import namespaces  # noqa: E402
from namespaces import SKIPPED, Unavailable  # noqa: E402,F401

# Called as ssh is: with a host and a command for its shell, which gets none of the caller's variables. It answers as ssh
# does, too: 255 for a host that cannot be reached over the network, or that goes away.
AGENT = """#!{python}
import os, socket, subprocess, sys
host, command = sys.argv[1], " ".join(sys.argv[2:])
places = {places!r}
if host not in places:
    sys.exit(f"agent: there is no host {{host}}") or 255
namespace, address = places[host]
try:
    if os.path.exists(os.path.join({folder!r}, host + ".off")):
        raise TimeoutError("no answer")
    socket.create_connection((address, 22), 2)
except ConnectionRefusedError:
    pass
except OSError as error:
    print(f"agent: {{host}}: {{error}}", file=sys.stderr)
    sys.exit(255)
code = subprocess.run([{inside!r}, namespace, host, "/bin/sh", "-c", command], env={{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"]}}).returncode
sys.exit(code if code >= 0 else 255)
"""
INSIDE = """#!/bin/sh
namespace=$1 host=$2 folder={folder}
shift 2
exec ip netns exec "$namespace" unshare --uts /bin/sh -c '
    hostname "$1"
    if [ -e "$2/$1.mounts" ]; then . "$2/$1.mounts"; fi
    shift 2
    exec "$@"' sh "$host" "$folder" "$@"
"""


class Hosts(namespaces.SlowNetwork):
    """Context manager; at least three hosts."""

    def __init__(self, *hosts):
        super().__init__(len(hosts), None)
        self.hosts = hosts

    def on(self, host):
        """Puts a command onto a host."""
        return [self.inside_script, self.names[self.hosts.index(host)], host]

    def link(self, host, state):
        """Pulls the host's cable, or puts it in again: "down", "up"."""
        namespaces.output_of("ip", "-n", self.hub, "link", "set", f"port{self.hosts.index(host)}", state)

    def swallow(self, host, port):
        """From now on nothing that the host sends to that TCP port arrives anywhere."""
        name = self.names[self.hosts.index(host)]
        for command in ("link add sink type veth peer name drain", "link set sink arp off up", "link set drain up",
                        "route add default dev sink table 77", f"rule add ipproto tcp dport {port} lookup 77 priority 0"):
            namespaces.output_of("ip", "-n", name, *command.split())

    def processes(self, host):
        return [int(pid) for pid in namespaces.output_of("ip", "netns", "pids", self.names[self.hosts.index(host)]).split()]

    def see(self, host, path, another):
        """Who is started on the host from now on finds another file at that path; None: that which is there."""
        with open(os.path.join(self.folder, host + ".mounts"), "w", encoding="utf-8") as file:
            if another:
                file.write(f"mount --bind '{another}' '{path}'\n")

    def switch_off(self, host):
        """All its processes are gone, and it cannot be reached any more."""
        with open(os.path.join(self.folder, host + ".off"), "w", encoding="utf-8"):
            pass
        for pid in self.processes(host):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def switch_on(self, host):
        path = os.path.join(self.folder, host + ".off")
        if os.path.exists(path):
            os.remove(path)

    def _write_agent(self):
        super()._write_agent()
        places = {host: (self.names[i], self.address(i)) for i, host in enumerate(self.hosts)}
        self.inside_script = os.path.join(self.folder, "inside")
        for path, text in ((self.inside_script, INSIDE.format(folder=self.folder)),
                           (self.agent, AGENT.format(python=sys.executable, places=places, folder=self.folder, inside=self.inside_script))):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, stat.S_IRWXU)
