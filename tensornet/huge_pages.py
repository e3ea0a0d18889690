"""Huge pages for what XLA computes with on a CPU."""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Start the running command anew, once, with memory in huge pages where the system has them.

    XLA asks the C library for its scratch space in each call and gives it back, and the kernel
    clears that space page by page: with pages of 4 kB, a third of the time of a training step on a
    CPU. glibc asks for pages of 2 MB, as numpy does for its arrays, if the environment says so
    before Python starts. Call this in a script's first lines: it does not return where it restarts,
    and what the process has computed is lost. In a notebook, start the server with
    `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` instead.

    Nothing happens elsewhere than on Linux with glibc 2.35 or later, with huge pages turned off in
    the kernel, or where `GLIBC_TUNABLES` names the setting already.

    Raises:
        RuntimeError: in an interactive session, or where the commands come from standard input:
            they cannot be started anew, and nothing is lost.

    Source: the GNU C library manual, Memory Allocation Tunables.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if _TUNABLE in given or not _possible():
        return
    if hasattr(sys, "ps1") or sys.argv[:1] in ([], [""], ["-"]) or not sys.executable:
        raise RuntimeError(
            "restart_with_huge_pages: expected a script or module that can be started anew, got an "
            f"interactive session; set GLIBC_TUNABLES={_TUNABLE}=1 before Python starts"
        )
    os.environ["GLIBC_TUNABLES"] = f"{given}:{_TUNABLE}=1" if given else f"{_TUNABLE}=1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _possible() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    library = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    version = tuple(int(n) for n in library.split(".") if n.isdigit())
    return version >= (2, 35) and _KERNEL.exists() and "[never]" not in _KERNEL.read_text()
