"""Collects stripped programs, the libraries that a bare machine lacks, and a relocatable Open MPI in one folder."""
import glob
import json
import os
import re
import shutil
import subprocess

from gpu import programs
from gpu.problem import Problem

# Of the machine: its C and C++ runtimes, which fit its compiler, and the driver's, CUDA's and PyTorch's libraries.
SYSTEM = re.compile(r"(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s))\.so")
CUDA = re.compile(r"lib(cuda|cudart|cublas|cublasLt|cudnn\w*|cufft|cufile|cupti|curand|cusolver|cusparse\w*|nccl|nvrtc"
                  r"|nvJitLink|nvshmem\w*|nvToolsExt|torch\w*|c10\w*|shm)\.so")
# Most machines have them, in a version that their own tools need: taken along for those that do not.
COMMON = re.compile(r"lib(z|udev|cap|systemd|lzma|zstd|expat|gcrypt|gpg-error)\.so")
# Networks between machines: their libraries are large, and what is packed runs on one machine.
FABRICS = re.compile(r"lib(fabric|ibverbs|rdmacm|psm2?|psm_infinipath|ucp|ucs|uct|ucm)\.so")
MIB = 1 << 20


def command_output(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        raise Problem(f"{' '.join(command)} failed: {detail}") from error


def libraries_of(path):
    """{name: path} of all libraries that a program or library loads at its start; Problem when one is missing."""
    found = {}
    for line in command_output("ldd", path).splitlines():
        match = re.match(r"\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$", line)
        if match and match[2] == "not found" and not CUDA.match(match[1]):
            raise Problem(f"{path} needs {match[1]}, which is not installed here")
        if match:
            found[match[1]] = match[2]
    return found


class Pack:
    def __init__(self, folder):
        self.folder = folder
        self.libraries, self.fallback = {}, {}
        self.programs = []

    def path(self, *names):
        path = os.path.join(self.folder, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def add_binary(self, source, *names, mode=0o755):
        target = self.path(*names)
        command_output("strip", "--strip-unneeded", "-o", target, source)
        os.chmod(target, mode)
        return target

    def add_libraries(self, needed):
        """Takes what the machine will not have; returns the names of what it must have beside a compiler's."""
        of_machine = []
        for name, path in sorted(needed.items()):
            if SYSTEM.match(name):
                continue
            from_wheel = re.search(r"/(torch|nvidia)/", os.path.realpath(path)) and not name.startswith("libgomp.")
            if CUDA.match(name) or from_wheel:
                of_machine.append(name)
            elif COMMON.match(name) and name not in self.fallback:
                self.fallback[name] = self.add_binary(os.path.realpath(path), "fallback", name, name)
            elif not COMMON.match(name) and name not in self.libraries:
                self.libraries[name] = self.add_binary(os.path.realpath(path), "lib", name)
        return of_machine

    def add_program(self, source):
        """False for a program that is named for a device and cannot use one."""
        name = os.path.basename(source)
        kind, libraries = programs.kind_of(name), libraries_of(source)
        if kind != programs.HOST_RANKS and "libcudart.so.13" not in libraries:
            return False
        of_machine = self.add_libraries(libraries)
        self.add_binary(source, "bin", name)
        self.programs.append({"name": name, "kind": kind, "of_machine": of_machine})
        return True

    def add_drivers(self, root):
        """The comparisons with PyTorch, with the modules of bench/ that they import."""
        for program in self.programs:
            driver = programs.driver_of(program["name"])
            if driver:
                program["driver"] = driver
        if any("driver" in program for program in self.programs):
            for source in glob.glob(os.path.join(root, "bench", "**", "*.py"), recursive=True):
                shutil.copy2(source, self.path(os.path.relpath(source, root)))

    def add_rival(self, root):
        """diffusers, which is Python alone and which PyTorch's machines lack; what it imports beside PyTorch they have."""
        found = glob.glob(os.path.join(root, ".deps/python/lib/python3.*/site-packages/diffusers"))
        if found:
            shutil.copytree(found[0], self.path("python", "diffusers"), ignore=shutil.ignore_patterns("__pycache__"))
        return bool(found)

    def add_open_mpi(self):
        """mpirun, plugins and texts where Open MPI looks for them below OPAL_PREFIX."""
        mpirun = shutil.which("mpirun")
        if not mpirun:
            raise Problem("expected Open MPI's mpirun in PATH, found none")
        paths = {}
        for line in command_output("ompi_info", "--path", "all", "--parsable").splitlines():
            _, name, path = line.split(":", 2)
            paths[name] = path
        prefix = paths["prefix"]
        self.add_libraries(libraries_of(mpirun))
        self.add_binary(os.path.realpath(mpirun), "openmpi", "bin", "mpirun")
        for plugin in sorted(os.listdir(paths["pkglibdir"])):
            source = os.path.join(paths["pkglibdir"], plugin)
            if not plugin.startswith("mca_") or not plugin.endswith(".so"):
                continue
            needed = libraries_of(source)
            if any(FABRICS.match(name) for name in needed):
                continue
            self.add_libraries(needed)
            self.add_binary(source, "openmpi", os.path.relpath(paths["pkglibdir"], prefix), plugin, mode=0o644)
        texts = paths["pkgdatadir"]
        for text in sorted(os.listdir(texts)):
            if text.endswith(".txt"):
                shutil.copyfile(os.path.join(texts, text), self.path("openmpi", os.path.relpath(texts, prefix), text))

    def sizes(self):
        """[(bytes, path below the folder)], the largest first."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                found.append((os.path.getsize(path), os.path.relpath(path, self.folder)))
        return sorted(found, reverse=True)


def build_targets(build):
    """Builds every target of a kind that is taken along; `device_tests` stands for the tests of one process."""
    if not os.path.exists(os.path.join(build, "build.ninja")):
        raise Problem(f"{build} is no configured build folder; scripts/build_cuda makes build-cuda")
    known = re.findall(r"^(\w+): phony$", command_output("ninja", "-C", build, "-t", "targets", "all"), re.M)
    wanted = [name for name in known if name == "device_tests"
              or programs.kind_of(name) not in (None, programs.DEVICE_TEST)]
    built = subprocess.run(["cmake", "--build", build, "-j", str(os.cpu_count()), "--target", *wanted])
    if built.returncode != 0:
        raise Problem(f"{', '.join(wanted)} could not be built in {build}")


def commit_of(root):
    try:
        commit = command_output("git", "-C", root, "rev-parse", "HEAD").strip()
        changed = command_output("git", "-C", root, "status", "--porcelain", "--untracked-files=no").strip()
        return commit + (" and changes" if changed else "")
    except Problem:
        return "unknown"


def clear(folder):
    if os.path.exists(os.path.join(folder, "manifest.json")):
        shutil.rmtree(folder)
    elif os.path.isdir(folder) and os.listdir(folder):
        raise Problem(f"{folder} holds something else than a pack; name another --output")


def archive_of(folder):
    """The folder as one compressed file beside it: programs shrink to a quarter."""
    return shutil.make_archive(folder, "gztar", os.path.dirname(folder), os.path.basename(folder))


def pack(root, arguments):
    build, folder = os.path.abspath(arguments.build), os.path.abspath(arguments.output)
    if not arguments.no_build:
        build_targets(build)
    bin_folder = os.path.join(build, "bin")
    found = sorted(name for name in os.listdir(bin_folder) if programs.kind_of(name)) if os.path.isdir(bin_folder) else []
    if not found:
        raise Problem(f"{bin_folder} has none of the programs that are taken along ({programs.__doc__.strip()})")
    clear(folder)
    result = Pack(folder)
    left_out = [name for name in found if not result.add_program(os.path.join(bin_folder, name))]
    result.add_drivers(root)
    rival = result.add_rival(root)
    result.add_open_mpi()
    scripts = os.path.join(root, "scripts")
    shutil.copy2(os.path.join(scripts, "gpu_agenda"), result.path("gpu_agenda"))
    shutil.copytree(os.path.join(scripts, "gpu"), os.path.join(folder, "gpu"),
                    ignore=shutil.ignore_patterns("__pycache__"))
    manifest = {"commit": commit_of(root), "programs": result.programs, "libraries": sorted(result.libraries),
                "fallback": sorted(result.fallback)}
    with open(result.path("manifest.json"), "w") as file:
        json.dump(manifest, file, indent=1)
    sizes = result.sizes()
    total = sum(size for size, _ in sizes)
    archive = archive_of(folder)
    packed = os.path.getsize(archive) / MIB
    print(f"{archive}: {packed:.1f} MiB; unpacked {total / MIB:.1f} MiB, {len(result.programs)} programs, "
          f"{len(result.libraries) + len(result.fallback)} libraries; the largest files:")
    for size, name in sizes[:8]:
        print(f"  {size / MIB:6.1f} MiB  {name}")
    print("programs: " + ", ".join(program["name"] for program in result.programs))
    print("the rival of the training step: " + ("diffusers" if rival else "none, scripts/setup --with-peers installs it"))
    if left_out:
        print("left out, because they do not load the CUDA runtime: " + ", ".join(left_out))
    of_machine = sorted({name for program in result.programs for name in program["of_machine"]})
    print("of the machine: " + (", ".join(of_machine) or "nothing but a C++ runtime"))
    if packed > arguments.limit_mib:
        raise Problem(f"{archive} has {packed:.1f} MiB, and at most {arguments.limit_mib:g} are allowed (--limit-mib)")
    return 0
