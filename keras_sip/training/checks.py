"""What SIPModel refuses when it is made, compiled or trained, each with the reason and the remedy."""

import keras

from keras_sip.errors import three_part
from keras_sip.solvers.automatic import auto_solver
from keras_sip.solvers.base import InverseSolver, SolverError


def checked_solver(solver, simulator):
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


def check_network(network, simulator):
    """Refuse a network that is not built, or whose output is no x of the simulator."""
    if not isinstance(network, keras.Model) or not network.built:
        raise TypeError(
            three_part(
                "`network` to be a built keras.Model",
                f"{network!r}",
                "Pass one such as UNet(simulator.y_shape, 1), or call the model on an example first.",
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


def check_distribution(strategy, optimizer, jit_compile):
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


class RaiseOnFailure(keras.callbacks.Callback):
    """Raises after the first batch with a failed example: a compiled step cannot."""

    def on_train_batch_end(self, batch, logs=None):
        if logs and logs.get("failed", 0) > 0:
            raise SolverError(
                three_part(
                    "every example to be solved (on_failure='raise')",
                    f"a share of {logs['failed']:.3g} that failed, by batch {batch} of the epoch",
                    "Call solver.solve(...) on the batch outside of fit: it names the examples and their status.",
                )
            )
