"""Checkpoints of a run: numbered files, the newest whole one loads, another run's is refused."""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import jax

from ..io import FileFormatError, load, read_header, save

_logger = logging.getLogger(__name__)
_KIND = "training checkpoint"
_NAME = re.compile(r"step-(\d{12})\.ckpt")


class Checkpoints:
    """The files of one run in one folder, which belongs to that run alone.

    Args:
        folder: made when the first file is written.
        keep: how many files stay; more than one, as the newest may be cut by a full disk.
        fingerprint: JSON-able facts of the run that must be the same when it is resumed.

    Raises:
        NotADirectoryError: something else is in the folder's place.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int, fingerprint: dict[str, Any]):
        self.folder = Path(folder)
        self.keep = keep
        self.fingerprint = json.loads(json.dumps(fingerprint))
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"checkpoint: expected a folder, got the file {self.folder}")

    def newest(self) -> tuple[Any, dict[str, Any]] | None:
        """Return the newest whole checkpoint's tree and facts, None where there is none.

        A cut or damaged file is refused with a logged warning and the one before it is read.

        Raises:
            ValueError: the file belongs to another run; the message says what differs.
        """
        for path in reversed(self._files()):
            try:
                header = read_header(path)
                if header.kind == _KIND:
                    self._check(path, header.hyperparameters["fingerprint"])
                return load(path, kind=_KIND), header.hyperparameters["facts"]
            except FileFormatError as error:
                _logger.warning("refused a checkpoint, looking for the one before: %s", error)
        if self._files():
            _logger.warning("no checkpoint in %s is whole, starting from step 0", self.folder)
        return None

    def write(self, step: int, tree: Any, facts: dict[str, Any], *, only: bool = False) -> None:
        """Write the checkpoint of a step and drop the oldest (all others with `only`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:012d}.ckpt"
        hyperparameters = {"fingerprint": self.fingerprint, "facts": facts}
        save(path, tree, kind=_KIND, hyperparameters=hyperparameters)
        others = [other for other in self._files() if other != path]
        for other in others if only else others[: -(self.keep - 1) or None]:
            other.unlink(missing_ok=True)
        for left in self.folder.glob(".step-*.tmp"):  # of a run killed while it wrote
            left.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _check(self, path: Path, got: dict[str, Any]) -> None:
        differences = list(_differences(self.fingerprint, got))
        if differences:
            raise ValueError(
                f"checkpoint: {path} is of another run: {'; '.join(differences[:3])} "
                "(give another folder, or resume=False to start again in this one)"
            )


def describe(tree: Any) -> dict[str, str]:
    """Return dtype and shape of every array of a tree by its path, for a fingerprint."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path) or "the root": f"{x.dtype}{list(x.shape)}" for path, x in leaves
    }


def _differences(expected: Any, got: Any, where: str = "") -> Any:
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in [*expected, *(name for name in got if name not in expected)]:
            inside = f"{where}{'' if name.startswith(('.', '[')) or not where else ' '}{name}"
            yield from _differences(expected.get(name, "none"), got.get(name, "none"), inside)
    elif expected != got:
        yield f"{where}: expected {expected}, got {got}"
