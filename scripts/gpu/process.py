"""Runs a program with a time limit, its output in the log."""
import os
import signal
import subprocess
import time
from collections import namedtuple

Outcome = namedtuple("Outcome", "code seconds output timed_out")


def end(process):
    """Ends a program and all that it has started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run(command, environment, log, limit):
    """Output goes to the file `log` as it comes, so that it survives this script."""
    with open(log, "ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        start, begin = file.tell(), time.monotonic()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        timed_out = False
        try:
            process.wait(timeout=max(limit, 1))
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            end(process)
    with open(log, "rb") as file:
        file.seek(start)
        output = file.read().decode(errors="replace")
    return Outcome(process.returncode, round(time.monotonic() - begin, 3), output, timed_out)
