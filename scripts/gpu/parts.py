"""The parts of the agenda. A part looks at the pack and says which items it has; an item runs one program."""
import json
import os
import re
import tempfile
from collections import namedtuple

from gpu import machine, process, programs

# `run(context, limit in seconds)` returns the item's result: a dictionary with `status` and whatever else it found.
Item = namedtuple("Item", "part program needs_device of_machine limit run")

PASSED, FAILED, OUT_OF_TIME, NO_DEVICE, NO_TOOL = "passed", "failed", "out of time", "no device", "no tool"
NO_DEVICE_CODE = 77
SANITIZER_CODE = 86
SHORT_TEST_SECONDS = 2  # on the bare device; compute-sanitizer makes it tens of times that


class Context:
    """What the items share. `seconds_of_test` is filled by the device tests of this very run; `smoke`: benchmarks at tiny
    shapes, whose figures mean nothing."""

    def __init__(self, folder, environment, log, smoke=False):
        self.folder, self.environment, self.log, self.smoke = folder, environment, log, smoke
        self.seconds_of_test = {}

    def program(self, name):
        return os.path.join(self.folder, "bin", name)

    def run(self, command, limit, environment=None):
        return process.run(command, environment or self.environment, self.log, limit)


def mpirun(context, ranks):
    """Ranks on this machine alone, through shared memory; more than there are cores are fine."""
    return [os.path.join(context.folder, "openmpi", "bin", "mpirun"), "--allow-run-as-root", "--oversubscribe",
            "--bind-to", "none", "--mca", "plm", "isolated", "--mca", "pml", "ob1", "--mca", "btl", "self,vader",
            "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "mpi_yield_when_idle", "1",
            "-np", str(ranks)]


def verdict(outcome):
    result = {"status": PASSED if outcome.code == 0 else FAILED, "seconds": outcome.seconds}
    if outcome.timed_out:
        result["status"] = OUT_OF_TIME
    elif outcome.code == NO_DEVICE_CODE:
        result["status"] = NO_DEVICE
    elif outcome.code != 0:
        result["code"] = outcome.code
        lines = [line for line in outcome.output.splitlines() if line.strip(" -=")]
        result["last_lines"] = lines[-5:]
    return result


# --- GoogleTest ------------------------------------------------------------------------------------

def tests_in(output):
    """{test: (seconds, passed)} from what GoogleTest printed; complete also when the program was ended."""
    found = re.findall(r"\[\s+(OK|FAILED)\s+\] ([^\s,]+)(?:, where .*)? \((\d+) ms\)", output)
    return {name: (int(milliseconds) / 1000, word == "OK") for word, name, milliseconds in found}


def test_result(outcome):
    tests = tests_in(outcome.output)
    result = verdict(outcome)
    result["tests"] = len(tests)
    result["failed_tests"] = sorted(name for name, (_, passed) in tests.items() if not passed)
    skipped = len(set(re.findall(r"\[\s+SKIPPED \] (\S+) \(", outcome.output)))
    if skipped:
        result["skipped"] = skipped
    if result["status"] == PASSED and not tests:
        result.update(status=FAILED, last_lines=["no test ran"])
    return result


def device_tests(name):
    def run(context, limit):
        outcome = context.run([context.program(name)], limit)
        context.seconds_of_test[name] = {test: seconds for test, (seconds, _) in tests_in(outcome.output).items()}
        return test_result(outcome)
    return run


def ranks_tests(name, ranks):
    def run(context, limit):
        return test_result(context.run(mpirun(context, ranks) + [context.program(name)], limit))
    return run


# --- compute-sanitizer -----------------------------------------------------------------------------

def sanitized(name, tool):
    def run(context, limit):
        sanitizer = machine.find_tool("compute-sanitizer")
        if not sanitizer:
            return {"status": NO_TOOL, "last_lines": ["compute-sanitizer is not on this machine"]}
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(SANITIZER_CODE), context.program(name)]
        seconds = context.seconds_of_test.get(name)
        if seconds:
            short = sorted(test for test, taken in seconds.items() if taken < SHORT_TEST_SECONDS)
            if not short:
                return {"status": PASSED, "seconds": 0, "tests": 0, "failed_tests": [], "left_out": len(seconds)}
            command.append("--gtest_filter=" + ":".join(short))
        outcome = context.run(command, limit)
        result = test_result(outcome)
        summaries = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", outcome.output)
        result["errors"] = sum(int(errors or hazards) for errors, hazards in summaries)
        if seconds:
            result["left_out"] = len(seconds) - len(short)
        if result["errors"]:
            result["status"] = FAILED
        elif not summaries and result["status"] == PASSED:
            result.update(status=FAILED, last_lines=["compute-sanitizer gave no summary"])
        return result
    return run


