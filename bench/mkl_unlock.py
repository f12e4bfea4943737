"""MKL's AVX-512 code for PyTorch on every processor."""
import os
import subprocess

from machine import ROOT


def build_unlock(folder):
    """Builds bench/peers/mkl_vendor_check.c in `folder`; the library to preload into a rival."""
    library = os.path.join(folder, "mkl_vendor_check.so")
    source = os.path.join(ROOT, "bench/peers/mkl_vendor_check.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library
