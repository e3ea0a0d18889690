"""Small Darcy: errors of tensorized operators, at the training resolution and a finer one."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from solvers.operators import tensorize

from ..case import Case, Context
from ..measure import Program
from ..operators import (
    BEST,
    EPOCHS,
    SMALL_DARCY,
    WIDE,
    errors,
    law_errors,
    make,
    trained,
)
from ..rows import Row

SUITE = "darcy_small"
SHARE = 0.087  # of the spectral weights, which makes a tenth of all parameters
FORMATS = ("tucker", "cp", "tt", "tr")
ABSENT = f"{SMALL_DARCY.name} is not in ../shared/data/darcy"


def cases(quick: bool) -> list[Case]:
    """Return the cases; none where the data set is absent."""
    if not SMALL_DARCY.is_file():
        return []
    found: list[tuple[str, Any]] = [("law", Law()), ("best", Best())]
    found += [(f"{name} at a tenth against dense", Against(name)) for name in FORMATS]
    found += [("dense, then tensorized and trained on", Compressed())]
    return [
        Case(SUITE, name, "float32", measure) for name, measure in found[: 1 if quick else None]
    ]


def _seeds(context: Context) -> range:
    return range(1 if context.quick else 5)


class Law:
    """Our solver on the coefficients of the data set, against its pressures."""

    def program(self) -> Program:
        """Return the comparison."""
        return Program("law", law_errors, lambda e: {"error": float(np.mean(e))})

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Compare."""
        found = law_errors(4 if context.quick else 20)
        yield case.row(
            context,
            quantity="error",
            unit="relative L2",
            ours=float(np.mean(found)),
            note=f"mean of {len(found)} pairs, largest {found.max():.3f}; the data set tells the "
            "coefficient at 16 x 16 points only, so that faces are known to a cell",
        )


class Best:
    """The smallest error with fewer than 140,000 parameters."""

    def program(self) -> Program:
        """Return the training of one seed, for an epoch."""
        return Program("ours", lambda: trained(make(0, **BEST), 0, 1))

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train every seed."""
        found = [errors(trained(make(s, **BEST), s, EPOCHS)) for s in _seeds(context)]
        size = make(0, **BEST).n_parameters
        for name in found[0]:
            values = [f[name] for f in found]
            held = name == "l2@16"
            yield case.row(
                context,
                quantity="error",
                unit=f"relative {name}",
                ours=float(np.median(values)),
                rounds=len(values),
                target=0.080 if held else None,
                target_is="ours at most" if held else "",
                met=float(np.median(values)) <= 0.080 if held else None,
                note=f"{size:,} parameters; seeds {', '.join(f'{v:.4f}' for v in values)}",
            )
        yield case.row(
            context,
            quantity="count",
            unit="parameters",
            ours=size,
            target=140_000,
            target_is="ours at most",
            met=size < 140_000,
        )


_DENSE: dict[int, dict[str, float]] = {}


def _dense(seed: int) -> dict[str, float]:
    if seed not in _DENSE:
        _DENSE[seed] = errors(trained(make(seed, **WIDE), seed, EPOCHS))
    return _DENSE[seed]


@dataclasses.dataclass(frozen=True)
class Against:
    """A format at a tenth of the parameters beside the dense operator, seed by seed."""

    factorization: str

    def program(self) -> Program:
        """Return the training of one seed, for an epoch."""
        return Program("ours", lambda: trained(self._model(0), 0, 1))

    def _model(self, seed: int) -> Any:
        return make(seed, **WIDE, factorization=self.factorization, rank=SHARE)

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train both with every seed."""
        size = make(0, **WIDE).n_parameters
        pairs = [(errors(trained(self._model(s), s, EPOCHS)), _dense(s)) for s in _seeds(context)]
        for name in pairs[0][0]:
            ours, dense = (np.asarray([p[k][name] for p in pairs]) for k in (0, 1))
            excess = float(np.mean(ours - dense) / np.mean(dense))
            held = name == "l2@16"
            yield case.row(
                context,
                quantity="error",
                unit=f"relative {name}",
                ours=float(ours.mean()),
                peer_name="dense",
                peer=float(dense.mean()),
                ratio=float(dense.mean() / ours.mean()),
                rounds=len(pairs),
                target=1 / 1.03 if held else None,
                target_is="ratio at least" if held else "",
                met=excess <= 0.03 if held else None,
                note=f"paired mean difference {100 * excess:+.1f}% of dense's error; "
                f"{self._model(0).n_parameters:,} parameters, dense {size:,}",
            )


class Compressed:
    """A trained dense operator decomposed to a tenth and trained for a tenth of the epochs."""

    def program(self) -> Program:
        """Return the training of one seed, for an epoch."""
        return Program("ours", lambda: trained(make(0, **WIDE), 0, 1))

    def rows(self, case: Case, context: Context) -> Iterator[Row]:
        """Train, decompose, train on."""
        dense = trained(make(0, **WIDE), 0, EPOCHS)
        before = errors(dense)["l2@16"]
        for name in ("tucker", "tt"):
            made = tensorize(dense, factorization=name, rank=SHARE)
            raw = errors(made)["l2@16"]
            after = errors(trained(made, 1, max(1, EPOCHS // 10), learning_rate=1e-3))["l2@16"]
            yield case.row(
                context,
                quantity="error",
                unit="relative l2@16",
                ours=after,
                peer_name="dense",
                peer=before,
                ratio=before / after,
                target=1 / 1.2,
                target_is="ratio at least",
                met=after <= 1.2 * before,
                note=f"{name}, {raw:.4f} before training on; {made.model.n_parameters:,} "
                f"parameters, dense {dense.model.n_parameters:,}",
            )
