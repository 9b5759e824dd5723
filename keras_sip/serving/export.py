"""A SIPModel as a SavedModel that serves with TensorFlow alone, or as an ONNX file."""

import contextlib
import importlib
import importlib.util
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_sip._version import __version__
from keras_sip.data import without_bad_examples
from keras_sip.errors import check_choice, three_part
from keras_sip.files import new_folder, write_atomically, write_checksums, writing
from keras_sip.ops import batched
from keras_sip.serving import card
from keras_sip.simulators.base import join_observation, split_observation
from keras_sip.solvers.maximum_a_posteriori import posterior_solver
from keras_sip.untrusted import code, one_line

# Of the search for the most probable x, as in `SIPModel.posterior`.
POSTERIOR_STEPS = 10
FORMATS = ("tf_saved_model", "onnx")
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
`valid` false.
"""


def export_saved_model(model, path, *, jit_compile=False, title=None, facts=None, measured=None):
    """Write `model` as a SavedModel with named signatures; loading it needs TensorFlow and nothing else.

    - `infer(y, context_NAME...) -> x, valid`: the network's answer, in physical units;
    - `simulate(x, context_NAME...) -> y, valid`: y = P(x);
    - `refine(y, context_NAME..., steps) -> x, objective, valid`: the answer improved by at most `steps` steps (a scalar
      int32) of the model's solver, no example's objective above that of `infer`; only where the model has a solver;
    - `uncertainty(y, context_NAME...) -> x, stddev, valid`: mean and standard deviation of x given y, those of
      `SIPModel.posterior`; only where there is a prior: the solver's, or one measured on samples.

    The batch size is free; of an empty batch the answer is empty. `valid` `[B]` is false, and the answer NaN, for
    examples with a non-finite entry; the others are not affected. Beside the graph: `README.md` (model card),
    `keras_sip.json` (version, shapes), `SHA256SUMS`.
    The folder appears whole or not at all. The custom gradient of SIP training is not part of it.

    Args:
        model: A `SIPModel`; a simulator that needs a context says its entries by `sample` or `context_shape`.
        path: A folder that does not exist yet.
        jit_compile: Compile the signatures with XLA when they are called, once for each batch size.
        title, facts, measured: For the card, as in `keras_sip.serving.card.model_card`.

    Raises:
        FileExistsError: The folder exists.
        OutputError: It cannot be written.
    """
    with new_folder(path) as folder:
        signatures = _write_saved_model(model, folder, jit_compile)
        use = _USE.format(
            name=json.dumps(pathlib.Path(path).name),
            arguments=", ".join(f"{name}={name}" for name in map(one_line, signatures["infer"]["inputs"])),
            signatures="\n".join(_signature_row(name, entry) for name, entry in signatures.items()),
        )
        text = card.model_card(model, title=title or model.name, use=use, facts=facts, measured=measured)
        write_atomically(folder / card.CARD, text.encode())
        write_atomically(folder / MANIFEST, manifest(model, signatures).encode())
        write_checksums(folder)


def export_onnx(model, path):
    """Write the answer of `model` as ONNX, through Keras' own export: inputs y and context_NAME, outputs x and valid.

    Where `valid` is false, because the example has a non-finite entry, its x has no meaning.

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
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(
            three_part("a file that does not exist yet", f"path={str(path)!r}, which exists", "Choose another name.")
        )
    specs = {"y": tf.TensorSpec((None, *model.simulator.y_shape), model.simulator.dtype, name="y")}
    specs |= {spec.name: spec for spec in _context_spec(model.simulator).values()}
    answer = _Answer(model)
    answer({name: tf.zeros((1, *spec.shape[1:]), spec.dtype) for name, spec in specs.items()})
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        keras.Model.export(answer, temporary, format="onnx", input_signature=[specs], verbose=False)
        _check_onnx(temporary, specs)
        with writing(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def export(model, path, *, format="tf_saved_model", **options):
    """`export_saved_model` or `export_onnx`, by the name of the format."""
    if check_choice("format", format, FORMATS) == "onnx":
        export_onnx(model, path, **options)
    else:
        export_saved_model(model, path, **options)


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
        self.built = True

    def call(self, inputs):
        context = {name.removeprefix("context_"): value for name, value in inputs.items() if name != "y"}
        observation, good = without_bad_examples(join_observation(inputs["y"], context or None))
        z, _ = self.model.scaled_network(observation, training=False)
        x = self.model.physics.to_physical(z)
        # ONNX selects by products with 0 and 1, in which a NaN to fill in would reach every example.
        return {"x": x, "valid": good & batched.all_finite(x)}


def _infer(model, y, context):
    observation, good = without_bad_examples(join_observation(y, context))
    return _flagged("x", model(observation, training=False), good)


def _simulate(model, x, context):
    (x, context), good = without_bad_examples((x, context or {}))
    return _flagged("y", model.simulator.forward(x, context or None), good)


def _refine(model, y, context, steps):
    observation, good = without_bad_examples(join_observation(y, context))
    y_target, context = split_observation(observation)
    physics = model.physics
    z, _ = model.scaled_network(observation, training=False)
    result = physics.refine(z, y_target, context, steps)
    answer = _flagged("x", physics.to_physical(result.x), good & batched.all_finite(result.y))
    nan = tf.constant(np.nan, result.objective.dtype)
    return {**answer, "objective": tf.where(answer["valid"], result.objective, nan)}


def _uncertainty(model, y, context):
    observation, good = without_bad_examples(join_observation(y, context))
    y_target, context = split_observation(observation)
    z, _ = model.scaled_network(observation, training=False)
    posterior = model.physics.posterior(z, y_target, context, POSTERIOR_STEPS)
    deviation = posterior.stddev() + tf.zeros_like(z)
    answer = _flagged("x", posterior.mean(), good & batched.all_finite(deviation))
    return {**answer, "stddev": _flagged("stddev", deviation, answer["valid"])["stddev"]}


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


def _write_saved_model(model, folder, jit_compile):
    """Write the graph; returns {signature: {"inputs", "outputs": {name: {"shape", "dtype"}}}}."""
    simulator = model.simulator
    y = tf.TensorSpec((None, *simulator.y_shape), simulator.dtype, name="y")
    x = tf.TensorSpec((None, *simulator.x_shape), simulator.dtype, name="x")
    context = _context_spec(simulator)
    endpoints = {
        "infer": (lambda y, context: _infer(model, y, context), (y,)),
        "simulate": (lambda x, context: _simulate(model, x, context), (x,)),
    }
    if model.solver is not None:
        steps = tf.TensorSpec((), tf.int32, name="steps")
        endpoints["refine"] = (lambda y, context, steps: _refine(model, y, context, steps), (y, steps))
    if _gives_error_bars(model):
        endpoints["uncertainty"] = (lambda y, context: _uncertainty(model, y, context), (y,))
    served, signatures = {}, {}
    for name, (function, specs) in endpoints.items():
        with _context_said(simulator):
            served[name] = _traced(function, specs, context, jit_compile)
        outputs = served[name].structured_outputs
        inputs = {spec.name: _description(spec) for spec in (*specs, *context.values())}
        signatures[name] = {"inputs": inputs, "outputs": {key: _description(outputs[key]) for key in outputs}}
    module = tf.Module()
    module.state = [variable for trace in served.values() for variable in trace.graph.variables]
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    # Traces, not functions: TensorFlow traces a function anew while it saves, and then stores both graphs.
    tf.saved_model.save(module, folder, signatures={**served, default: served["infer"]})
    return signatures


def _traced(function, specs, context_spec, jit_compile):
    """The graph of `function(value, context, *others)` with an input for each named tensor."""

    given = [specs[0], *context_spec.values(), *specs[1:]]

    @tf.function(input_signature=given, jit_compile=jit_compile or None, autograph=False)
    def endpoint(value, *others):
        values = [_checked(*pair) for pair in zip((value, *others), given, strict=True)]
        examples = tf.shape(value)[0]
        batched_values = 1 + len(context_spec)
        value, *entries = (_at_least_one(entry, examples) for entry in values[:batched_values])
        context = dict(zip(context_spec, entries, strict=True)) or None
        answer = function(value, context, *values[batched_values:])
        return {name: entry[:examples] for name, entry in answer.items()}

    return endpoint.get_concrete_function()


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
    return {"shape": list(spec.shape), "dtype": spec.dtype.name}


def _signature_row(name, signature):
    inputs, outputs = (", ".join(_entry(*item) for item in part.items()) for part in signature.values())
    return f"| `{name}` | {inputs} | {outputs} |"


def _entry(name, description):
    shape = ", ".join("batch" if size is None else str(size) for size in description["shape"])
    return f"{code(name)} {description['dtype']} `[{shape}]`"


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
