"""Calls scripts/gpu_agenda for the tests."""
import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "scripts", "gpu_agenda")
BARE = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1"}


def call(*arguments, script=SCRIPT, before=(), environment=BARE):
    """The finished process, its output as text."""
    return subprocess.run([*before, script, *arguments], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)


def results_in(folder):
    """{"part/program": record} of a run; the machine's record under "machine"."""
    with open(os.path.join(folder, "results.jsonl")) as file:
        records = [json.loads(line) for line in file]
    return {"/".join(filter(None, (record["part"], record.get("program")))): record for record in records}
