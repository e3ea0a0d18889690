"""A command that restarts itself, and the pages it then gets."""

import os
import subprocess
import sys

import pytest

from tensornet import huge_pages

# What an array of 64 MB costs in page faults, got from and given back to the C library.
COMMAND = """
import ctypes, os, resource, sys
from tensornet import restart_with_huge_pages
print("started", flush=True)
restart_with_huge_pages()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
space = ctypes.c_void_p(library.malloc(ctypes.c_size_t(2**26)))
ctypes.memset(space, 1, 2**26)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:], sep="|")
"""


def run(tmp_path, tunables=None):
    """Run the command; return its lines."""
    script = tmp_path / "script.py"
    script.write_text(COMMAND)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    found = subprocess.run(
        [sys.executable, script, "--option", "a b"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=os.getcwd(),
    )
    return found.stdout.split("\n")[:-1]


@pytest.mark.skipif(not huge_pages._possible(), reason="no huge pages here")
def test_a_command_restarts_once_with_its_arguments_and_takes_few_page_faults(tmp_path):
    *starts, told = run(tmp_path)
    assert starts == ["started", "started"]
    faults, tunables, *arguments = told.split("|")
    assert arguments == ["--option", "a b"]
    assert tunables == "glibc.malloc.hugetlb=1"
    assert int(faults) < 2**26 // 4096 / 10


@pytest.mark.skipif(not huge_pages._possible(), reason="no huge pages here")
def test_other_settings_of_the_c_library_are_kept(tmp_path):
    *starts, told = run(tmp_path, "glibc.malloc.perturb=7")
    assert len(starts) == 2
    assert told.split("|")[1] == "glibc.malloc.perturb=7:glibc.malloc.hugetlb=1"


@pytest.mark.skipif(not huge_pages._possible(), reason="no huge pages here")
def test_commands_from_standard_input_are_refused_and_not_lost():
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    found = subprocess.run(
        [sys.executable, "-"],
        env=environment,
        input=COMMAND,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "expected a script or module that can be started anew" in found.stderr


def test_a_command_that_says_what_it_wants_is_left_alone(tmp_path):
    *starts, told = run(tmp_path, "glibc.malloc.hugetlb=0")
    assert starts == ["started"]
    faults, tunables, *_ = told.split("|")
    assert tunables == "glibc.malloc.hugetlb=0"
    assert int(faults) > 0


def test_nothing_happens_where_the_kernel_has_none(tmp_path, monkeypatch):
    state = tmp_path / "enabled"
    state.write_text("always madvise [never]\n")
    monkeypatch.setattr(huge_pages, "_KERNEL", state)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    huge_pages.restart_with_huge_pages()
    assert "GLIBC_TUNABLES" not in os.environ
