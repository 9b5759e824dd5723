"""A SIPModel as a SavedModel that serves with TensorFlow alone, or as an ONNX file."""

import contextlib
import importlib
import importlib.util
import json
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_sip._version import __version__
from keras_sip.data import without_bad_examples
from keras_sip.errors import check_choice, three_part
from keras_sip.files import new_folder, write_atomically, write_checksums, writing
from keras_sip.networks.precision import computes_below_float32, with_precision
from keras_sip.ops import batched
from keras_sip.serving import card, litert
from keras_sip.serving.inference_network import inference_network
from keras_sip.serving.observation_range import observation_range
from keras_sip.serving.signing import private_key, sign
from keras_sip.simulators.base import join_observation, split_observation
from keras_sip.solvers.maximum_a_posteriori import posterior_solver
from keras_sip.training.network import ScaledNetwork
from keras_sip.untrusted import code, one_line

# Of the search for the most probable x, as in `SIPModel.posterior`.
POSTERIOR_STEPS = 10
FORMATS = ("tf_saved_model", "onnx", "litert")
MANIFEST = "keras_sip.json"
ONNX_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")

_USE = """```python
import tensorflow as tf

served = tf.saved_model.load({name}).signatures
answer = served["infer"]({arguments})
x, valid = answer["x"], answer["valid"]
```

Signatures (the batch size is free):

| signature | inputs | outputs |
|---|---|---|
{signatures}

An input of another shape or dtype raises an error that names both. A non-finite example is answered with NaN and
`valid` false. `in_range` is false for observations that are nothing like those of the training.
"""


def export_saved_model(
    model, path, *, jit_compile=False, title=None, facts=None, measured=None, observations=None, sign_with=None
):
    """Write `model` as a SavedModel with named signatures; loading it needs TensorFlow and nothing else.

    - `infer(y, context_NAME...) -> x, valid, in_range`: the network's answer, in physical units;
    - `simulate(x, context_NAME...) -> y, valid`: y = P(x);
    - `refine(y, context_NAME..., steps) -> x, objective, valid, in_range`: the answer improved by at most `steps` steps
      of the model's solver, no example's objective above that of `infer`; only where the model has a solver. `steps` is
      int32, a scalar or `[B]`, a number for each example; where it is negative, the answer is NaN and not valid.
      `refine_int64` is the same with int64;
    - `uncertainty(y, context_NAME...) -> x, stddev, valid, in_range`: mean and standard deviation of x given y, as of
      `SIPModel.posterior`; only where there is a prior: the solver's, or one measured on samples.

    The batch size is free; of an empty batch the answer is empty. `valid` `[B]` is false, and the answer NaN, for
    examples with a non-finite entry; the others are not affected. `in_range` `[B]` is false where y is far from
    all observations of a sample (`keras_sip.serving.observation_range`); without samples there is no such output.

    Batch norm is part of the weights of the layer before it, so that answers differ from the model's by rounding.
    Beside the graph: `README.md` (model card), `keras_sip.json` (version, shapes), `SHA256SUMS`. The folder appears
    whole or not at all. The custom gradient of SIP training is not part of it.

    Args:
        model: A `SIPModel`; a simulator that needs a context says its entries by `sample` or `context_shape`.
        path: A folder that does not exist yet.
        jit_compile: Compile the signatures with XLA when they are called, once for each batch size.
        title, facts, measured: For the card, as in `keras_sip.serving.card.model_card`.
        observations: y `[N, *y_shape]` like those of the training, for `in_range`; by default the simulator's samples.
        sign_with: An Ed25519 private key to sign the folder with (`keras_sip.serving.signing.sign`): a PEM file, or
            `cryptography`'s object.

    Raises:
        FileExistsError: The folder exists.
        OutputError: It cannot be written.
    """
    key = None if sign_with is None else private_key(sign_with)
    with new_folder(path) as folder:
        signatures = _write_saved_model(model, folder, jit_compile, observations)
        use = _USE.format(
            name=json.dumps(pathlib.Path(path).name),
            arguments=", ".join(f"{name}={name}" for name in map(one_line, signatures["infer"]["inputs"])),
            signatures="\n".join(_signature_row(name, entry) for name, entry in signatures.items()),
        )
        text = card.model_card(model, title=title or model.name, use=use, facts=facts, measured=measured)
        write_atomically(folder / card.CARD, text.encode())
        write_atomically(folder / MANIFEST, manifest(model, signatures).encode())
        write_checksums(folder)
        if key is not None:
            sign(folder, key)


