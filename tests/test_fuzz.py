"""Damaged and absurd inputs: every loader and the command line answer with a message, never with half of something."""

import functools
import hashlib
import json
import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_sip
import shipped
from damage import DAMAGE, damaged
from keras_sip import __main__ as command_line
from keras_sip import checkpoints
from keras_sip.files import DamagedFileError, verify_checksums
from keras_sip.serving import pretrained

# Derandomised: the same cases on every machine. The folder is written anew in each case.
fuzz = functools.partial(settings, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def model():
    return shipped.make_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A folder with the model "tiny", a checkpoint of it, and observations."""
    folder = tmp_path_factory.mktemp("fuzz")
    shipped.write(folder / "tiny", model)
    (folder / "checkpoints").mkdir()
    checkpoints.Checkpoints(folder / "checkpoints").save(model, 7)
    observations = shipped.SIMULATOR.sample(2, (0, 0))["y"].numpy()
    np.save(folder / "y.npy", observations)
    np.savez(folder / "y.npz", y=observations, noise=np.ones(2, "float32"))
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """{path: bytes} of all files in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def infer(folder, source, *more):
    """The exit code of the command, and its answers or None."""
    (folder / "x.npy").unlink(missing_ok=True)
    words = ["infer", "tiny", "--input", folder / source, "--output", folder / "x.npy", "--models", folder, *more]
    code = command_line.main([str(word) for word in words])
    return code, np.load(folder / "x.npy") if (folder / "x.npy").exists() else None


def test_damaged_checkpoints_are_always_found(folder, whole):
    path = folder / "checkpoints" / "step_000000007.checkpoint"

    @fuzz(max_examples=200)
    @given(DAMAGE)
    def check(damage):
        content = damaged(whole[path], damage)
        path.write_bytes(content)
        if content != whole[path]:
            with pytest.raises(DamagedFileError, match=r"(?s)^Expected a whole checkpoint.*\nReceived .*\n"):
                checkpoints._read(path, 7)

    check()
    path.write_bytes(whole[path])
    assert len(checkpoints._read(path, 7)[0]) > 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "a"]), inner),
    max_leaves=6,
)


def test_checkpoints_with_a_right_checksum_and_wrong_content_are_found(folder, whole):
    path = folder / "checkpoints" / "step_000000007.checkpoint"

    @fuzz(max_examples=100)
    @given(st.fixed_dictionaries({}, optional={"step": st.just(7) | JSON, "state": JSON, "metrics": JSON}) | JSON)
    def check(head):
        body = json.dumps(head).encode() + b"\n" + bytes(40)
        path.write_bytes(checkpoints.MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with pytest.raises(DamagedFileError, match="content that is none"):
            checkpoints._read(path, 7)

    check()
    path.write_bytes(whole[path])


def test_damaged_models_are_found_before_they_are_read(folder, whole):
    paths = sorted(path for path in whole if path.is_relative_to(folder / "tiny"))

    @fuzz(max_examples=150)
    @given(st.sampled_from(paths), DAMAGE)
    def check(path, damage):
        content = damaged(whole[path], damage)
        path.write_bytes(content)
        try:
            if content != whole[path]:
                with pytest.raises(DamagedFileError, match=r"(?s)^Expected .*\nReceived .*\n"):
                    keras_sip.load_pretrained("tiny", folder)
        finally:
            path.write_bytes(whole[path])

    check()
    verify_checksums(folder / "tiny")


@fuzz(max_examples=60)
@given(JSON)
def test_manifests_of_any_json_are_refused_in_three_parts(tmp_path_factory, description):
    path = tmp_path_factory.mktemp("manifest")
    (path / pretrained.MANIFEST).write_text(json.dumps(description))
    with pytest.raises(DamagedFileError, match=r"(?s)^Expected .*\nReceived "):
        pretrained.read_manifest(path)


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
def test_damaged_observations_are_refused_or_whole(folder, whole, name):
    @fuzz(max_examples=100)
    @given(DAMAGE)
    def check(damage):
        path = folder / f"damaged_{name}"
        path.write_bytes(damaged(whole[folder / name], damage))
        try:
            observation = command_line.read_observation(path)
        except ValueError as error:
            assert str(error).startswith("Expected observations in ") and "\nReceived " in str(error)
        else:
            # A flipped bit of a number is another number: no format can tell.
            y = observation["y"] if isinstance(observation, dict) else observation
            assert isinstance(y, np.ndarray)

    check()


def test_arrays_of_any_type_and_shape_get_answers_or_a_message(folder, model, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "load_pretrained", lambda name, folder, trust: model)
    types = ["float32", "float64", "float16", "int64", "bool", "complex64", "U3", "S2", "M8[s]", "V4"]
    sizes = st.lists(st.sampled_from([0, 1, 2, 8]), max_size=5)

    @fuzz(max_examples=120)
    @given(st.sampled_from(types), sizes | st.just([2, 8, 8, 1]), st.sampled_from([0.0, 1.0, np.inf, np.nan]))
    def check(dtype, shape, value):
        array = np.zeros(shape, dtype)
        if array.dtype.kind in "fc":
            array += value
        np.save(folder / "typed.npy", array)
        code, x = infer(folder, "typed.npy")
        error = capsys.readouterr().err
        if code == 0:
            assert x.shape == array.shape and np.isfinite(x).all()
        else:
            assert code == 2 and x is None and error.startswith("Expected ") and "\nReceived " in error

    check()


WORDS = st.text(string.ascii_letters + string.digits + "-./ \x00é", max_size=12)
KNOWN_WORDS = ("list", "infer", "tiny", "--input", "y.npy", "--output", "--refine", "--models", ".")


def test_any_command_line_ends_with_an_exit_code_and_no_output(folder, model, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "load_pretrained", lambda name, folder, trust: model)
    monkeypatch.chdir(folder)

    @fuzz(max_examples=100)
    @given(st.lists(WORDS | st.sampled_from(KNOWN_WORDS), max_size=9))
    def check(words):
        before = sorted(folder.rglob("*"))
        try:
            code = command_line.main(words)
        except SystemExit as exit_:
            code = exit_.code
        error = capsys.readouterr().err
        if code != 0:
            assert code == 2 and ("error: " in error or error.startswith("Expected "))
            assert sorted(folder.rglob("*")) == before

    check()
