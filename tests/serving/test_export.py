"""Exported models serve named signatures, without keras_sip's Python code."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.tools import saved_model_cli

import keras_sip
import problems
from keras_sip.files import OutputError, verify_checksums

POISSON = keras_sip.Poisson((8, 8))


def poisson_model(solver=None):
    network = keras_sip.UNet((8, 8, 1), 1, levels=2, filters=4, seed=0)
    return keras_sip.SIPModel(network, POISSON, solver or keras_sip.LevenbergMarquardt(cg_steps=4))


def sensors_model():
    inputs = keras.Input((4,))
    network = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    return keras_sip.SIPModel(network, problems.MaskedSensors(), keras_sip.GaussNewton())


class Exported:
    """A model, the folder it was exported to, and the signatures loaded back."""

    def __init__(self, model, path, **options):
        self.model, self.path = model, path
        model.export(path, **options)
        self.signatures = tf.saved_model.load(str(path)).signatures


@pytest.fixture(scope="module")
def poisson(tmp_path_factory):
    return Exported(poisson_model(), tmp_path_factory.mktemp("export") / "poisson", title="Poisson, small")


@pytest.fixture(scope="module")
def sensors(tmp_path_factory):
    """float64, with a context, compiled with XLA."""
    return Exported(sensors_model(), tmp_path_factory.mktemp("export") / "sensors", jit_compile=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_infer_and_simulate_equal_the_model_for_any_batch_size(poisson, batch):
    sample = POISSON.sample(batch, (0, 0))
    answer = poisson.signatures["infer"](y=sample["y"])
    # Batch norm as part of the weights: other roundings of float32.
    np.testing.assert_allclose(answer["x"], poisson.model.predict(sample["y"], verbose=0), rtol=1e-5, atol=1e-6)
    assert answer["valid"].numpy().all()
    y = poisson.signatures["simulate"](x=sample["x"])["y"]
    np.testing.assert_allclose(y, sample["y"], rtol=1e-5, atol=1e-4)


def test_context_entries_are_named_inputs_and_float64_stays(sensors):
    sample = sensors.model.simulator.sample(5, (0, 0))
    y = sensors.signatures["simulate"](x=sample["x"], context_mask=sample["context"]["mask"])["y"]
    np.testing.assert_allclose(y, sample["y"], rtol=1e-12)
    x = sensors.signatures["infer"](y=sample["y"], context_mask=sample["context"]["mask"])["x"]
    assert x.dtype == tf.float64
    expected = sensors.model.predict({"y": sample["y"], "context": sample["context"]}, verbose=0)
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_refine_takes_any_number_of_steps_and_never_raises_the_objective(poisson):
    y_target = POISSON.sample(6, (0, 1))["y"]
    x = poisson.model.predict(y_target, verbose=0)
    objectives = [POISSON.objective(POISSON(x), y_target).numpy()]
    for steps in (0, 1, 4):
        refined = poisson.signatures["refine"](y=y_target, steps=tf.constant(steps))
        again = POISSON.objective(POISSON(refined["x"]), y_target).numpy()
        # float32 sums of squares of small differences.
        np.testing.assert_allclose(refined["objective"], again, rtol=1e-3)
        objectives.append(refined["objective"].numpy())
    np.testing.assert_allclose(objectives[1], objectives[0], rtol=1e-4)
    assert np.all(objectives[2] < objectives[1]) and np.all(objectives[3] < objectives[2])
    expected = poisson.model.refine(y_target, max_steps=4).objective
    # Four steps pass on the rounding of another graph, 1e-3 of an objective; processors differ, 1.3e-2 was seen.
    np.testing.assert_allclose(objectives[3], expected, rtol=0.1)


def test_refine_takes_steps_of_each_example_and_a_negative_one_is_not_valid(poisson):
    y_target = POISSON.sample(4, (0, 5))["y"]
    steps = [0, 3, -1, 1]
    together = poisson.signatures["refine"](y=y_target, steps=tf.constant(steps))
    np.testing.assert_array_equal(together["valid"], [True, True, False, True])
    assert np.isnan(together["x"][2]).all() and np.isnan(together["objective"][2])
    for example in (0, 1, 3):
        alone = poisson.signatures["refine"](y=y_target, steps=tf.constant(steps[example]))
        np.testing.assert_array_equal(together["x"][example], alone["x"][example])
    # Beyond what int32 holds it is as many as that.
    large = tf.constant([0, 3, -(2**40), 1], tf.int64)
    for key, value in poisson.signatures["refine_int64"](y=y_target, steps=large).items():
        np.testing.assert_array_equal(value, together[key])
    with pytest.raises(tf.errors.InvalidArgumentError):
        poisson.signatures["refine"](y=y_target, steps=tf.constant([1, 2, 3]))


def test_refine_of_a_compiled_export_solves_float64_problems(sensors):
    sample = sensors.model.simulator.sample(5, (0, 0))
    inputs = {"y": sample["y"], "context_mask": sample["context"]["mask"]}
    objective = sensors.signatures["refine"](steps=tf.constant(8), **inputs)["objective"]
    assert np.max(objective) < 1e-20


def test_a_bad_example_is_flagged_and_leaves_the_others_as_they_are(poisson):
    y = POISSON.sample(4, (0, 2))["y"].numpy()
    spoilt = y.copy()
    spoilt[2, 3, 3, 0] = np.nan
    steps = {"infer": {}, "refine": {"steps": tf.constant(2)}}
    for name, others in steps.items():
        good = poisson.signatures[name](y=tf.constant(y), **others)
        answer = poisson.signatures[name](y=tf.constant(spoilt), **others)
        np.testing.assert_array_equal(answer["valid"], [True, True, False, True])
        assert np.isnan(answer["x"][2]).all()
        for example in (0, 1, 3):
            np.testing.assert_array_equal(answer["x"][example], good["x"][example])


@pytest.mark.parametrize("which", ["poisson", "sensors"], ids=["kernels", "xla"])
def test_an_empty_batch_answers_empty(which, request):
    served = request.getfixturevalue(which)
    for name, signature in served.signatures.items():
        _, specs = signature.structured_input_signature
        steps = {"steps": tf.constant(2, specs["steps"].dtype if "steps" in specs else "int32")}
        inputs = {key: tf.zeros((0, *spec.shape[1:]), spec.dtype) for key, spec in specs.items() if key not in steps}
        answer = signature(**inputs, **(steps if "steps" in specs else {}))
        for key, value in answer.items():
            assert value.shape == (0, *signature.structured_outputs[key].shape[1:]), (name, key)


def test_an_input_of_wrong_shape_is_refused_with_both_shapes(poisson):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2,7,8,1\] is not compatible with .*\[\?,8,8,1\]"):
        poisson.signatures["infer"](y=tf.zeros((2, 7, 8, 1)))


def test_each_graph_is_stored_once(poisson):
    graph = saved_model_pb2.SavedModel()
    graph.ParseFromString((poisson.path / "saved_model.pb").read_bytes())
    bodies = [f for f in graph.meta_graphs[0].graph_def.library.function if "endpoint" in f.signature.name]
    assert len(bodies) == len(("infer", "simulate", "refine", "uncertainty"))


def test_card_manifest_and_checksums_lie_beside(poisson):
    verify_checksums(poisson.path)
    manifest = json.loads((poisson.path / "keras_sip.json").read_text())
    assert manifest["keras_sip"] == keras_sip.__version__
    assert manifest["signatures"]["refine"]["inputs"]["steps"] == {"shape": None, "dtype": "int32"}
    assert set(manifest["signatures"]["refine"]["outputs"]) == {"x", "objective", "valid", "in_range"}
    card = (poisson.path / "README.md").read_text()
    assert card.startswith("# Poisson, small") and 'served["infer"](y=y)' in card
    assert "| `simulate` | `x` float32 `[batch, 8, 8, 1]` | `y` float32" in card


def test_saved_model_cli_lists_the_signatures(poisson, capsys):
    # TensorFlow's command, in this process: a process of its own would be a start of TensorFlow.
    with flagsaver.flagsaver():
        flags.FLAGS(["saved_model_cli", "--dir", str(poisson.path), "--all"])
        saved_model_cli.show()
    shown = capsys.readouterr().out
    for name in ("infer", "simulate", "refine"):
        assert f"signature_def['{name}']" in shown
    assert "outputs['objective']" in shown
    assert "output_0" not in shown


def test_a_process_without_keras_sip_loads_and_runs_it(poisson, tmp_path):
    y = POISSON.sample(3, (0, 3))["y"].numpy()
    np.save(tmp_path / "y.npy", y)
    program = (
        "import sys; sys.modules['keras_sip'] = None\n"
        "import numpy as np, tensorflow as tf\n"
        f"served = tf.saved_model.load({str(poisson.path)!r}).signatures\n"
        "x = served['infer'](y=tf.constant(np.load('y.npy')))['x']\n"
        "np.save('x.npy', x)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), poisson.model.predict(y, verbose=0), rtol=1e-5, atol=1e-6)


class Gains(keras_sip.Simulator):
    """Needs a context and draws no samples; says its entries, or does not."""

    x_shape, y_shape, prefers_xla = (2,), (2,), False

    def forward(self, x, context=None):
        return context["gain"] * x


def gains_model(simulator):
    inputs = keras.Input((2,))
    return keras_sip.SIPModel(keras.Model(inputs, keras.layers.Dense(2)(inputs)), simulator, keras_sip.GaussNewton())


def test_a_simulator_without_samples_exports_where_it_says_its_context(tmp_path):
    class Declared(Gains):
        context_shape = {"gain": (2,)}

    served = Exported(gains_model(Declared()), tmp_path / "model").signatures
    y = served["simulate"](x=tf.constant([[1.0, 2.0]]), context_gain=tf.constant([[3.0, 4.0]]))["y"]
    np.testing.assert_array_equal(y, [[3.0, 8.0]])
    with pytest.raises(ValueError, match=r"Expected a simulator that(?s:.*)context_shape(?s:.*)Define `context_shape`"):
        gains_model(Gains()).export(tmp_path / "other")


def test_a_model_without_a_solver_has_no_refine(tmp_path):
    network = keras_sip.UNet((8, 8, 1), 1, levels=1, filters=2, seed=0)
    exported = Exported(keras_sip.SIPModel(network, POISSON, method="adjoint"), tmp_path / "model")
    assert set(exported.signatures) >= {"infer", "simulate"} and "refine" not in exported.signatures


def test_an_existing_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(FileExistsError, match="does not exist yet"):
        poisson_model().export(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="Expected to be able to write"):
        poisson_model().export(tmp_path / "file" / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def broken(*arguments):
        # The graph has been written by then.
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("keras_sip.serving.export.manifest", broken)
    with pytest.raises(RuntimeError, match="on fire"):
        poisson_model().export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="'tf_saved_model', 'onnx'"):
        poisson_model().export("nowhere", format="pickle")


def test_observations_unlike_those_of_the_training_are_flagged(poisson):
    y = POISSON.sample(64, (0, 6))["y"]
    infer = poisson.signatures["infer"]
    # Twice as far as the farthest of 256 that were not fitted to: none of 64 more.
    assert infer(y=y)["in_range"].numpy().all()
    noise = tf.random.stateless_normal(y.shape, (0, 0)) * tf.math.reduce_std(y)
    spoilt = tf.concat([10 * y[:2], noise[:2], y[:2] * np.nan], axis=0)
    answer = infer(y=spoilt)
    assert not answer["in_range"].numpy().any()
    np.testing.assert_array_equal(answer["valid"], [True] * 4 + [False] * 2)


@pytest.mark.parametrize("make", [poisson_model, sensors_model])
def test_onnx_runtime_answers_as_the_model_does(make, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    model = make()
    model.export(tmp_path / "model.onnx", format="onnx")
    sample = model.simulator.sample(5, (0, 4))
    inputs = {"y": sample["y"].numpy()}
    inputs |= {f"context_{name}": value.numpy() for name, value in sample.get("context", {}).items()}
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    outputs = [output.name for output in session.get_outputs()]
    answer = dict(zip(outputs, session.run(None, inputs), strict=True))
    observation = {"y": sample["y"], "context": sample["context"]} if "context" in sample else sample["y"]
    expected = model.predict(observation, verbose=0)
    assert np.max(np.abs(answer["x"] - expected)) <= 1e-5 * np.max(np.abs(expected))
    assert answer["valid"].all()


def test_without_the_packages_onnx_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("keras_sip.serving.export.ONNX_PACKAGES", ("no_such_package",))
    with pytest.raises(ImportError, match=r'pip install "\.\[onnx\]"'):
        poisson_model().export(tmp_path / "model.onnx", format="onnx")
