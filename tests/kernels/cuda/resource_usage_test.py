"""Registers and local memory of compiled kernels against tests/kernels/cuda/resource_usage.txt.

usage: resource_usage_test.py LIBRARY...

A kernel may use as many registers as the file says (the processor allots them in eights) and no local
memory, where spilled registers go, unless the file says how many bytes. Of kernels of one name, for
several architectures or argument types, the largest numbers count. A kernel that the file does not
name fails the test, and so does a line that no kernel matches.
"""
import glob
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def find_cuobjdump():
    candidates = [shutil.which("cuobjdump"), "/usr/local/cuda/bin/cuobjdump"]
    candidates += glob.glob(str(ROOT / ".deps/cuda_extras/lib/python3.*/site-packages/nvidia/cu13/bin/cuobjdump"))
    for candidate in candidates:
        if candidate and pathlib.Path(candidate).exists():
            return candidate
    sys.exit("expected cuobjdump on PATH, in the CUDA toolkit or in .deps/cuda_extras, found none: run scripts/setup --with-cuda")


def short_name(demangled):
    demangled = demangled.replace("(anonymous namespace)::", "")
    name = demangled.split(">(")[0] + ">" if ">(" in demangled else demangled.split("(")[0]
    name = name.removeprefix("void ").replace("sprocket::kernels::cuda::", "")
    name = name.replace("(Element)0", "bf16").replace("(Element)1", "fp16").replace("sm80::", "").replace("sm90::", "")
    return name.replace("> >", ">>").replace(" ", "")


def add_usage(library, found):
    dump = subprocess.run([find_cuobjdump(), "--dump-resource-usage", library], check=True,
                          capture_output=True, text=True).stdout
    names = re.findall(r"Function (\S+):", dump)
    demangled = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True,
                               text=True).stdout.splitlines()
    numbers = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", dump)
    assert len(names) == len(numbers), f"{library}: {len(names)} kernels, {len(numbers)} lines"
    for name, row in zip(map(short_name, demangled), numbers):
        found[name] = tuple(map(max, found.get(name, (0, 0, 0)), map(int, row)))


def limits():
    result = {}
    for line in (HERE / "resource_usage.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            registers, *stack, name = line.split()
            result[name] = int(registers), int(stack[0]) if stack else 0
    return result


def main(libraries):
    found = {}
    for library in libraries:
        add_usage(library, found)
    expected = limits()
    failures = [f"{name}: not in resource_usage.txt (it uses {found[name][0]} registers)"
                for name in sorted(found.keys() - expected.keys())]
    failures += [f"{name}: in resource_usage.txt, but no kernel is called so"
                 for name in sorted(expected.keys() - found.keys())]
    for name in sorted(found.keys() & expected.keys()):
        registers, stack, local = found[name]
        if registers > expected[name][0]:
            failures.append(f"{name}: {registers} registers, at most {expected[name][0]} are allowed")
        if stack > expected[name][1] or local:
            failures.append(f"{name}: {stack} bytes of stack and {local} of local memory, {expected[name][1]} are allowed")
    print(f"{len(found)} kernels")
    sys.exit("\n".join(failures) or None)


if __name__ == "__main__":
    main(sys.argv[1:])
