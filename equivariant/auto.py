"""The fastest of several methods for one map, compared anew for every shape of a call."""

from dataclasses import dataclass
from typing import ClassVar

from .method import Method, Program, Use


@dataclass(frozen=True)
class Auto(Method):
    """Exact methods for the same map: which one runs changes nothing beyond rounding.

    Attributes:
        methods: at least one.
    """

    methods: tuple[Method, ...] = ()

    name: ClassVar[str] = "auto"

    def programs(self, use: Use) -> dict[str, Program]:
        """Return the best program of every method, `"<method>: <program>"`."""
        found = ((method, method.choose(use)) for method in self.methods)
        return {f"{method.name}: {how}": program for method, (how, program, _) in found}

    def alternatives(self, use: Use) -> dict[str, Program]:
        """Return `programs`, of which each has been compared with tiles of it already."""
        return self.programs(use)

    def method_for(self, use: Use) -> str:
        """Return the name of the method that runs."""
        return self.choose(use)[0].split(":")[0]
