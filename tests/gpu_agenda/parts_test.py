#!/usr/bin/env python3
"""The agenda on shell scripts in place of test programs, and on a CUDA runtime that only claims to have a device."""
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import agenda

sys.path.insert(0, os.path.join(agenda.ROOT, "scripts"))
from gpu import machine, pack, parts, programs  # noqa: E402

RUNTIME = """
#include <stddef.h>
#include <string.h>
int cudaGetDeviceCount(int* count) { *count = DEVICES; return DEVICES ? 0 : 100; }
int cudaRuntimeGetVersion(int* version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int* version) { *version = 13000; return 0; }
int cudaGetDeviceProperties(void* properties, int device) { strcpy(properties, "Claimed"); return 0; }
int cudaDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
const char* cudaGetErrorString(int code) { return code ? "no CUDA-capable device is detected" : "no error"; }
"""
GOOD = """echo '[       OK ] Short.Test (3 ms)'
echo '[       OK ] Rows/Long.Test/1 (5000 ms)'"""
BAD = """echo '[       OK ] Short.Test (3 ms)'
echo '[  FAILED  ] Rows/Wrong.Test/1, where GetParam() = 7 (2 ms)'
echo 'the last word'
echo '----------'
exit 1"""
CRASH = "echo '[       OK ] Short.Test (3 ms)'; kill -SEGV $$"
# A child of the program must end with it.
HANG = "echo '[       OK ] Short.Test (3 ms)'; sleep 1000 & echo $! >$0.child; wait"
SANITIZER = """[[ "$*" == *--error-exitcode* ]] || exit 3
echo "arguments: $*"
echo '[       OK ] Short.Test (3 ms)'
case "$*" in
  *racecheck*) echo '========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)' ;;
  *memcheck*) echo '========= ERROR SUMMARY: 0 errors' ;;
esac"""
REPORT = """cat <<END
Resource usage:
 Common:
  GLOBAL:0
 Function _Z7forwardPf:
  REG:168 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:980 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z8backwardPf:
  REG:255 STACK:48 SHARED:0 LOCAL:0 CONSTANT[0]:980 TEXTURE:0 SURFACE:0 SAMPLER:0
END"""


