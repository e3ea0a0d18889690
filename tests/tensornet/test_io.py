"""Files: what is saved comes back exactly, and what is not a whole file of ours is refused."""

import json
import os
import stat
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensornet
from tensornet import container, io
from tensornet.io import FileFormatError, load, read_header, save
from tensornet.status import Status

ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["f4", "f8", "c8", "c16", "i1", "i4", "u8", "?", "f2"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
LEAVES = (
    ARRAYS
    | ARRAYS.map(jnp.asarray)
    | ARRAYS.filter(lambda x: x.shape == ()).map(lambda x: x[()])
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.booleans()
    | st.text(max_size=4)
    | st.none()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(a, b) -> bool:
    """Equal structures, types, dtypes and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        if type(x) is not type(y):
            return False
        if isinstance(x, (float, complex)) and not isinstance(x, np.generic):
            x, y = np.asarray(x), np.asarray(y)
        if isinstance(x, (jax.Array, np.ndarray, np.generic)):
            x, y = np.asarray(x), np.asarray(y)
            if (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes()):
                return False
        elif x != y:
            return False
    return True


def cp(dtype=jnp.float32) -> tensornet.CP:
    rng = np.random.default_rng(0)
    factors = tuple(jnp.asarray(rng.normal(size=(n, 2)), dtype) for n in (3, 4, 5))
    return tensornet.CP(jnp.asarray(rng.normal(size=2), dtype), factors)


def test_any_tree_comes_back_with_and_without_like(tmp_path):
    path = tmp_path / "tree"

    @settings(max_examples=60)
    @given(tree=TREES)
    def round_trip(tree):
        save(path, tree, kind="tree")
        assert same(load(path), tree)
        assert same(load(path, tree), tree)

    with jax.enable_x64(True):
        round_trip()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_dtypes_numpy_does_not_know(tmp_path, name):
    tree = {"jax": jnp.arange(6, dtype=name).reshape(2, 3), "scalar": jnp.asarray(1, name)}
    tree["numpy"] = np.asarray(tree["jax"])
    save(tmp_path / "a", tree)
    assert same(load(tmp_path / "a"), tree)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_give_the_same_numbers(tmp_path, implementation):
    keys = jax.random.split(jax.random.key(3, impl=implementation), 2)
    save(tmp_path / "a", keys)
    for read in (load(tmp_path / "a"), load(tmp_path / "a", keys)):
        assert read.dtype == keys.dtype
        np.testing.assert_array_equal(jax.random.bits(read[1]), jax.random.bits(keys[1]))


@pytest.mark.parametrize("name", ["CP", "Tucker", "TensorTrain", "TTMatrix", "TensorRing"])
def test_formats_load_without_a_like(tmp_path, dtype, name):
    def array(*shape):
        return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), dtype)

    tensor = {
        "CP": lambda: cp(dtype),
        "Tucker": lambda: tensornet.Tucker(array(2, 3), (array(4, 2), array(5, 3))),
        "TensorTrain": lambda: tensornet.TensorTrain((array(1, 3, 2), array(2, 4, 1))),
        "TTMatrix": lambda: tensornet.TTMatrix((array(1, 3, 2, 2), array(2, 4, 5, 1))),
        "TensorRing": lambda: tensornet.TensorRing((array(2, 3, 3), array(3, 4, 2))),
    }[name]()
    save(tmp_path / "a", tensor, hyperparameters={"note": "a test"})
    header = read_header(tmp_path / "a")
    assert (header.kind, header.version) == (name, 1)
    assert header.hyperparameters == {"note": "a test"}
    assert [leaf.shape for leaf in header.leaves] == [x.shape for x in jax.tree.leaves(tensor)]
    read = load(tmp_path / "a", kind=name)
    assert type(read) is type(tensor)
    assert same(read, tensor)
    assert same(read.to_dense(), tensor.to_dense())


def test_decomposition_keeps_its_status(tmp_path):
    whole = tensornet.Decomposition(
        cp(), jnp.asarray(0.5), Status.stagnated, jnp.ones(3), jnp.asarray(3)
    )
    save(tmp_path / "a", whole)
    read = load(tmp_path / "a")
    assert same(read, whole)
    assert read.status == Status.stagnated


def test_models_need_a_like_or_a_make(tmp_path):
    def build(width, seed):
        return eqx.nn.MLP(2, 1, width, 2, activation=jnp.tanh, key=jax.random.key(seed))

    model = build(8, 0)
    save(tmp_path / "a", model, kind="net", hyperparameters={"width": 8})
    assert same(
        eqx.filter(load(tmp_path / "a", build(8, 1)), eqx.is_array), eqx.filter(model, eqx.is_array)
    )
    read = load(
        tmp_path / "a",
        make=lambda header: eqx.filter_eval_shape(build, **header.hyperparameters, seed=0),
    )
    x = jnp.ones(2)
    np.testing.assert_array_equal(read(x), model(x))
    with pytest.raises(FileFormatError, match=r"expected a structure in the file, got none.*'net'"):
        load(tmp_path / "a")
    with pytest.raises(ValueError, match="like, make: expected at most one of them, got both"):
        load(tmp_path / "a", model, make=lambda _: model)


def test_like_of_another_layout_is_named(tmp_path):
    save(tmp_path / "a", {"w": jnp.ones((2, 3)), "n": 4})
    for like, expected, got in [
        ({"w": jnp.ones((2, 4)), "n": 0}, r"float32\[2, 4\] at \['w'\]", r"float32\[2, 3\] at"),
        ({"w": jnp.ones((2, 3), int), "n": 0}, r"int32\[2, 3\] at \['w'\]", r"float32\[2, 3\]"),
        ({"v": jnp.ones((2, 3)), "n": 0}, r".* at \['v'\]", r".* at \['w'\]"),
        ({"w": jnp.ones((2, 3)), "n": 0.0}, r"a Python float at \['n'\]", "a Python int at"),
        ({"n": 0}, "1 leaves", r"2; the first without a partner is float32\[2, 3\] at \['w'\]"),
        ({"w": jnp.ones((2, 3)), "n": 0, "z": 1}, "3 leaves", r"2; .*a Python int at \['z'\]"),
        ({"w": jax.random.key(0), "n": 0}, r"key<fry>\[\] at \['w'\]", r"float32\[2, 3\] at"),
    ]:
        with pytest.raises(FileFormatError, match=f"expected {expected}.*got {got}"):
            load(tmp_path / "a", like)
    like = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "n": 0}
    assert same(load(tmp_path / "a", like), {"w": jnp.ones((2, 3)), "n": 4})


def test_like_says_whether_jax_or_numpy(tmp_path):
    save(tmp_path / "a", np.arange(3, dtype=np.int32))
    assert isinstance(load(tmp_path / "a"), np.ndarray)
    assert isinstance(load(tmp_path / "a", jnp.zeros(3, jnp.int32)), jax.Array)


def test_64_bits_are_never_halved(tmp_path):
    with jax.enable_x64(True):
        save(tmp_path / "a", {"w": jnp.ones(2)})
    with jax.enable_x64(False):
        with pytest.raises(
            FileFormatError, match=r"64-bit types to be on.*float64\[2\] at \['w'\]"
        ):
            load(tmp_path / "a")
        with pytest.raises(FileFormatError, match=r"expected float32\[2\].*got float64\[2\]"):
            load(tmp_path / "a", {"w": jnp.ones(2)})


def test_other_kind_newer_version_missing_file(tmp_path):
    save(tmp_path / "a", cp(), version=3)
    with pytest.raises(FileFormatError, match="expected kind 'Tucker', got 'CP'"):
        load(tmp_path / "a", kind="Tucker", version=3)
    with pytest.raises(FileFormatError, match="expected version 2 or older of kind 'CP', got 3"):
        load(tmp_path / "a", version=2)
    assert same(load(tmp_path / "a", version=4), cp())
    with pytest.raises(FileNotFoundError, match=r"nothing: expected a file, got none"):
        load(tmp_path / "nothing")
    newer = (tmp_path / "a").read_bytes().replace(b"gauntax 1 ", b"gauntax 2 ", 1)
    (tmp_path / "b").write_bytes(newer)
    with pytest.raises(FileFormatError, match="expected file format 1 or older, got 2"):
        load(tmp_path / "b")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"\x93NUMPY", b"\n\n", b"gauntax"])
def test_foreign_file(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"expected a gauntax file.*got b'"):
        load(tmp_path / "a")
    container.write_container(tmp_path / "b", {"key": 1}, b"")
    with pytest.raises(FileFormatError, match="expected a saved tree, got a file without 'kind'"):
        load(tmp_path / "b")


def test_cut_at_every_byte_is_refused(tmp_path):
    tree = {"w": np.arange(2.0)}
    save(tmp_path / "a", tree, kind="x")
    whole = (tmp_path / "a").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            load(tmp_path / "a", tree)
    (tmp_path / "a").write_bytes(whole[:-7])
    size = read_header(tmp_path / "a") and json.loads(whole.split(b"\n")[1].split(b"\x93")[0])
    expected = size["payload_bytes"]
    with pytest.raises(
        FileFormatError, match=f"expected {expected} bytes.*got {expected - 7}.*cut"
    ):
        load(tmp_path / "a", tree)
    (tmp_path / "a").write_bytes(whole + b"x")
    with pytest.raises(FileFormatError, match=f"expected {expected} bytes.*got {expected + 1}"):
        load(tmp_path / "a", tree)


def test_every_flipped_bit_is_refused(tmp_path):
    tree = {"w": np.arange(2.0)}
    save(tmp_path / "a", tree, kind="x")
    whole = (tmp_path / "a").read_bytes()
    for byte in range(len(whole)):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << byte % 8
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(FileFormatError):
            load(tmp_path / "a", tree)


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    save(path, {"w": jnp.ones(2)})
    old = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(container.os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save(path, {"w": jnp.zeros(200)})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: full_disk(_))
        with pytest.raises(OSError, match="No space left"):
            save(path, {"w": jnp.zeros(200)})
    with pytest.raises(
        TypeError, match=r"hyperparameters: expected JSON-able values, got .*ndarray"
    ):
        save(path, {"w": jnp.zeros(2)}, hyperparameters={"x": np.ones(2)})
    with pytest.raises(TypeError, match=r"\['w'\]: expected numbers, got an array of dtype object"):
        save(path, {"w": np.array([None])})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_permissions_are_those_of_a_plain_file(tmp_path):
    save(tmp_path / "a", 1)
    (tmp_path / "b").write_bytes(b"")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in "ab"]
    assert modes[0] == modes[1]


def test_only_this_librarys_classes_are_rebuilt(tmp_path):
    """A file cannot make the reader import or build anything else, even with good checksums."""
    save(tmp_path / "a", cp())
    raw, payload = container.read_container(tmp_path / "a")
    for name in ["os:system", "builtins:eval", "tensornet.nowhere:CP", "tensornet:Nothing"]:
        raw["structure"]["module"] = name
        container.write_container(tmp_path / "b", raw, payload)
        with pytest.raises(
            FileFormatError, match=f"expected a class of this gauntax, got '{name}'"
        ):
            load(tmp_path / "b")
    raw["structure"] = {"module": "tensornet:CP", "fields": {"weights": {"leaf": 0}}}
    container.write_container(tmp_path / "b", raw, payload)
    with pytest.raises(
        FileFormatError, match=r"expected fields .*factors.* of CP, got \['weights'\]"
    ):
        load(tmp_path / "b")
    # A class of ours that is not a module is not built either.
    raw["structure"] = {"module": "tensornet.cache:Path", "fields": {}}
    container.write_container(tmp_path / "b", raw, payload)
    with pytest.raises(FileFormatError, match="expected a class of this gauntax"):
        load(tmp_path / "b")
    raw["structure"] = {"module": "tensornet:Status", "fields": {}}
    container.write_container(tmp_path / "b", raw, payload)
    with pytest.raises(FileFormatError, match="expected a module, got 'tensornet:Status'"):
        load(tmp_path / "b")


def test_gauntax_version_is_kept(tmp_path):
    save(tmp_path / "a", 1)
    assert read_header(tmp_path / "a").gauntax_version == io._library_version()
