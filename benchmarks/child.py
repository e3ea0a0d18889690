"""Run a peer in a process of its own, for peers that change the state of the whole process.

The parent sends one request a line and waits for its answer, so the two never compute at the
same time: rounds are interleaved as they are within one process. The child reads the clock, so
the pipe is in no figure.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class ChildError(RuntimeError):
    """The child process failed; the message holds what it said."""


class ChildProgram:
    """A program built in a child process by `module:function(**arguments)`.

    Args:
        name: what rows call it.
        target: `"package.module:function"`, a function that returns a `measure.Program`.
        arguments: its keyword arguments, as JSON carries them; data are made anew from seeds.

    Raises:
        ChildError: the function could not be imported or failed.
    """

    def __init__(self, name: str, target: str, **arguments: Any):
        self.name = name
        self._last: dict[str, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            self._ask({"build": target, "arguments": arguments})
        except ChildError:
            self.close()
            raise

    def seconds(self) -> float:
        answer = self._ask({"run": True})
        self._last = answer["quality"]
        return answer["seconds"]

    def quality(self) -> dict[str, float]:
        return self._last

    def close(self) -> None:
        process = self._process
        if process.stdin and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self.name}: the child process ended without an answer")
        answer = json.loads(line)
        if "failure" in answer:
            raise ChildError(f"{self.name}: {answer['failure']}")
        return answer


def _serve() -> None:
    # Whatever the peer prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    program = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                module, function = request["build"].split(":")
                build = getattr(importlib.import_module(module), function)
                program = build(**request["arguments"])
                answer: dict[str, Any] = {"built": True}
            elif program is None:
                raise RuntimeError("expected a build request first")
            else:
                answer = {"seconds": program.seconds(), "quality": program.quality()}
        except Exception as error:  # noqa: BLE001  whatever the peer raises belongs to the parent
            answer = {"failure": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