def export_onnx(model, path):
    """Write the answer of `model` as ONNX, through Keras' own export: inputs y and context_NAME, outputs x and valid.

    Where `valid` is false, because the example has a non-finite entry, its x has no meaning. A network that computes in
    bfloat16 or float16 is written in float32: ONNX's runtimes lack such convolutions on processors.

    Args:
        model: As for `export_saved_model`.
        path: A file that does not exist yet.

    Raises:
        ImportError: The extra `onnx` is not installed.
        FileExistsError: The file exists.
        ValueError: The graph holds operations that ONNX lacks, or tensors made outside of it.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            three_part(
                "the packages onnx, onnxruntime and tf2onnx, to write ONNX",
                f"a Python environment without {', '.join(missing)}",
                'Install them from a checkout of keras_sip: pip install ".[onnx]"',
            )
        )
    path = _new_file(path)
    specs = {"y": tf.TensorSpec((None, *model.simulator.y_shape), model.simulator.dtype, name="y")}
    specs |= {spec.name: spec for spec in _context_spec(model.simulator).values()}
    answer = _Answer(model)
    answer({name: tf.zeros((1, *spec.shape[1:]), spec.dtype) for name, spec in specs.items()})
    temporary = path.with_name(f".{path.name}.part")
    try:
        keras.Model.export(answer, temporary, format="onnx", input_signature=[specs], verbose=False)
        _check_onnx(temporary, specs)
        with writing(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def export_litert(model, path):
    """Write the signatures `infer`, `simulate` and `refine` for LiteRT, formerly TensorFlow Lite: one `.tflite` file.

    They are those of `export_saved_model`, in LiteRT's own operations; `steps` is int32 `[B]`, and `refine` gives no
    `objective`.

    Args:
        model: As for `export_saved_model`.
        path: A file that does not exist yet.

    Raises:
        FileExistsError: The file exists.
        ValueError: The graph holds operations that LiteRT lacks.
    """
    path = _new_file(path)
    with tempfile.TemporaryDirectory() as folder:
        export_saved_model(model, pathlib.Path(folder) / "model")
        litert.write(pathlib.Path(folder) / "model", path)


def export(model, path, *, format="tf_saved_model", **options):
    """`export_saved_model`, `export_onnx` or `export_litert`, by the name of the format."""
    exporters = dict(zip(FORMATS, (export_saved_model, export_onnx, export_litert), strict=True))
    exporters[check_choice("format", format, FORMATS)](model, path, **options)


def manifest(model, signatures):
    """What a loader checks before it trusts a folder, as JSON."""
    simulator = model.simulator
    description = {
        "keras_sip": __version__,
        "versions": card.versions(),
        "simulator": repr(simulator),
        "dtype": simulator.dtype,
        "x_shape": list(simulator.x_shape),
        "y_shape": list(simulator.y_shape),
        "signatures": signatures,
    }
    return json.dumps(description, indent=2) + "\n"


@keras.saving.register_keras_serializable(package="keras_sip")
class _Answer(keras.Model):
    """x and valid of a flat dict of inputs."""

    def __init__(self, model):
        super().__init__(autocast=False, name="answer")
        self.model = model
        network = model.network
        if computes_below_float32(network):
            network = with_precision(network, "float32")
        self.scaled_network = model.scaled_network.with_network(network)
        self.built = True

    def call(self, inputs):
        context = {name.removeprefix("context_"): value for name, value in inputs.items() if name != "y"}
        observation, good = without_bad_examples(join_observation(inputs["y"], context or None))
        z, _ = self.scaled_network(observation, training=False)
        x = self.model.physics.to_physical(z)
        # ONNX selects by products with 0 and 1, in which a NaN to fill in would reach every example.
        return {"x": x, "valid": good & batched.all_finite(x)}


class _Endpoints:
    """What the signatures compute, with the network as it answers."""

    def __init__(self, model, jit_compile, observations):
        self.simulator, self.physics = model.simulator, model.physics
        network = inference_network(model.network, resize=not jit_compile)
        self.scaled_network = ScaledNetwork(network, model.physics, model.input_scale)
        self.range = observation_range(model.simulator, observations)

    def infer(self, y, context):
        z, good, _ = self._network(y, context)
        return self._with_range(y, _flagged("x", self.physics.to_physical(z), good))

    def simulate(self, x, context):
        (x, context), good = without_bad_examples((x, context or {}))
        return _flagged("y", self.simulator.forward(x, context or None), good)

    def refine(self, y, context, steps):
        z, good, (y_target, context) = self._network(y, context)
        good &= steps >= 0
        result = self.physics.refine(z, y_target, context, tf.maximum(steps, 0))
        answer = _flagged("x", self.physics.to_physical(result.x), good & batched.all_finite(result.y))
        nan = tf.constant(np.nan, result.objective.dtype)
        return self._with_range(y, {**answer, "objective": tf.where(answer["valid"], result.objective, nan)})

    def uncertainty(self, y, context):
        z, good, (y_target, context) = self._network(y, context)
        posterior = self.physics.posterior(z, y_target, context, POSTERIOR_STEPS)
        deviation = posterior.stddev() + tf.zeros_like(z)
        answer = _flagged("x", posterior.mean(), good & batched.all_finite(deviation))
        answer |= {"stddev": _flagged("stddev", deviation, answer["valid"])["stddev"]}
        return self._with_range(y, answer)

    def _network(self, y, context):
        """(z, which examples are finite, (y, context))."""
        observation, good = without_bad_examples(join_observation(y, context))
        z, _ = self.scaled_network(observation, training=False)
        return z, good, split_observation(observation)

    def _with_range(self, y, answer):
        return answer if self.range is None else {**answer, "in_range": self.range(y)}


def _gives_error_bars(model):
    """Whether a prior is given, or can be measured on samples; and the objective is a half sum of squares."""
    try:
        posterior_solver(model.solver).check(model.simulator)
    except TypeError:
        return False
    return True


def _flagged(name, value, good):
    valid = good & batched.all_finite(value)
    nothing = tf.fill(tf.shape(value), tf.constant(np.nan, value.dtype))
    return {name: batched.where_example(valid, value, nothing), "valid": valid}


def _write_saved_model(model, folder, jit_compile, observations):
    """Write the graph; returns {signature: {"inputs", "outputs": {name: {"shape", "dtype"}}}}."""
    simulator = model.simulator
    y = tf.TensorSpec((None, *simulator.y_shape), simulator.dtype, name="y")
    x = tf.TensorSpec((None, *simulator.x_shape), simulator.dtype, name="x")
    context = _context_spec(simulator)
    compute = _Endpoints(model, jit_compile, observations)
    endpoints = {"infer": (compute.infer, (y,)), "simulate": (compute.simulate, (x,))}
    if model.solver is not None:
        endpoints["refine"] = (compute.refine, (y, _steps_spec(tf.int32)))
    if _gives_error_bars(model):
        endpoints["uncertainty"] = (compute.uncertainty, (y,))
    served, inputs = {}, {}
    for name, (function, specs) in endpoints.items():
        with _context_said(simulator):
            served[name] = _traced(function, specs, context, jit_compile)
        inputs[name] = (*specs, *context.values())
    if "refine" in served:
        inputs["refine_int64"] = (y, _steps_spec(tf.int64), *context.values())
        served["refine_int64"] = _taking_int64(served["refine"], inputs["refine_int64"])
    signatures = {
        name: {
            "inputs": {spec.name: _description(spec) for spec in inputs[name]},
            "outputs": {key: _description(spec) for key, spec in trace.structured_outputs.items()},
        }
        for name, trace in served.items()
    }
    module = tf.Module()
    module.state = [variable for trace in served.values() for variable in trace.graph.variables]
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    # Traces, not functions: TensorFlow traces a function anew while it saves, and then stores both graphs.
    tf.saved_model.save(module, folder, signatures={**served, default: served["infer"]})
    return signatures


def _traced(function, specs, context_spec, jit_compile):
    """The graph of `function(value, context, *others)` with an input for each tensor; `others` are of any rank."""

    given = [specs[0], *context_spec.values(), *specs[1:]]
    batched_values = 1 + len(context_spec)

    @tf.function(input_signature=given, jit_compile=jit_compile or None, autograph=False)
    def endpoint(value, *others):
        values = (value, *others)
        examples = tf.shape(value)[0]
        values = [_checked(*pair) for pair in zip(values[:batched_values], given[:batched_values], strict=True)]
        values += [tf.broadcast_to(each, [examples]) for each in others[batched_values - 1 :]]
        value, *entries = (_at_least_one(entry, examples) for entry in values)
        context = dict(zip(context_spec, entries[: len(context_spec)], strict=True)) or None
        answer = function(value, context, *entries[len(context_spec) :])
        return {name: entry[:examples] for name, entry in answer.items()}

    return endpoint.get_concrete_function()


def _steps_spec(dtype):
    # Of any rank: a scalar, as clients of earlier exports send it, or a number for each example.
    return tf.TensorSpec(None, dtype, name="steps")


def _taking_int64(refine, specs):
    """The same graph behind steps in int64, which clients without an int32 send."""
    y, steps, *context = specs

    @tf.function(input_signature=[y, *context, steps], autograph=False)
    def with_int64(*values):
        # A number of steps that int32 has none of is as good as its largest, and a negative one stays negative.
        narrow = tf.cast(tf.clip_by_value(values[-1], -1, tf.int32.max), tf.int32)
        return refine(*values[:-1], narrow)

    return with_int64.get_concrete_function()


@contextlib.contextmanager
def _context_said(simulator):
    """What a user's `forward` raises without the context that it looks for, told in three parts."""
    try:
        yield
    except Exception as error:
        if simulator.context_spec() is not None:
            raise
        raise ValueError(
            three_part(
                "a simulator that runs without a context, or says the entries of its context",
                f"neither `sample` nor `context_shape`, and without a context {type(error).__name__}: {error}",
                'Define `context_shape`, such as {"mask": (16,)}: the shape of each entry without the batch axis.',
            )
        ) from error


