"""bench/network/slow_network: ranks meet over their own links alone, and nothing stays behind."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench/network/slow_network")
SKIPPED = 77


def namespaces_of(pid):
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"sprocket-{pid}-")]


def run(*arguments):
    """(process id, exit status, standard output, standard error)."""
    process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, error = process.communicate(timeout=60)
    return process.pid, process.returncode, out, error


class SlowNetwork(unittest.TestCase):
    def test_every_rank_has_its_own_link(self):
        show = "echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE: $(ip -4 -o address show scope global)"
        pid, status, out, error = run("--ranks", "3", "--rate", "100mbit", "--", "sh", "-c", show)
        self.assertEqual(status, 0, error)
        found = sorted(re.findall(r"rank (\d) of 3: \d+: link0(?:@\S+)? +inet (\S+)/24", out))
        self.assertEqual(found, [("0", "10.77.0.1"), ("1", "10.77.0.2"), ("2", "10.77.0.3")], out)
        self.assertEqual(namespaces_of(pid), [])

    def test_the_rate_holds_at_every_end(self):
        show = "tc -s qdisc show dev link0"
        _, status, out, error = run("--ranks", "2", "--rate", "200mbit", "--burst", "256kb", "--", "sh", "-c", show)
        self.assertEqual(status, 0, error)
        self.assertEqual(len(re.findall(r"tbf .* rate 200Mbit burst 26\d{4}b", out)), 2, out)

    def test_the_status_of_the_command_is_passed_on(self):
        pid, status, _, _ = run("--ranks", "2", "--", "sh", "-c", "exit 9")
        self.assertEqual(status, 9)
        self.assertEqual(namespaces_of(pid), [])

    def test_terminated_it_takes_everything_down(self):
        with tempfile.TemporaryDirectory() as folder:
            fifo = os.path.join(folder, "started")
            os.mkfifo(fifo)
            started = os.open(fifo, os.O_RDWR)
            process = subprocess.Popen([PROGRAM, "--ranks", "2", "--", "sh", "-c", f"echo $$ > {fifo}; exec sleep 300"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ranks = set()
            while len(ranks) < 2:
                ranks |= set(os.read(started, 100).decode().split())
            os.close(started)
            self.assertEqual(len(namespaces_of(process.pid)), 2)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
            self.assertEqual(namespaces_of(process.pid), [])
            self.assertFalse([pid for pid in ranks if os.path.exists(f"/proc/{pid}/exe") and "sleep" in os.readlink(f"/proc/{pid}/exe")])

    def test_bad_arguments_are_named(self):
        _, status, _, error = run("--rate", "fast", "--", "true")
        self.assertEqual(status, 2)
        self.assertIn("--rate: expected a number with one of kbit, mbit, gbit, found fast", error)
        self.assertEqual(run()[1], 2)


if __name__ == "__main__":
    PID, STATUS, _, ERROR = run("--ranks", "2", "--", "true")
    if STATUS == SKIPPED:
        print(ERROR.strip())
        sys.exit(SKIPPED)
    unittest.main()
