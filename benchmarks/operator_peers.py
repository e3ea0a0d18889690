"""Neuraloperator's layers and models on torch, where they are installed: the peers of ours."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .measure import Program

INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "neuralop"))
ABSENT = "neuraloperator is not installed: no peer"


def _torch() -> Any:
    import torch

    torch.set_num_threads(2)
    return torch


def layer(
    factorization: str | None,
    rank: float | None,
    *,
    batch: int,
    width: int,
    grid: Sequence[int],
    modes: Sequence[int],
    implementation: str,
) -> Program:
    """Value and gradient of a spectral layer, with respect to input and weights."""
    torch = _torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.layers.spectral_convolution import SpectralConv

        made = SpectralConv(
            width,
            width,
            tuple(modes),
            factorization=factorization,
            rank=rank if rank is not None else 1.0,
            implementation=implementation,
        )
    x = torch.randn(batch, width, *grid, requires_grad=True)

    def run() -> Any:
        x.grad = None
        made.zero_grad(set_to_none=True)
        (made(x) ** 2).sum().backward()
        return x.grad.numpy()

    return Program(f"neuraloperator {implementation}", run)


def model(**options: Any) -> Any:
    """A Fourier neural operator of neuraloperator."""
    _torch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO

        return FNO(**options)


def training_step(x: np.ndarray, y: np.ndarray, **options: Any) -> tuple[Program, int]:
    """Return a step of AdamW on the relative L2 loss, and the parameters the model has."""
    torch = _torch()
    made = model(**options)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    given, truth = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> Any:
        optimizer.zero_grad(set_to_none=True)
        error = (made(given) - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
        loss = error.mean()
        loss.backward()
        optimizer.step()
        return np.asarray(loss.item())

    size = sum(p.numel() * (2 if p.is_complex() else 1) for p in made.parameters())
    return Program("neuraloperator", run), size


def builders(**options: Any) -> list[Callable[[], Program]]:
    """Return what makes each form of the peer's layer; none where it is not installed."""
    if not INSTALLED:
        return []
    forms = ("reconstructed", "factorized") if options.get("factorization") else ("reconstructed",)
    return [lambda form=form: layer(implementation=form, **options) for form in forms]