def _checked(value, spec):
    """`value`, with an error that names both shapes where a caller of the SavedModel passes another one.

    Callers of a SavedModel are not checked, and a check of a shape that the graph takes for granted is optimised away.
    """
    unknown = tf.compat.v1.placeholder_with_default(value, [None] * spec.shape.rank)
    return tf.ensure_shape(unknown, spec.shape, name=f"{spec.name}_must_have_the_shape_of_the_signature")


def _at_least_one(value, examples):
    """`value`, with an example of zeros where there are none: TensorFlow's convolutions fail on an empty batch."""
    missing = tf.maximum(1 - examples, 0)
    return tf.concat([value, tf.zeros([missing, *value.shape[1:]], value.dtype)], axis=0)


def _context_spec(simulator):
    """Specs of the context's entries with a free batch size; {} without context, or where nobody knows."""
    entries = simulator.context_spec() or {}
    return {name: tf.TensorSpec(spec.shape, spec.dtype, name=f"context_{name}") for name, spec in entries.items()}


def _description(spec):
    """For JSON, where a size of null is free, and a shape of null is [] or [batch]."""
    return {"shape": None if spec.shape.rank is None else list(spec.shape), "dtype": spec.dtype.name}


def _signature_row(name, signature):
    inputs, outputs = (", ".join(_entry(*item) for item in part.items()) for part in signature.values())
    return f"| `{name}` | {inputs} | {outputs} |"


def _entry(name, description):
    if description["shape"] is None:
        return f"{code(name)} {description['dtype']} `[]` or `[batch]`"
    shape = ", ".join("batch" if size is None else str(size) for size in description["shape"])
    return f"{code(name)} {description['dtype']} `[{shape}]`"


def _new_file(path):
    """`path`, in a folder that is there."""
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(
            three_part("a file that does not exist yet", f"path={str(path)!r}, which exists", "Choose another name.")
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _check_onnx(path, specs):
    graph = importlib.import_module("onnx").load(path).graph
    unknown = sorted({entry.name for entry in graph.input} - set(specs))
    if unknown:
        raise ValueError(
            three_part(
                f"a graph with the inputs {', '.join(specs)} alone",
                f"also {', '.join(unknown)}, tensors that were made before the graph",
                "Keep constants of simulator.network_input and simulator.project as NumPy arrays.",
            )
        )