# --- Resources, benchmarks -------------------------------------------------------------------------

def kernels_in(report):
    """[{name, registers, stack, shared, local}] from `cuobjdump --dump-resource-usage`."""
    found = []
    for name, text in re.findall(r"Function (\S+):\s*\n\s*(.*)", report):
        values = dict(re.findall(r"(\w+):(\d+)", text))
        found.append({"name": name, "registers": int(values.get("REG", 0)), "stack": int(values.get("STACK", 0)),
                      "shared": int(values.get("SHARED", 0)), "local": int(values.get("LOCAL", 0))})
    return found


def resources(name):
    def run(context, limit):
        tool = machine.find_tool("cuobjdump")
        if not tool:
            return {"status": NO_TOOL, "last_lines": ["cuobjdump is not on this machine"]}
        outcome = context.run([tool, "--dump-resource-usage", context.program(name)], limit)
        result = verdict(outcome)
        kernels = kernels_in(outcome.output)
        result["kernels"] = len(kernels)
        result["most_registers"] = max((kernel["registers"] for kernel in kernels), default=0)
        result["with_stack"] = [kernel for kernel in kernels if kernel["stack"] or kernel["local"]][:20]
        return result
    return run


def lines_result(outcome):
    result = verdict(outcome)
    result["lines"] = []
    for line in outcome.output.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            result["lines"].append(value)
    if result["status"] == PASSED and not result["lines"]:
        result.update(status=FAILED, last_lines=["no line of JSON"])
    return result


def benchmark(name):
    def run(context, limit):
        return lines_result(context.run([context.program(name), *(["--smoke"] if context.smoke else [])], limit))
    return run


def compared(name, driver):
    def run(context, limit):
        if not context.smoke and not machine.torch_version():
            return {"status": NO_TOOL, "last_lines": ["PyTorch is not on this machine"]}
        command = [machine.python(), os.path.join(context.folder, driver), "--program", context.program(name), "--libraries",
                   context.environment["LD_LIBRARY_PATH"], *(["--smoke"] if context.smoke else [])]
        environment = {**environment_of_machine(os.environ), "PYTHONPATH": os.path.join(context.folder, "python")}
        return lines_result(context.run(command, limit, environment))
    return run


# --- The list --------------------------------------------------------------------------------------

def items_of(packed):
    """The agenda, in the order of how much each part tells; `packed` are the manifest's programs."""
    def of(kind):
        return [(program["name"], program["of_machine"]) for program in packed if program["kind"] == kind]

    items = [Item("mpi", name, False, needs, 120, ranks_tests(name, 2)) for name, needs in of(programs.HOST_RANKS)]
    tests = of(programs.DEVICE_TEST)
    items += [Item("device_tests", name, True, needs, 300, device_tests(name)) for name, needs in tests]
    for ranks in (2, 4):
        items += [Item(f"nccl_{ranks}", name, True, needs, 180, ranks_tests(name, ranks))
                  for name, needs in of(programs.RANKS)]
    for tool in ("memcheck", "racecheck", "initcheck"):
        items += [Item(tool, name, True, needs, 180, sanitized(name, tool)) for name, needs in tests]
    items += [Item("bench", name, True, needs, 300, benchmark(name)) for name, needs in of(programs.BENCH)]
    items += [Item("compare", program["name"], True, program["of_machine"], 480, compared(program["name"], program["driver"]))
              for program in packed if "driver" in program]
    items += [Item("resources", name, False, needs, 60, resources(name)) for name, needs in tests]
    return items


def environment_of_machine(outer):
    """Emptied but for what the machine's own programs need."""
    kept = {name: outer[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
            if name in outer}
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    kept.setdefault("HOME", tempfile.gettempdir())
    return kept


def environment_of(folder, library_folders, outer):
    """For the pack's programs: the packed libraries first."""
    kept = environment_of_machine(outer)
    kept["LD_LIBRARY_PATH"] = ":".join([os.path.join(folder, "lib"), *library_folders])
    kept["OPAL_PREFIX"] = os.path.join(folder, "openmpi")
    kept["OMP_NUM_THREADS"] = "1"
    kept["NCCL_DEBUG"] = "WARN"  # into the log: NCCL's own words when something fails
    return kept
