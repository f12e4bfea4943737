"""`list` and `run`: the agenda on the machine that has the device."""
import json
import os
import time

from gpu import machine, parts
from gpu.problem import Problem

MANIFEST = "manifest.json"
NOT_STARTED, NO_LIBRARY = "not started", "no library"


def manifest_of(folder):
    path = os.path.join(folder, MANIFEST)
    if not os.path.exists(path):
        raise Problem(f"{folder} is no pack: it has no {MANIFEST}. Make one with scripts/gpu_agenda pack, and call "
                      "the script that lies in it, or name it with --pack")
    with open(path) as file:
        manifest = json.load(file)
    missing = [program["name"] for program in manifest["programs"]
               if not os.access(os.path.join(folder, "bin", program["name"]), os.X_OK)]
    missing += [program["driver"] for program in manifest["programs"]
                if not os.path.exists(os.path.join(folder, program.get("driver", "")))]
    missing += [name for name in manifest["libraries"] if not os.path.exists(os.path.join(folder, "lib", name))]
    missing += [name for name in manifest["fallback"] if not os.path.exists(os.path.join(folder, "fallback", name, name))]
    if missing:
        raise Problem(f"the pack {folder} is damaged: {', '.join(missing)} of its manifest missing or not executable")
    return manifest


def libraries_for(folder, manifest, arguments):
    """(names that are nowhere, folders to search beside the pack's own, in order)"""
    names = sorted({name for program in manifest["programs"] for name in program["of_machine"]})
    found = machine.find_libraries(names, arguments.libraries)
    folders = [os.path.abspath(folder) for folder in arguments.libraries]
    folders += [place for place in dict.fromkeys(found.values()) if place not in folders]
    common = machine.find_libraries(manifest["fallback"])
    folders += [os.path.join(folder, "fallback", name) for name in manifest["fallback"] if name not in common]
    return [name for name in names if name not in found], folders


def show(arguments):
    folder = os.path.abspath(arguments.pack)
    manifest = manifest_of(folder)
    missing, folders = libraries_for(folder, manifest, arguments)
    print(f"pack of commit {manifest['commit']}")
    print("the machine's libraries: " + (", ".join(folders) or "none needed"))
    if missing:
        print("not found on this machine: " + ", ".join(missing))
    for item in parts.items_of(manifest["programs"]):
        needs = "needs a device" if item.needs_device else "no device"
        print(f"  {item.part + '/' + item.program:58} {needs:15} at most {item.limit} s")
    return 0


def chosen(items, names):
    known = {item.part for item in items} | {f"{item.part}/{item.program}" for item in items}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Problem(f"no part {', '.join(unknown)} in this pack; it has {', '.join(dict.fromkeys(i.part for i in items))}, "
                      "and each as PART/PROGRAM")
    return [item for item in items if not names or item.part in names or f"{item.part}/{item.program}" in names]


class Results:
    """JSON lines, written as they come, and a summary of one line each."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.path, self.log = os.path.join(folder, "results.jsonl"), os.path.join(folder, "log.txt")
        self.summary = os.path.join(folder, "summary.txt")
        for path in (self.path, self.log, self.summary):
            open(path, "w").close()
        self.statuses = []

    def add(self, record, text):
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        self.say(text)
        if "status" in record:
            self.statuses.append(record["status"])

    def say(self, text):
        with open(self.summary, "a") as file:
            file.write(text + "\n")
        print(text, flush=True)

    def exit_code(self):
        if any(status in (parts.FAILED, NO_LIBRARY) for status in self.statuses):
            return 1
        if parts.NO_DEVICE in self.statuses:
            return parts.NO_DEVICE_CODE
        return 0 if all(status == parts.PASSED for status in self.statuses) else 3


def details(result):
    """What the summary says beside the status."""
    words = []
    if "tests" in result:
        words.append(f"{result['tests']} tests")
    for name, text in (("skipped", "skipped"), ("errors", "errors"), ("left_out", "longer tests left out"),
                       ("kernels", "kernels"), ("most_registers", "registers at most")):
        if result.get(name):
            words.append(f"{result[name]} {text}")
    if result.get("with_stack"):
        words.append(f"{len(result['with_stack'])} kernels with a stack")
    if result.get("failed_tests"):
        words.append("failed: " + ", ".join(result["failed_tests"][:10]))
    if result.get("last_lines"):
        words.append("says: " + result["last_lines"][-1].strip()[:200])
    return "; ".join(words)


def outcome_of(item, context, devices, missing, seconds_left):
    lacking = [name for name in item.of_machine if name in missing]
    if item.needs_device and not devices:
        return {"status": parts.NO_DEVICE}
    if lacking and item.part != "resources":
        return {"status": NO_LIBRARY, "last_lines": [f"{', '.join(lacking)} is not on this machine"]}
    if seconds_left <= 0:
        return {"status": NOT_STARTED}
    try:
        return item.run(context, min(item.limit, seconds_left))
    except Exception as error:  # whatever it is, the other programs still have something to say
        return {"status": parts.FAILED, "last_lines": [f"{type(error).__name__}: {error}"]}


def run(arguments):
    begin = time.monotonic()
    folder = os.path.abspath(arguments.pack)
    manifest = manifest_of(folder)
    items = chosen(parts.items_of(manifest["programs"]), arguments.parts)
    missing, folders = libraries_for(folder, manifest, arguments)
    environment = parts.environment_of(folder, folders, os.environ)
    results = Results(os.path.abspath(arguments.output))
    found = machine.probe(environment)
    about = {"part": "machine", "commit": manifest["commit"], "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
             "torch": machine.torch_version(), "libraries": folders, "smoke": arguments.smoke, **found, **machine.gpu_state()}
    device = f"{found['devices']} x {found.get('device')}" if found["devices"] else f"no device ({found['says']})"
    results.add(about, f"Sprocket {manifest['commit']}, {about['time']}: {device}")
    if arguments.smoke:
        results.say("Benchmarks have tiny shapes (--smoke): their figures mean nothing.")
    context = parts.Context(folder, environment, results.log, arguments.smoke)
    for item in items:
        left = 60 * arguments.minutes - (time.monotonic() - begin)
        result = outcome_of(item, context, found["devices"], missing, left)
        text = f"{result['status']:12} {result.get('seconds', 0):7.1f} s  {item.part}/{item.program}  {details(result)}"
        results.add({"part": item.part, "program": item.program, **result}, text.rstrip())
        for line in result.get("lines", ()):
            if "text" in line:
                results.say("  " + line["text"])
    code = results.exit_code()
    counts = ", ".join(f"{results.statuses.count(status)} {status}" for status in dict.fromkeys(results.statuses))
    results.say(f"{counts or 'nothing to run'}; exit code {code}")
    return code
