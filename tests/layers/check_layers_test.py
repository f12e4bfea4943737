"""Feeds check_layers bad trees and sees each rule fail, and a good tree pass."""
import os
import tempfile
import unittest

from check_layers import check

GOOD = {
    "base/error.h": "#pragma once\n#include <string>\n",
    "kernels/attention.h": '#pragma once\n#include "base/error.h"\n',
    "parallel/comm/mpi_backend.cc": '#include <mpi.h>\n#include "base/error.h"\n',
    "parallel/comm/communicator.h": '#pragma once\n#include "base/error.h"\n',
    "parallel/mesh.cc": '#include "kernels/attention.h"\n#include "parallel/comm/communicator.h"\n#include <ATen/ATen.h>\n',
    "configs/load.h": '#pragma once\n#include "configs/job.pb.h"\n',
    "runtime/reward/client.cc": '#include <boost/asio.hpp>\n#include "configs/load.h"\n',
    "launcher/main.cc": "int main() { exit(0); }\n",
    "tests/base/error_test.cc": '#include <mpi.h>\n#include "launcher/main.h"\n',
    "launcher/main.h": "#pragma once\n",
    "launcher/build_info.h.in": "#pragma once\n",
    "launcher/version.cc": '#include "launcher/build_info.h"\n',
}


class CheckLayers(unittest.TestCase):
    def messages(self, changes):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**GOOD, **changes}.items():
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", encoding="utf-8") as file:
                    file.write(text)
            return [f"{p.path}:{p.line}: {p.message}" for p in check(root)]

    def refused(self, path, text, expected):
        found = self.messages({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(expected, found[0])
        self.assertTrue(found[0].startswith(path + ":"), found[0])

    def test_good_tree(self):
        self.assertEqual(self.messages({}), [])

    def test_layer_order(self):
        header = '#pragma once\n#include "kernels/attention.h"\n'
        self.refused("base/a.h", header, "base/a.h:2: base includes")
        self.refused("configs/a.h", header, "configs includes")
        self.refused("parallel/comm/a.h", header, "parallel/comm includes")
        self.refused("kernels/a.cc", '#include "parallel/comm/communicator.h"\n', "kernels includes")
        self.refused("parallel/a.cc", '#include "launcher/main.h"\n', "parallel includes")
        self.refused("runtime/a.cc", '#include "launcher/main.h"\n', "runtime includes")

    def test_nobody_includes_tests(self):
        self.assertIn("launcher includes", self.messages({
            "tests/cases.h": "#pragma once\n", "launcher/a.cc": '#include "tests/cases.h"\n'})[0])

    def test_includes_start_at_the_root(self):
        self.refused("base/a.cc", '#include "error.h"\n', "relative to its root")

    def test_mpi_and_nccl(self):
        self.refused("parallel/a.cc", "#include <mpi.h>\n", "reaches MPI")
        self.refused("runtime/a.cc", "#include <nccl.h>\n", "reaches NCCL")

    def test_vendor_headers_are_followed(self):
        found = self.messages({"models/a.cc": '#include "configs/load.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("reaches protobuf by configs/load.h -> configs/job.pb.h", found[0])
        self.assertIn("reaches MPI by parallel/comm/leak.h -> mpi.h", "\n".join(self.messages({
            "parallel/comm/leak.h": "#pragma once\n#include <mpi.h>\n",
            "parallel/a.cc": '#include "parallel/comm/leak.h"\n'})))

    def test_torch(self):
        for path in ("base/a.cc", "kernels/a.cc", "parallel/comm/a.cc", "configs/a.cc"):
            self.refused(path, "#include <ATen/ATen.h>\n", "reaches LibTorch")
        self.assertEqual(self.messages({"kernels/torch/a.cc": "#include <c10/core/Device.h>\n"}), [])
        self.refused("models/a.cc", "#include <torch/torch.h>\n", "torch/torch.h")

    def test_asio(self):
        self.refused("runtime/a.cc", "#include <boost/asio/io_context.hpp>\n", "reaches Boost.Asio")
        self.assertEqual(self.messages({"runtime/control/a.cc": "#include <boost/asio/io_context.hpp>\n"}), [])

    def test_streams(self):
        self.refused("kernels/a.cu", "void f() { cudaEventCreateWithFlags(&e, 2); }\n", "streams and events")

    def test_exit_and_assert(self):
        self.refused("runtime/a.cc", "void f() { std::exit(1); }\n", "exit()")
        self.refused("base/a.cc", "void f() { assert(x); }\n", "assert()")
        self.assertEqual(self.messages({"base/a.cc": "static_assert(true); // assert(x)\n"}), [])

    def test_files(self):
        self.refused("base/long.cc", "\n" * 801, "801 lines")
        self.assertEqual(self.messages({"base/long.cc": "\n" * 800}), [])
        self.refused("base/CamelCase.cc", "\n", "snake_case")
        self.refused("base/a.h", "\n", "pragma once")
        self.refused("base/a.cc", "// TO" "DO later\n", "unfinished work")
        self.refused("scripts/a", "# FIX" "ME\n", "unfinished work")


if __name__ == "__main__":
    unittest.main()