def executable(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("#!/usr/bin/env bash\n" + text + "\n")
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def alive(process):
    """Whether a process exists and is not only waiting for its parent to take note of its end."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PartsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        for devices in (0, 1):
            folder = os.path.join(cls.temporary.name, f"runtime{devices}")
            os.makedirs(folder)
            subprocess.run(["cc", "-shared", "-fPIC", f"-DDEVICES={devices}", "-x", "c", "-", "-o",
                            os.path.join(folder, "libcudart.so.13")], input=RUNTIME, text=True, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.temporary.name)
        self.tools = os.path.join(self.folder, "tools")
        self.output = os.path.join(self.folder, "results")

    def run_agenda(self, scripts, *arguments, devices=1, needs=("libcudart.so.13",), drivers={}):
        manifest = {"commit": "abc", "libraries": [], "fallback": [], "programs": []}
        for name, text in scripts.items():
            executable(os.path.join(self.folder, "pack", "bin", name), text)
            manifest["programs"].append({"name": name, "kind": programs.kind_of(name), "of_machine": list(needs)})
            if name in drivers:
                manifest["programs"][-1]["driver"] = drivers[name]
        with open(os.path.join(self.folder, "pack", "manifest.json"), "w") as file:
            json.dump(manifest, file)
        environment = dict(agenda.BARE, PATH=self.tools + ":" + agenda.BARE["PATH"])
        done = agenda.call("run", "--pack", os.path.join(self.folder, "pack"), "--output", self.output, "--libraries",
                           os.path.join(self.temporary.name, f"runtime{devices}"), *arguments, environment=environment)
        self.text = done.stdout
        self.results = agenda.results_in(self.output) if os.path.exists(self.output) else {}
        return done.returncode

    def test_goes_on_after_a_failure(self):
        code = self.run_agenda({"a_device_test": BAD, "b_device_test": CRASH, "c_device_test": GOOD}, "device_tests")
        self.assertEqual(code, 1, self.text)
        self.assertEqual(self.results["machine"]["device"], "Claimed")
        self.assertEqual(self.results["machine"]["capability"], "9.0")
        bad, crash = self.results["device_tests/a_device_test"], self.results["device_tests/b_device_test"]
        self.assertEqual((bad["status"], bad["tests"], bad["failed_tests"]), ("failed", 2, ["Rows/Wrong.Test/1"]))
        self.assertEqual(bad["last_lines"][-1], "the last word")
        self.assertEqual((crash["status"], crash["failed_tests"]), ("failed", []))
        self.assertEqual(self.results["device_tests/c_device_test"]["status"], "passed")
        with open(os.path.join(self.output, "summary.txt")) as file:
            summary = file.read()
        self.assertIn("failed: Rows/Wrong.Test/1", summary)
        self.assertIn("2 failed, 1 passed; exit code 1", summary)

    def test_goes_on_after_a_program_of_another_machine(self):
        scripts = {"a_device_test": GOOD, "b_device_test": GOOD}
        self.run_agenda(scripts, "device_tests")
        with open(os.path.join(self.folder, "pack", "bin", "a_device_test"), "wb") as file:
            file.write(b"\x7fELF no program")
        done = agenda.call("run", "device_tests", "--pack", os.path.join(self.folder, "pack"), "--output", self.output,
                           "--libraries", os.path.join(self.temporary.name, "runtime1"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("OSError: [Errno 8] Exec format error", done.stdout)
        self.assertEqual(agenda.results_in(self.output)["device_tests/b_device_test"]["status"], "passed")

    def test_time_is_boxed(self):
        code = self.run_agenda({"a_device_test": HANG, "b_device_test": GOOD}, "device_tests", "--minutes", "0.02")
        self.assertEqual(code, 3, self.text)
        first = self.results["device_tests/a_device_test"]
        self.assertEqual((first["status"], first["tests"]), ("out of time", 1))
        self.assertEqual(self.results["device_tests/b_device_test"]["status"], "not started")
        with open(os.path.join(self.folder, "pack", "bin", "a_device_test.child")) as file:
            child = file.read().strip()
        deadline = time.monotonic() + 20
        while alive(child):
            self.assertLess(time.monotonic(), deadline, "the program's child lives on")

    def test_no_device_is_said(self):
        code = self.run_agenda({"a_device_test": GOOD, "a_ranks_device_test": GOOD}, "device_tests", "nccl_2", devices=0)
        self.assertEqual(code, 77, self.text)
        self.assertIn("no device (no CUDA-capable device is detected)", self.text)
        self.assertEqual({result["status"] for name, result in self.results.items() if name != "machine"}, {"no device"})

    def test_a_missing_library_is_named(self):
        code = self.run_agenda({"a_device_test": GOOD}, "device_tests", needs=["libcudart.so.13", "libmissing.so.7"])
        self.assertEqual(code, 1, self.text)
        self.assertIn("libmissing.so.7 is not on this machine", self.text)

    def test_a_program_without_tests_has_failed(self):
        self.assertEqual(self.run_agenda({"a_device_test": "true"}, "device_tests"), 1)
        self.assertIn("no test ran", self.text)

    def test_sanitizers_take_the_short_tests(self):
        executable(os.path.join(self.tools, "compute-sanitizer"), SANITIZER)
        code = self.run_agenda({"a_device_test": GOOD}, "device_tests", "memcheck", "racecheck", "initcheck")
        self.assertEqual(code, 1, self.text)
        clean, racing = self.results["memcheck/a_device_test"], self.results["racecheck/a_device_test"]
        self.assertEqual((clean["status"], clean["errors"], clean["left_out"]), ("passed", 0, 1))
        self.assertEqual((racing["status"], racing["errors"]), ("failed", 2))
        self.assertEqual(self.results["initcheck/a_device_test"]["last_lines"], ["compute-sanitizer gave no summary"])
        with open(os.path.join(self.output, "log.txt")) as file:
            self.assertIn("--gtest_filter=Short.Test\n", file.read())

    def test_resources_are_read(self):
        executable(os.path.join(self.tools, "cuobjdump"), REPORT)
        self.assertEqual(self.run_agenda({"a_device_test": GOOD}, "resources", devices=0), 0, self.text)
        result = self.results["resources/a_device_test"]
        self.assertEqual((result["kernels"], result["most_registers"]), (2, 255))
        self.assertEqual([kernel["name"] for kernel in result["with_stack"]], ["_Z8backwardPf"])

    def test_benchmarks_give_their_lines(self):
        code = self.run_agenda({"a_device_bench": "echo warm; echo '{\"tflops\": 560}'", "b_device_bench": "echo warm"}, "bench")
        self.assertEqual(code, 1, self.text)
        self.assertEqual(self.results["bench/a_device_bench"]["lines"], [{"tflops": 560}])
        self.assertIn("no line of JSON", self.text)

    def test_comparisons_need_pytorch_unless_they_are_rehearsed(self):
        """The driver gets the program, the pack's libraries as an argument, and none of them in its own environment."""
        name = "attention_device_bench"
        driver = programs.driver_of(name)
        os.makedirs(os.path.join(self.folder, "pack", "bench"))
        with open(os.path.join(self.folder, "pack", driver), "w") as file:
            file.write("""import json, os, subprocess, sys
_, program, _, libraries, *smoke = sys.argv[1:]
assert "LD_LIBRARY_PATH" not in os.environ, os.environ
assert libraries.split(":")[0].endswith("pack/lib"), libraries
said = subprocess.run([program], capture_output=True, text=True).stdout.strip()
print("not a line")
print(json.dumps({"said": said, "smoke": smoke, "text": "7 times cudnn"}))
""")
        code = self.run_agenda({name: "echo hello"}, "compare", "--smoke", drivers={name: driver})
        self.assertEqual(code, 0, self.text)
        self.assertTrue(self.results["machine"]["smoke"])
        self.assertEqual(self.results[f"compare/{name}"]["lines"],
                         [{"said": "hello", "smoke": ["--smoke"], "text": "7 times cudnn"}])
        self.assertIn("their figures mean nothing", self.text)
        self.assertIn("  7 times cudnn", self.text)
        if machine.torch_version() is None:
            self.assertEqual(self.run_agenda({name: "echo hello"}, "compare", drivers={name: driver}), 3, self.text)
            self.assertIn("PyTorch is not on this machine", self.text)

    def test_wrong_usage(self):
        self.assertEqual(self.run_agenda({"a_device_test": GOOD}, "nccl_2"), 2)
        self.assertIn("no part nccl_2 in this pack; it has device_tests, memcheck", self.text)
        os.remove(os.path.join(self.folder, "pack", "bin", "a_device_test"))
        done = agenda.call("list", "--pack", os.path.join(self.folder, "pack"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("damaged: a_device_test", done.stdout)
        done = agenda.call("list", "--pack", self.temporary.name)
        self.assertEqual(done.returncode, 2)
        self.assertIn("is no pack", done.stdout)


class DriversTest(unittest.TestCase):
    def test_a_packed_driver_has_what_it_imports(self):
        with tempfile.TemporaryDirectory() as folder:
            packed = pack.Pack(folder)
            packed.programs = [{"name": name} for name in ("attention_device_bench", "elements_device_bench", "a_device_test")]
            packed.add_drivers(agenda.ROOT)
            self.assertEqual([program.get("driver") for program in packed.programs], ["bench/device_attention.py", None, None])
            done = subprocess.run([os.path.join(folder, "bench/device_attention.py"), "--help"], env=agenda.BARE,
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("over_RIVAL", done.stdout)


class NamesTest(unittest.TestCase):
    def test_kinds(self):
        kinds = {name: programs.kind_of(name) for name in
                 ("segment_attention_device_test", "comm_ranks_device_test", "attention_device_bench", "comm_mpi_test",
                  "cuda_simulator_hopper_test", "cuda_simulator_fault_test", "kernels_test", "device_test", "comm_test")}
        self.assertEqual(list(kinds.values()), ["device_test", "ranks", "bench", "host_ranks", "device_test", None, None, None, None])

    def test_drivers(self):
        self.assertEqual(programs.driver_of("attention_device_bench"), "bench/device_attention.py")
        self.assertTrue(os.path.exists(os.path.join(agenda.ROOT, programs.driver_of("attention_device_bench"))))
        self.assertIsNone(programs.driver_of("elements_device_bench"))

    def test_every_part_has_a_box_below_ten_minutes(self):
        packed = [{"name": name, "kind": programs.kind_of(name), "of_machine": []}
                  for name in ("a_device_test", "a_ranks_device_test", "a_device_bench", "comm_mpi_test")]
        packed[2]["driver"] = "bench/device_a.py"
        items = parts.items_of(packed)
        self.assertEqual(list(dict.fromkeys(item.part for item in items)),
                         ["mpi", "device_tests", "nccl_2", "nccl_4", "memcheck", "racecheck", "initcheck", "bench", "compare",
                          "resources"])
        self.assertTrue(all(0 < item.limit < 600 for item in items))

    def test_whose_libraries(self):
        for name in ("libc.so.6", "libstdc++.so.6", "ld-linux-x86-64.so.2"):
            self.assertTrue(pack.SYSTEM.match(name), name)
        for name in ("libcudart.so.13", "libnccl.so.2", "libcudnn_graph.so.9", "libtorch_cpu.so", "libc10.so"):
            self.assertTrue(pack.CUDA.match(name), name)
        for name in ("libmpi.so.40", "libfmt.so.9", "libcurl.so.4", "libcap.so.2"):
            self.assertFalse(pack.SYSTEM.match(name) or pack.CUDA.match(name), name)


if __name__ == "__main__":
    unittest.main()
