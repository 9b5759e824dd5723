"""What SIPModel refuses when it is made, compiled or trained, each with the reason and the remedy."""

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.simulators.base import Simulator
from keras_sip.solvers.automatic import auto_solver
from keras_sip.solvers.base import InverseSolver, SolverError


def checked_solver(solver: InverseSolver | str, simulator: Simulator) -> InverseSolver:
    """The `InverseSolver`, once it has taken the simulator; "auto" is that of `auto_solver`."""
    if isinstance(solver, str) and solver == "auto":
        return auto_solver(simulator)
    if not isinstance(solver, InverseSolver):
        raise TypeError(
            three_part(
                '`solver` to be a keras_sip.InverseSolver or "auto"',
                f"{solver!r}",
                "Pass an instance such as AnalyticInverse() or GaussNewton().",
            )
        )
    solver.check(simulator)
    return solver


def check_network(network: keras.Model, simulator: Simulator) -> None:
    """Refuse a network that is not built, or whose output is no x of the simulator."""
    if not isinstance(network, keras.Model) or not network.built:
        raise TypeError(
            three_part(
                "`network` to be a built keras.Model",
                f"{network!r}",
                "Pass one such as UNet(simulator.y_shape, 1), or call the model on an example first.",
            )
        )
    outputs = getattr(network, "outputs", None) or [None]
    if len(outputs) != 1:
        raise ValueError(
            three_part(
                "`network` to have one output, x",
                f"{len(outputs)} outputs",
                "Concatenate them to one x, or train a functional model with a SIPPhysicsLayer for each.",
            )
        )
    shape = getattr(network, "output_shape", (None, *simulator.x_shape))
    if tuple(shape[1:]) != tuple(simulator.x_shape):
        raise ValueError(
            three_part(
                f"`network` to return x of shape {('batch', *simulator.x_shape)}",
                f"output shape {('batch', *shape[1:])}",
                "Change the network's last layer, or the simulator's resolution.",
            )
        )


def check_distribution(
    strategy: tf.distribute.Strategy, optimizer: keras.optimizers.Optimizer, jit_compile: bool | str
) -> None:
    """Refuse the combinations in which Keras itself fails."""
    if strategy.num_replicas_in_sync == 1:
        return
    unsupported = None
    if optimizer.gradient_accumulation_steps:
        unsupported = (
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps}",
            "Keras' accumulators cannot be updated in a replica context: use a larger batch instead.",
        )
    elif jit_compile is True:
        unsupported = (
            "jit_compile=True",
            "Keras cannot reduce gradients between replicas inside an XLA program: leave jit_compile='auto'.",
        )
    if unsupported:
        received, remedy = unsupported
        raise ValueError(
            three_part(
                f"a step that Keras can distribute over {strategy.num_replicas_in_sync} replicas", received, remedy
            )
        )


def check_fit(options: dict) -> None:
    """Refuse arguments of Keras' fit that have no meaning for inverse problems, or that would be ignored."""
    refused = {
        "validation_split": "Split the arrays yourself and pass validation_data=(observation, x).",
        "class_weight": "Weigh examples with sample_weight: there are no classes.",
    }
    for name, remedy in refused.items():
        if options.get(name):
            raise ValueError(three_part(f"fit without {name}", f"{name}={options[name]!r}", remedy))


class RaiseOnFailure(keras.callbacks.Callback):
    """Raises after the first batch with a failed example: a compiled step cannot."""

    @classmethod
    def of_fit(cls, model: keras.Model) -> "RaiseOnFailure | None":
        """The callback, where the solver that trains the model is to raise."""
        solver = model.method.solver or model.solver
        return cls() if solver is not None and solver.on_failure == "raise" else None

    def on_train_batch_end(self, batch, logs=None):
        if logs and logs.get("failed", 0) > 0:
            raise SolverError(
                three_part(
                    "every example to be solved (on_failure='raise')",
                    f"a share of {logs['failed']:.3g} that failed, by batch {batch} of the epoch",
                    "Call solver.solve(...) on the batch outside of fit: it names the examples and their status.",
                )
            )
