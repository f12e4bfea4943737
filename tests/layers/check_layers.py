#!/usr/bin/env python3
"""Checks the rules of docs/architecture.md that can be read off the sources.

    check_layers.py ROOT

prints one line per violation, `file:line: message`, and exits 1 if there is any. Vendor headers are
also followed through the project's own headers: a layer that may not see protobuf may not include a
header that includes it.
"""
import os
import re
import sys
from collections import namedtuple

Problem = namedtuple("Problem", "path line message")

# What each layer may include. The longest matching folder is a file's layer.
LAYERS = {
    "base": {"base"},
    "configs": {"base", "configs"},
    "kernels": {"base", "kernels"},
    "parallel/comm": {"base", "parallel/comm"},
    "parallel": {"base", "kernels", "parallel/comm", "parallel"},
    "models": {"base", "configs", "kernels", "parallel/comm", "parallel", "models"},
    "runtime": {"base", "configs", "kernels", "parallel/comm", "parallel", "models", "runtime"},
    "launcher": {"base", "configs", "kernels", "parallel/comm", "parallel", "models", "runtime", "launcher"},
}
OUTSIDE = ("tests", "bench")  # see every layer, and are seen by none

Vendor = namedtuple("Vendor", "name pattern layers followed")
VENDORS = [
    Vendor("MPI", r"^mpi\.h$", ("parallel/comm", "tests", "bench"), True),
    Vendor("NCCL", r"^nccl\.h$", ("parallel/comm", "tests", "bench"), True),
    Vendor("protobuf", r"^google/protobuf/|\.pb\.h$", ("configs", "runtime", "launcher", "tests", "bench"), True),
    Vendor("LibTorch", r"^(torch|ATen|c10)/",
           ("kernels/torch", "parallel", "models", "runtime", "launcher", "tests", "bench"), True),
    Vendor("Boost.Asio", r"^boost/asio", ("runtime/control", "runtime/reward", "launcher", "tests"), True),
    Vendor("torch/torch.h (include ATen or autograd headers instead)", r"^torch/torch\.h$", (), False),
]

# Text that may stand only in some places: name, pattern, folders or files where it may.
PATTERNS = [
    ("creation of CUDA streams and events", r"\bcuda(Stream|Event)Create\w*\s*\(", ("base", "tests", "bench")),
    ("exit()", r"(?<![\w.>])(std::)?(quick_|_)?exit\(", ("launcher/main.cc", "tests", "bench")),
    ("assert() (use SPROCKET_CHECK or an error)", r"\bassert\(", ()),
]

SOURCE = re.compile(r"\.(h|cc|cu|cuh|proto)$")
NAME = re.compile(r"^[a-z0-9_]+\.(h|cc|cu|cuh|proto)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
WORDS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
WORDED = re.compile(r"(\.(h|cc|cu|cuh|proto|py|cmake|md|in|txtpb|yaml|sh|html|js|css)|CMakeLists\.txt|CMakePresets\.json)$")
MAX_LINES = 800
SKIPPED = re.compile(r"^(build.*|outputs|__pycache__|\..*|libtorch)$")


def files_under(root):
    """Relative paths of the project's text files, sorted."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not SKIPPED.match(f))
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), root)
            if WORDED.search(path) or path.startswith("scripts" + os.sep):
                found.append(path.replace(os.sep, "/"))
    if os.path.exists(os.path.join(root, ".ci/run")):
        found.append(".ci/run")
    return sorted(found)


def layer_of(path):
    """The longest folder of LAYERS that holds the path, a folder outside the layers, or None."""
    fitting = [f for f in (*LAYERS, *OUTSIDE) if path.startswith(f + "/")]
    return max(fitting, key=len, default=None)


def inside(path, places):
    """Whether the path is one of the places or lies in the innermost of them: a rule for `parallel`
    says nothing about the layer `parallel/comm`."""
    layer = layer_of(path)
    for place in places:
        if path == place:
            return True
        if path.startswith(place + "/") and not (place in LAYERS and layer != place):
            return True
    return False


def includes_of(text):
    """(line number, form, header) of every #include."""
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def check_include(path, number, form, header, known):
    layer = layer_of(path)
    if form == "<" or layer is None:
        return
    target = layer_of(header)
    generated = header.endswith(".pb.h") or header + ".in" in known
    if header not in known and not generated:
        yield Problem(path, number, f'"{header}" is no file of the project: includes are relative to its root')
    elif layer in LAYERS and target not in LAYERS[layer]:
        allowed = ", ".join(sorted(LAYERS[layer]))
        yield Problem(path, number, f'{layer} includes "{header}" of {target}; it may include: {allowed}')


def vendor_reach(texts, vendor):
    """For every file that reaches a header of the vendor: (line, chain of headers) of the first way."""
    direct, edges = {}, {}
    for path, text in texts.items():
        if not SOURCE.search(path):
            continue
        for number, form, header in includes_of(text):
            if re.search(vendor.pattern, header):
                direct.setdefault(path, (number, [header]))
            elif form == '"':
                edges.setdefault(header, []).append((path, number))
    reach, queue = dict(direct), list(direct)
    while vendor.followed and queue:
        header = queue.pop(0)
        for path, number in edges.get(header, []):
            if path not in reach:
                reach[path] = (number, [header] + reach[header][1])
                queue.append(path)
    return reach


def check(root):
    """Every violation under the root, in path order."""
    texts = {}
    for path in files_under(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            texts[path] = file.read()
    problems = []
    for path, text in texts.items():
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            match = WORDS.search(line)
            if match:
                problems.append(Problem(path, number, f"unfinished work marked {match.group(1)}: do it or write an issue"))
        if not SOURCE.search(path):
            continue
        if len(lines) > MAX_LINES:
            problems.append(Problem(path, len(lines), f"{len(lines)} lines, at most {MAX_LINES} allowed: split the file"))
        if not NAME.match(os.path.basename(path)):
            problems.append(Problem(path, 1, "file name is not snake_case"))
        if path.endswith((".h", ".cuh")) and "#pragma once" not in text:
            problems.append(Problem(path, 1, "header without #pragma once"))
        for number, form, header in includes_of(text):
            problems.extend(check_include(path, number, form, header, texts))
        for name, pattern, places in PATTERNS:
            for number, line in enumerate(lines, 1):
                code = line.split("//")[0]
                if re.search(pattern, code) and not inside(path, places):
                    where = ", ".join(places) or "nowhere"
                    problems.append(Problem(path, number, f"{name} is allowed in: {where}"))
    for vendor in VENDORS:
        for path, (number, chain) in vendor_reach(texts, vendor).items():
            if not inside(path, vendor.layers):
                where = ", ".join(vendor.layers) or "nowhere"
                problems.append(Problem(path, number, f"reaches {vendor.name} by {' -> '.join(chain)}; allowed in: {where}"))
    return sorted(problems)


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: check_layers.py ROOT")
    problems = check(sys.argv[1])
    for problem in problems:
        print(f"{problem.path}:{problem.line}: {problem.message}")
    if not any(SOURCE.search(path) for path in files_under(sys.argv[1])):
        sys.exit(f"{sys.argv[1]}: no sources found")
    print(f"{len(problems)} violations")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
