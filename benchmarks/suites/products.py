"""Tensor products against e3nn-jax and plain einsum, and every method against the one chosen."""

import dataclasses
from collections.abc import Iterator
from contextlib import closing

from ..case import Case, Context, Peer, Speed
from ..product_peers import others
from ..products import Problem, implementations
from ..rows import Row

SUITE = "products"

# The three maps that are compared: fields of `Problem`, and the targets over e3nn-jax by degree,
# forward and gradient.
EVEN = {"paths": "even", "coupling": "gaunt", "weights": "per-degree"}
ALL = {"paths": "all", "coupling": "gaunt", "weights": "per-degree"}
PLAIN = {"paths": "all", "coupling": "clebsch-gordan", "weights": None}
TARGETS = (
    (EVEN, {(4, False): 4.6, (4, True): 16.0}),
    (ALL, {(4, False): 4.0, (4, True): 10.0, (6, False): 8.0}),
    (PLAIN, {(4, True): 3.0}),
)


def cases(quick: bool) -> list[Case]:
    """Return the cases; the quick ones are smaller and promise nothing."""
    size = {"batch": 16, "channels": 4} if quick else {}
    found = []
    for fields, targets in TARGETS:
        # e3nn-jax compiles for a quarter of a minute at L=4 with gradients, for minutes beyond.
        pairs = {(n, g) for n in ((1,) if quick else (1, 2, 3, 4)) for g in (False, True)}
        for degree, gradients in sorted(pairs | set(() if quick else targets)):
            problem = Problem(degree, **fields, gradients=gradients, **size)
            found.append(_compared(problem, targets.get((degree, gradients)), quick))
    for fields in (ALL, PLAIN):
        for degree in (2,) if quick else range(1, 9):
            problem = Problem(degree, **fields, gradients=True, **size)
            found.append(Case(SUITE, f"methods: {problem.name}", "float32", Methods(problem)))
    return found


def _compared(problem: Problem, target: float | None, quick: bool) -> Case:
    peers = [Peer(problem.e3nn, target=None if quick else target)]
    if problem.degree <= 4:
        peers += [Peer(problem.einsum_paths), Peer(problem.einsum_dense)]
        peers += [Peer(build, note=note) for build, note in others(problem)]
    # Errors are of single precision on both sides: one sum is as good as another.
    return Case(SUITE, problem.name, "float32", Speed(problem.ours, peers, within=1.0))


@dataclasses.dataclass(frozen=True, init=False)
class Methods(Speed):
    """The method that is chosen beside each that can implement the map, by name."""

    problem: Problem

    def __init__(self, problem: Problem):
        super().__init__(problem.ours)
        object.__setattr__(self, "problem", problem)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Measure, one row a method."""
        context = dataclasses.replace(context, budget=context.budget / 4)
        chosen = self.problem.product().method
        with closing(self.problem.ours()) as ours:
            ours.seconds()
            for method in implementations(self.problem):
                peer = Peer(lambda m=method: self.problem.ours(m))
                row, _, _ = self._compare(case, context, ours, peer, None)
                yield dataclasses.replace(row, note=f"chosen: {chosen}")
