#!/usr/bin/env python3
"""rehearsal_test.py BUILD_FOLDER: packs the programs of a build, moves the pack, and starts it as on a bare machine:
with an empty environment, and with this machine's Open MPI and project libraries out of sight."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import agenda

BUILD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
# Not hidden: what Python itself loads.
OF_PYTHON = ("libz.so", "libexpat.so", "libffi.so", "libcrypto.so", "libssl.so")


def may_hide():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


class RehearsalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        made, cls.pack = os.path.join(cls.temporary.name, "made"), os.path.join(cls.temporary.name, "elsewhere", "pack")
        done = agenda.call("pack", "--no-build", "--build", BUILD, "--output", made)
        if done.returncode != 0:
            raise AssertionError(done.stdout)
        cls.said = done.stdout
        os.makedirs(os.path.dirname(cls.pack))
        shutil.move(made, cls.pack)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def start(self, *arguments, before=()):
        self.output = os.path.join(self.temporary.name, "results-" + self.id())
        done = agenda.call("run", *arguments, "--output", self.output, script=os.path.join(self.pack, "gpu_agenda"),
                           before=("env", "-i", *before), environment={"PATH": agenda.BARE["PATH"]})
        self.text = done.stdout
        if os.path.exists(self.output):
            with open(os.path.join(self.output, "log.txt")) as file:
                self.text += file.read()
        return done.returncode

    def expect_two_ranks(self):
        result = agenda.results_in(self.output)["mpi/comm_mpi_test"]
        self.assertEqual(result["status"], "passed", self.text)
        self.assertGreater(result["tests"], 3)
        self.assertIn("2 ranks: ", self.text)

    def test_says_what_it_took(self):
        size = float(self.said.split("MiB", 1)[0].rsplit(": ", 1)[1])
        self.assertLess(size, 60)
        self.assertRegex(self.said, r"programs: .*\bcomm_mpi_test\b")
        with open(os.path.join(self.pack, "manifest.json")) as file:
            libraries = json.load(file)["libraries"]
        self.assertTrue(any(name.startswith("libmpi.so") for name in libraries), libraries)
        self.assertFalse(any(name.startswith(("libc.so", "libcuda", "libnccl", "libtorch")) for name in libraries), libraries)

    def test_ranks_start_in_an_empty_environment(self):
        self.assertEqual(self.start("mpi"), 0, self.text)
        self.expect_two_ranks()

    def test_ranks_start_without_this_machines_libraries(self):
        if not may_hide():
            self.skipTest("needs root, and the right to unshare the mounts")
        with open(os.path.join(self.pack, "manifest.json")) as file:
            manifest = json.load(file)
        hidden = [name for name in manifest["libraries"] + manifest["fallback"] if not name.startswith(OF_PYTHON)]
        script = os.path.join(self.temporary.name, "hide")
        with open(script, "w") as file:
            file.write(f"""set -e
mkdir -p {self.temporary.name}/empty
for folder in $(dirname "$(readlink -f /usr/lib/*/openmpi/lib)") /usr/share/openmpi; do
  mount --bind {self.temporary.name}/empty "$folder"
done
for name in {" ".join(hidden)}; do
  find /usr/lib -name "$name" | while read -r library; do
    mount --bind /dev/null "$(readlink -f "$library")"
  done
done
if mpirun --version; then
  echo "nothing is hidden"
  exit 1
fi
exec "$@"
""")
        self.assertEqual(self.start("mpi", before=("PATH=" + agenda.BARE["PATH"], "unshare", "-m", "bash", script)), 0, self.text)
        self.expect_two_ranks()

    def test_a_machine_without_a_device(self):
        """Devices are out of sight also where there are some."""
        manifest = os.path.join(self.pack, "manifest.json")
        with open(manifest) as file:
            packed = json.load(file)["programs"]
        code = self.start(before=("CUDA_VISIBLE_DEVICES=",))
        statuses = {name: record["status"] for name, record in agenda.results_in(self.output).items() if "status" in record}
        if any(program["kind"] != "host_ranks" for program in packed):
            self.assertEqual(code, 77, self.text)
            self.assertIn("no device", statuses.values())
        else:
            self.assertEqual(code, 0, self.text)
        self.assertIn("no device (", self.text)
        self.assertNotIn("failed", statuses.values(), self.text)


if __name__ == "__main__":
    unittest.main()
