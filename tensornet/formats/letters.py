"""Subscripts for contractions over many modes."""

import string


def letters(n: int, *, skip: str = "") -> str:
    """Return `n` distinct einsum subscripts, none of those in `skip`.

    Raises:
        ValueError: more than einsum's 52 letters are asked for.
    """
    free = [c for c in string.ascii_letters if c not in skip]
    if n > len(free):
        raise ValueError(f"expected at most {len(free)} modes, got {n}")
    return "".join(free[:n])
