"""TensorFlow functions as programs for XLA: files that run where there is XLA, without TensorFlow and our code."""

import json

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.service import hlo_pb2

from compare_outputs import relative_deviation


class Program:
    """`function(*arguments)` as a pure function of arrays: an HLO module and the arrays of its first call.

    Variables that the function reads become inputs, after its arguments; variables that it writes become outputs, after
    its results. A result that bears the name of an argument is the next value of that argument. Handed back as `feed`
    says, the outputs of one call are the inputs of the next, and a training step becomes a training loop.

    Args:
        function: Of tensors, of static shapes, compilable by XLA; it returns a NamedTuple of tensors.
        arguments: {name: tensor}, in the order in which `function` takes them; the values are those of the first call.

    Attributes:
        hlo: The serialized `HloModuleProto`, as TensorFlow hands it to XLA: not yet optimized for any device.
        inputs: Arrays of the first call, in the module's order, and `input_names`.
        output_names: In the module's order; the first `num_results` are what `function` returns.
        feed: [(position of an output, position of the input whose next value it is)].
    """

    def __init__(self, function, arguments):
        tensors = list(arguments.values())
        compiled = tf.function(function, autograph=False, jit_compile=True)
        concrete = compiled.get_concrete_function(*tensors)
        module = hlo_pb2.HloModuleProto.FromString(
            compiled.experimental_get_compiler_ir(*tensors)(stage="hlo_serialized")
        )
        # XLA may write the new value of a variable where the old one is, and notes which output and input that are.
        written = {entry.output_shape_index[0]: entry.parameter_number for entry in module.input_output_alias.entries}
        # Without the note the inputs outlive the call, and calls can be repeated without feeding.
        module.ClearField("input_output_alias")
        self.hlo = module.SerializeToString()

        variables = {id(variable.handle): variable for variable in concrete.variables}
        captured = [variables.get(id(capture), capture) for capture in concrete.captured_inputs]
        self.inputs = [value.numpy() for value in (*tensors, *captured)]
        self.input_names = [*arguments, *(getattr(value, "name", "constant").split(":")[0] for value in captured)]
        results = concrete.structured_outputs._fields
        self.num_results = len(results)
        self.output_names = [*results, *(self.input_names[written[place]] for place in sorted(written))]
        named_alike = {place: self.input_names.index(name) for place, name in enumerate(results) if name in arguments}
        self.feed = sorted({**named_alike, **written}.items())
        self._check_layout(module.host_program_shape, written)

        self._compiled = compiled
        self._by_kernels = tf.function(function, autograph=False)
        self._num_arguments = len(tensors)
        self._captured = captured
        self._written = [captured[written[place] - len(tensors)] for place in sorted(written)]

    def __call__(self, inputs, *, xla=False):
        """The outputs, by TensorFlow's own kernels, which share nothing with XLA's, or by XLA on this machine.

        A function of `inputs` alone, though on the way the variables that `function` was written with change.
        """
        arguments, values = inputs[: self._num_arguments], inputs[self._num_arguments :]
        for variable, value in zip(self._captured, values, strict=True):
            if isinstance(variable, tf.Variable):
                variable.assign(value)
        results = (self._compiled if xla else self._by_kernels)(*map(tf.constant, arguments))
        return [tensor.numpy() for tensor in (*results, *self._written)]

    def run(self, calls, *, xla=False):
        """Outputs of the last of several calls, each fed with those of the one before."""
        inputs = list(self.inputs)
        for _ in range(calls):
            outputs = self(inputs, xla=xla)
            for source, target in self.feed:
                inputs[target] = outputs[source]
        return outputs

    def save(self, folder, calls):
        """Write the program and what it should give after `calls` calls.

        - program.hlo: `hlo`;
        - args.npz: the inputs of the first call, in order;
        - expected.npz: the outputs of the last call, in order, by TensorFlow's kernels on this machine;
        - program.json: names, `num_results`, `feed`, `calls`, and `rounding`: by how much XLA on this machine deviates
          from expected.npz.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "program.hlo").write_bytes(self.hlo)
        np.savez(folder / "args.npz", *self.inputs)
        expected = self.run(calls)
        np.savez(folder / "expected.npz", *expected)
        description = {
            "inputs": self.input_names,
            "outputs": self.output_names,
            "num_results": self.num_results,
            "feed": self.feed,
            "calls": calls,
            "rounding": list(map(relative_deviation, self.run(calls, xla=True), expected)),
        }
        (folder / "program.json").write_text(json.dumps(description, indent=1))

    def _check_layout(self, shape, written):
        """Compare our reading of the module with what XLA says of it: TensorFlow does not document the order."""
        taken = [tuple(parameter.dimensions) for parameter in shape.parameters]
        given = [value.shape for value in self.inputs]
        places = [*range(self.num_results), *sorted(written)]
        if taken != given or places != list(range(len(shape.result.tuple_shapes))):
            raise RuntimeError(
                "Expected XLA to take the arguments, then the captured tensors, and to return the results, then the "
                "variables written.\n"
                f"Received a module of {len(taken)} inputs and {len(shape.result.tuple_shapes)} outputs for "
                f"{len(given)} and {len(places)}.\n"
                "Make every result of the function a tensor, and every variable that it writes one that it also reads."
            )
