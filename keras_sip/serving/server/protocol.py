"""TensorFlow Serving's REST predict format: JSON to checked arrays, and arrays to JSON.

Source: https://www.tensorflow.org/tfx/serving/api_rest, "Predict API".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from keras_sip.errors import three_part
from keras_sip.serving.server.served_model import DEFAULT_SIGNATURE, Input
from keras_sip.untrusted import one_line

LONGEST_SHOWN = 80


class BadRequest(ValueError):
    """What is wrong with a request, in three parts; it is answered with 400."""


class Request(NamedTuple):
    """A predict request.

    Attributes:
        signature: Its name.
        inputs: {name: array}, checked: dtype and shape are those of the signature, all numbers finite.
        examples: Their batch size.
        by_instance: Whether it came, and is to be answered, as a list of instances.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    examples: int
    by_instance: bool


def read_request(
    body: bytes, signatures: Mapping[str, Mapping[str, Input]], *, max_examples: int, max_steps: int
) -> Request:
    """The request that a body holds.

    Raises:
        BadRequest: It is no JSON, asks for what is not there, or holds numbers that are not finite or do not fit.
    """
    try:
        content = orjson.loads(body)
    except ValueError as error:
        raise _bad("a body in JSON, all of whose numbers are finite", one_line(error), "JSON has no NaN.") from None
    if not isinstance(content, dict) or len({"instances", "inputs"} & content.keys()) != 1:
        keys = ", ".join(map(_shown, content)) if isinstance(content, dict) else type(content).__name__
        raise _bad('an object with either "instances" or "inputs"', keys or "an empty object", 'Send {"inputs": ...}.')
    name = content.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str) or name not in signatures:
        raise _bad(f'"signature_name" to be one of {", ".join(signatures)}', _shown(name), "Choose a listed one.")
    by_instance = "instances" in content
    specs = signatures[name]
    values = _by_instance(content["instances"], specs) if by_instance else _by_input(content["inputs"], specs)
    inputs = {key: _array(key, values[key], spec, max_steps) for key, spec in specs.items()}
    inputs, examples = _of_one_size(inputs, specs, max_examples)
    return Request(name, inputs, examples, by_instance)


def write_answer(outputs: Mapping[str, np.ndarray], *, by_instance: bool) -> bytes:
    """The JSON of the answer; NaN, of which JSON has none, is null."""
    arrays = {name: np.ascontiguousarray(value) for name, value in outputs.items()}
    alone = next(iter(arrays.values())) if len(arrays) == 1 else None
    if not by_instance:
        answer: Any = {"outputs": arrays if alone is None else alone}
    elif alone is not None:
        answer = {"predictions": alone}
    else:
        rows = zip(*arrays.values(), strict=True)
        answer = {"predictions": [dict(zip(arrays, row, strict=True)) for row in rows]}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def _by_instance(instances, specs):
    """{input: values of all instances}."""
    if not isinstance(instances, list) or not instances:
        raise _bad('"instances" to be a list of at least one', _shown(instances), "Send one entry for each example.")
    if len(specs) == 1 and not isinstance(instances[0], dict):
        return dict.fromkeys(specs, instances)
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != specs.keys():
            received = ", ".join(map(_shown, instance)) if isinstance(instance, dict) else _shown(instance)
            raise _bad(
                f"each instance to have {', '.join(specs)}", f"instance {number}: {received or 'nothing'}", "Name each."
            )
    values = {name: [instance[name] for instance in instances] for name in specs}
    for name, spec in specs.items():
        if not spec.is_batched:
            if any(value != values[name][0] for value in values[name]):
                raise _bad(f"one `{name}` for all instances", "several", "Send them as requests of their own.")
            values[name] = values[name][0]
    return values


def _by_input(inputs, specs):
    if len(specs) == 1 and not isinstance(inputs, dict):
        return dict.fromkeys(specs, inputs)
    if not isinstance(inputs, dict) or inputs.keys() != specs.keys():
        received = ", ".join(map(_shown, inputs)) if isinstance(inputs, dict) else _shown(inputs)
        raise _bad(f'"inputs" to be an object of {", ".join(specs)}', received or "an empty object", "Name each input.")
    return inputs


def _array(name, values, spec, max_steps):
    expected = f"`{name}` to be numbers of the shape {_shape_text(spec)}"
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _bad(expected, one_line(error), "Send nested lists of equal lengths.") from None
    kinds = "iu" if spec.dtype.kind in "iu" else "fiu"
    if array.dtype.kind not in kinds and array.size:
        what = {"f": "fractions", "b": "true or false"}.get(array.dtype.kind, "text, null or lists of unequal lengths")
        raise _bad(expected, what, f"Send {'whole ' if kinds == 'iu' else ''}numbers in nested lists.")
    if name == "steps" and array.size and not 0 <= array.min() <= array.max() <= max_steps:
        raise _bad(f"`steps` from 0 to {max_steps}", f"{array.min()} to {array.max()}", "Ask for fewer steps.")
    if array.shape[spec.is_batched :] != spec.shape and not (spec.is_batched and array.shape == spec.shape == ()):
        raise _bad(expected, f"the shape {list(array.shape)}", "Send a list of such examples, also of a single one.")
    with np.errstate(over="ignore"):
        array = array.astype(spec.dtype)
    if spec.dtype.kind == "f" and not np.isfinite(array).all():
        raise _bad(f"finite numbers in `{name}`, as {spec.dtype} holds them", "NaN or Inf", "Leave such examples out.")
    return array


def _of_one_size(inputs, specs, max_examples):
    """(inputs, examples): one number for all examples is repeated, and all have the same batch size."""
    batched = {name: value for name, value in inputs.items() if specs[name].is_batched}
    sizes = {len(value) for value in batched.values() if value.ndim}
    if len(sizes) != 1:
        received = ", ".join(f"{name} {list(value.shape)}" for name, value in batched.items())
        raise _bad("inputs of one batch size", received or "none with a batch axis", "Send one entry for each example.")
    [examples] = sizes
    if not 1 <= examples <= max_examples:
        raise _bad(f"1 to {max_examples} examples in a request", f"{examples}", "Split the request.")
    repeated = {name: np.broadcast_to(value, (examples,)) for name, value in batched.items() if not value.ndim}
    return {**inputs, **repeated}, examples


def _shape_text(spec):
    return f"[{', '.join([*(['batch'] if spec.is_batched else []), *map(str, spec.shape)])}]"


def _shown(value):
    text = one_line(repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _plain(value):
    # NumPy's bool and text, which orjson does not know.
    return value.tolist()


def _bad(expected, received, remedy):
    return BadRequest(three_part(expected, received, remedy))
