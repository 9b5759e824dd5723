"""What optimizers that need more than a gradient share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import tensorflow as tf

from keras_sip.errors import must_define, three_part

if TYPE_CHECKING:
    from keras_sip.training.weight_problem import WeightProblem

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
UNSUPPORTED = ("clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps")


class SecondOrderOptimizer(keras.optimizers.Optimizer):
    """An optimizer that asks the loss for second derivatives, or for its value elsewhere; for `SIPModel`.

    **Must override** `take_step(problem)`, which asks a `keras_sip.WeightProblem` for what it needs and ends with
    `self.change(gradients, variables)`; and `update_step(gradient, variable, learning_rate)`, as in Keras.

    `keras.Model.fit` gives an optimizer gradients only, and is refused.
    """

    # Whether products with the Gauss-Newton matrix are needed, and so a loss that is a half sum of squares.
    needs_least_squares = False
    # Whether each residual must belong to one example, as it does not behind batch norm.
    needs_independent_examples = False
    # Whether its step may be part of a program of XLA, unless `compile(jit_compile=True)` asks for that.
    compiles = True

    def __init__(self, learning_rate: LearningRate, *, name: str | None = None, **kwargs: Any) -> None:
        given = {option: kwargs[option] for option in UNSUPPORTED if kwargs.get(option) is not None}
        if given:
            raise ValueError(
                three_part(
                    f"none of {', '.join(UNSUPPORTED)} for {type(self).__name__}, which take gradients apart from "
                    "the curvature that belongs to them",
                    ", ".join(f"{option}={value!r}" for option, value in given.items()),
                    "Leave the option out; larger batches take the place of accumulation.",
                )
            )
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)

    def take_step(self, problem: "WeightProblem") -> None:
        """Change the variables of the problem."""
        raise must_define(
            self,
            "take_step(self, problem)",
            "a second-order optimizer without it",
            "Ask the problem for its derivatives there, and end with self.change(gradients, variables).",
        )

    def change(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> None:
        """`update_step` for every variable, with all that Keras does around it."""
        super().apply(gradients, variables)

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        raise RuntimeError(
            three_part(
                f"`{type(self).__name__}` in SIPModel.compile, whose training step gives it second derivatives",
                "gradients alone, as from keras.Model.fit or a training step of your own",
                "Compile a keras_sip.SIPModel with it (method 'adjoint' trains through the simulator), or use a "
                "first-order optimizer such as keras.optimizers.Adam.",
            )
        )
