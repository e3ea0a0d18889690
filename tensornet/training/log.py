"""The log of a run: one CSV row a report, continued when the run is resumed."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class CsvLog:
    """Appends rows to a CSV file; the columns are those of the first row.

    Args:
        path: the file; its folder must exist.
        step: the run continues after this step: rows up to it stay, later ones go.
    """

    def __init__(self, path: str | os.PathLike[str], step: int):
        self.path = Path(path)
        self._columns: list[str] | None = None
        rows: list[list[str]] = []
        if step and self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.reader(file))
        if rows:
            self._columns = rows[0]
            # A row cut by a kill has too few columns.
            whole = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= step]
            rows = [rows[0], *whole]
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, the step first."""
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if self._columns is None:
                self._columns = list(row)
                writer.writerow(self._columns)
            writer.writerow([row.get(name, "") for name in self._columns])
