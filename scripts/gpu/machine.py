"""What the machine has: its CUDA libraries, its device, its tools."""
import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig

# Run by a process of its own, which ends with its CUDA context. The name is the first member of the properties.
PROBE = """
import ctypes, json, sys
runtime = ctypes.CDLL("libcudart.so.13")
runtime.cudaGetErrorString.restype = ctypes.c_char_p
def integer(call, *rest):
    value = ctypes.c_int(0)
    code = getattr(runtime, call)(ctypes.byref(value), *rest)
    return value.value if code == 0 else None, runtime.cudaGetErrorString(code).decode()
count, text = integer("cudaGetDeviceCount")
found = {"devices": count or 0, "says": text, "cuda_runtime": integer("cudaRuntimeGetVersion")[0],
         "cuda_driver": integer("cudaDriverGetVersion")[0]}
if count:
    properties = ctypes.create_string_buffer(1 << 16)
    if runtime.cudaGetDeviceProperties(properties, 0) == 0:
        found["device"] = properties.value.decode()
    found["capability"] = "%s.%s" % (integer("cudaDeviceGetAttribute", 75, 0)[0],
                                     integer("cudaDeviceGetAttribute", 76, 0)[0])
try:
    found["nccl"] = ctypes.c_int(0)
    ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(found["nccl"]))
    found["nccl"] = found["nccl"].value
except OSError as error:
    found["nccl"] = None
print(json.dumps(found))
"""


def wheel_folders():
    """Library folders of PyTorch and of NVIDIA's wheels in this Python's site-packages."""
    sites = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}
    torch = importlib.util.find_spec("torch")
    for folder in (torch.submodule_search_locations or []) if torch else []:
        sites.add(os.path.dirname(folder))
    for site in sorted(sites):
        yield from sorted(glob.glob(os.path.join(site, "nvidia", "*", "lib")))
        yield os.path.join(site, "torch", "lib")


def toolkit_folders():
    for home in sorted(glob.glob("/usr/local/cuda*"), reverse=True):
        yield os.path.join(home, "lib64")
        yield os.path.join(home, "lib")


def find_libraries(names, first=()):
    """{name: folder} of the libraries that were found, in the order wheels, toolkits, the loader's own folders."""
    folders = [os.path.abspath(folder) for folder in first] + [*wheel_folders(), *toolkit_folders()]
    cache = shutil.which("ldconfig") or "/sbin/ldconfig"
    if os.path.exists(cache):
        listed = subprocess.run([cache, "-p"], capture_output=True, text=True).stdout
        folders += [os.path.dirname(line.rsplit("=> ", 1)[1]) for line in listed.splitlines() if "=> " in line]
    found = {}
    for name in names:
        for folder in folders:
            path = os.path.join(folder, name)
            if os.path.exists(path) and os.path.getsize(path) > 0:
                found[name] = folder
                break
    return found


def find_tool(name):
    """A program of the CUDA toolkit, None when there is none."""
    found = shutil.which(name)
    places = [os.path.join(home, "bin", name) for home in sorted(glob.glob("/usr/local/cuda*"), reverse=True)]
    places += glob.glob("/usr/local/cuda*/compute-sanitizer/" + name)
    return found or next((place for place in places if os.access(place, os.X_OK)), None)


def python():
    return sys.executable or os.path.realpath("/proc/self/exe")  # Python knows no name of its own without a PATH


def probe(environment):
    """What the CUDA runtime says about this machine, as a dictionary with `devices` and `says` at least."""
    done = subprocess.run([python(), "-c", PROBE], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"devices": 0, "says": lines[-1] if lines else f"the CUDA runtime ended the probe ({done.returncode})"}
    return json.loads(done.stdout)


def gpu_state():
    """nvidia-smi's own words, {} without it."""
    fields = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "power.draw", "power.limit",
              "temperature.gpu")
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode != 0:
        return {}
    return {"gpus": [dict(zip(fields, (value.strip() for value in line.split(","))))
                     for line in done.stdout.splitlines()]}


def torch_version():
    torch = importlib.util.find_spec("torch")
    if not torch or not torch.origin:
        return None
    with open(os.path.join(os.path.dirname(torch.origin), "version.py")) as file:
        found = re.search(r"^__version__ = '(.*)'$", file.read(), re.M)
    return found and found[1]
