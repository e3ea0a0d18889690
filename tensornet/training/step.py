"""The compiled part of training: one step, many steps in one dispatch, and validation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from .batches import Rows, Traced

# Steps one dispatch may take. The loop's length is traced, so that one program serves every
# length: where a run is cut (by a validation, a checkpoint, a kill) cannot change its numbers.
BLOCK = 1024


class Problem(eqx.Module):
    """What stays the same from step to step."""

    rest: Any  # of the model: what is not trained
    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    source: Any  # Rows, Traced, or None where batches come from the host
    key: PRNGKeyArray
    ema: float | None


class State(eqx.Module):
    """What a step changes: with the problem, all that the next step depends on."""

    trainable: Any
    optimizer: Any
    average: Any  # of the weights, not yet corrected for its start at zero; None without ema
    step: Int[Array, ""]  # good steps taken
    ok: Bool[Array, ""]  # False after a step that was not finite, which is not applied


def shuffle_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """Return the key that orders and batches come from."""
    return jax.random.fold_in(key, 0)


def step_key(key: PRNGKeyArray, step: Any) -> PRNGKeyArray:
    """Return the key that the loss is given at a step."""
    return jax.random.fold_in(jax.random.fold_in(key, 1), step)


def validation_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """Return the key that the loss is given when validating."""
    return jax.random.fold_in(key, 2)


def initial_state(
    trainable: Any, optimizer: optax.GradientTransformation, ema: float | None
) -> State:
    """Return the state before the first step, owning its arrays: they will be donated."""

    def own(x: Any) -> Array:  # strongly typed, as the loop carries it
        return jnp.array(x, dtype=jnp.asarray(x).dtype, copy=True)

    return State(
        trainable=jax.tree.map(own, trainable),
        optimizer=jax.tree.map(own, optimizer.init(trainable)),
        average=None if ema is None else jax.tree.map(jnp.zeros_like, trainable),
        step=jnp.asarray(0, jnp.int32),
        ok=jnp.asarray(True),
    )


def averaged(state: State, ema: float) -> Any:
    """Return the moving average of the weights, corrected for its start at zero."""
    share = 1 - ema ** max(int(state.step), 1)
    return jax.tree.map(lambda x: x / jnp.asarray(share, x.real.dtype), state.average)


def as_pair(value: Any) -> tuple[Array, dict[str, Array]]:
    """Return a loss's value and what it returned beside it, both checked.

    Raises:
        TypeError, ValueError: not a real scalar, or not a dictionary of scalars beside it.
    """
    value, aux = value if isinstance(value, tuple) and len(value) == 2 else (value, {})
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = value.dtype if isinstance(value, jax.Array) else type(value).__name__
        raise TypeError(
            "loss: expected a real scalar or (scalar, dictionary of scalars), got " + str(got)
        )
    if value.shape != ():
        raise ValueError(f"loss: expected a scalar, got an array of shape {value.shape}")
    if not isinstance(aux, dict):
        raise TypeError(f"loss: expected a dictionary beside the scalar, got {type(aux).__name__}")
    if "loss" in aux:
        raise ValueError("loss: expected other names than 'loss' beside the scalar, got it")
    aux = {name: jnp.asarray(x) for name, x in aux.items()}
    for name, x in aux.items():
        if x.shape != ():
            raise ValueError(f"loss: expected a scalar as {name!r}, got shape {x.shape}")
    return value, aux


def take_step(problem: Problem, state: State, batch: Any) -> tuple[State, dict[str, Array]]:
    """Take one step on one batch; a step that is not finite leaves the state but for `ok`."""
    key = step_key(problem.key, state.step)

    def objective(trainable: Any) -> tuple[Array, dict[str, Array]]:
        return as_pair(problem.loss(eqx.combine(trainable, problem.rest), batch, key))

    (value, aux), gradient = jax.value_and_grad(objective, has_aux=True)(state.trainable)
    # jax's gradient of a real function of complex weights is the conjugate of the ascent.
    gradient = jax.tree.map(jnp.conj, gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its counts with floats
        updates, optimizer_state = optax.with_extra_args_support(problem.optimizer).update(
            gradient,
            state.optimizer,
            state.trainable,
            value=value,
            grad=gradient,
            value_fn=lambda trainable: objective(trainable)[0],
        )
    trainable: Any = optax.apply_updates(state.trainable, updates)
    average = state.average
    if problem.ema is not None:
        average = optax.incremental_update(trainable, average, 1 - problem.ema)
    ok = jnp.isfinite(value)
    for leaf in jax.tree.leaves(trainable):
        ok &= jnp.all(jnp.isfinite(leaf))
    new = State(trainable, optimizer_state, average, state.step + 1, state.ok)
    kept = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, state)
    return eqx.tree_at(lambda s: s.ok, kept, ok), {"loss": value, **aux}


@eqx.filter_jit(donate="all-except-first")
def take_steps(
    problem: Problem, state: State, order: Any, count: Int[Array, ""]
) -> tuple[State, Any, Int[Array, ""], dict[str, Array]]:
    """Take up to `count` steps, at most `BLOCK`; stop after one that is not finite.

    Returns:
        The state, the order of its epoch, how many steps were tried, and their figures in the
        first entries of arrays of length `BLOCK`.
    """
    key = shuffle_key(problem.key)

    def next_batch(step: Int[Array, ""], order: Any) -> tuple[Any, Any]:
        if isinstance(problem.source, Traced):
            return problem.source.batch(step, jax.random.fold_in(key, step)), order
        return problem.source.shuffled(step, order, key)

    def body(carry: Any) -> Any:
        tried, state, order, figures = carry
        batch, order = next_batch(state.step, order)
        state, new = take_step(problem, state, batch)
        figures = {name: x.at[tried].set(new[name]) for name, x in figures.items()}
        return tried + 1, state, order, figures

    def more(carry: Any) -> Bool[Array, ""]:
        tried, state, _, _ = carry
        return (tried < count) & state.ok

    _, shapes = eqx.filter_eval_shape(
        lambda: take_step(problem, state, next_batch(state.step, order)[0])
    )
    figures = {name: jnp.zeros(BLOCK, x.dtype) for name, x in shapes.items()}
    start = (jnp.asarray(0, jnp.int32), state, order, figures)
    tried, state, order, figures = jax.lax.while_loop(more, body, start)
    return state, order, tried, figures


@eqx.filter_jit(donate="all-except-first")
def take_host_step(fixed: tuple[Problem, Any], state: State) -> tuple[State, dict[str, Array]]:
    """Take one step on a batch that came from the host; nothing after one that is not finite."""
    problem, batch = fixed
    new, figures = take_step(problem, state, batch)
    return jax.tree.map(lambda a, b: jnp.where(state.ok, a, b), new, state), figures


@eqx.filter_jit
def validate(
    model: Any,
    loss: Callable[..., Any],
    metrics: dict[str, Callable[..., Any]],
    rows: Rows,
    key: PRNGKeyArray,
) -> dict[str, Array]:
    """Return the means over the rows of the loss, what it returns beside it, and the metrics."""
    model = eqx.nn.inference_mode(model)

    def figures(batch: Any) -> dict[str, Array]:
        value, aux = as_pair(loss(model, batch, key))
        more = {name: jnp.asarray(metric(model, batch)) for name, metric in metrics.items()}
        return {"loss": value, **aux, **more}

    if rows.size == rows.n:
        return figures(rows.arrays)

    def add(i: Int[Array, ""], sums: Any) -> Any:
        new = figures(rows.take(i * rows.size + jnp.arange(rows.size)))
        return jax.tree.map(lambda s, x: s + rows.size * x.astype(s.dtype), sums, new)

    shapes = eqx.filter_eval_shape(lambda: figures(rows.take(jnp.arange(rows.size))))
    sums = jax.tree.map(lambda x: jnp.zeros((), jnp.promote_types(x.dtype, float)), shapes)
    sums = jax.lax.fori_loop(0, rows.per_epoch, add, sums)
    if left := rows.n - rows.per_epoch * rows.size:
        last = figures(jax.tree.map(lambda x: x[-left:], rows.arrays))
        sums = jax.tree.map(lambda s, x: s + left * x.astype(s.dtype), sums, last)
    return jax.tree.map(lambda s: s / rows.n, sums)
