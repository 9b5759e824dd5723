"""SimulatorWrapper: a simulator that is another one in all but what a subclass changes."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.simulators.abilities import FORMS, Ability
from keras_sip.simulators.base import Context, Simulator, check_simulator_interface

# What tells how P can be undone: an own `forward` makes it another process, of which they say nothing.
INVERSES = (*FORMS, Ability.INVERSE)


class _OfPhysical:
    """An attribute read from the wrapped simulator, unless the wrapper has set one of its own."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, wrapper, owner=None):
        if wrapper is None:
            return self
        return None if wrapper.has_lost(self.name) else getattr(wrapper.physical, self.name)


@keras.saving.register_keras_serializable(package="keras_sip")
class SimulatorWrapper(Simulator):
    """Another simulator with changes: P, abilities, checks of users' data and other attributes are handed through.

    **May override** whatever a simulator may, and reach the wrapped one as `self.physical`. An override adds the
    ability, unless the class says `adds_abilities = False`: then it changes what the wrapped simulator has, and a
    simulator without an inverse stays one. With an own `forward` the wrapped simulator's inverse and forms no longer
    hold and are gone, unless overridden too; `sample` then simulates with it. Plain further arguments of a constructor
    are all that saving needs.

    Example, y observed on a logarithmic scale:

        class Logarithmic(keras_sip.SimulatorWrapper):
            adds_abilities = False

            def forward(self, x, context=None):
                return tf.math.log(self.physical.forward(x, context))

            def inverse(self, y_target, x_near, context=None):
                return self.physical.inverse(tf.exp(y_target), x_near, context)

    Args:
        simulator: The simulator to wrap, itself a wrapper perhaps.
    """

    adds_abilities = True

    x_shape: Any = _OfPhysical()
    y_shape: Any = _OfPhysical()
    dtype: Any = _OfPhysical()
    prefers_xla: Any = _OfPhysical()
    x_scale: Any = _OfPhysical()
    context_shape: Any = _OfPhysical()
    sensors: Any = _OfPhysical()
    diagonal_form: Any = _OfPhysical()
    reverse_form: Any = _OfPhysical()

    def __init__(self, simulator: Simulator):
        self.physical = check_simulator_interface(simulator)

    def __getattr__(self, name: str) -> Any:
        # What experiments and solvers know of the wrapped simulator (resolution, spacing ...). Underscores are left
        # out: copying and pickling ask for some before there is a `physical`.
        if name.startswith("_") or name == "physical":
            raise AttributeError(name)
        return getattr(self.physical, name)

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.forward(x, context)

    def residual(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.residual(y, y_target, context)

    def objective(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        # Of an own residual, where L is made of it.
        if self.has_own("residual") and not self.physical.has(Ability.OBJECTIVE):
            return super().objective(y, y_target, context)
        return self.physical.objective(y, y_target, context)

    def objective_gradient(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        if self.has_own("residual") or self.has_own("objective"):
            return super().objective_gradient(y, y_target, context)
        return self.physical.objective_gradient(y, y_target, context)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        if self.has_lost("inverse"):
            return super().inverse(y_target, x_near, context)
        return self.physical.inverse(y_target, x_near, context)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        sample = self.physical.sample(batch_size, seed)
        return {**sample, "y": self.forward(sample["x"], sample.get("context"))} if self.has_own("forward") else sample

    def network_input(self, observation: Any) -> Any:
        return self.physical.network_input(observation)

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        return self.physical.project(x, observation)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return self.physical.distance(x, x_ref)

    def as_x(self, x: Any) -> tf.Tensor:
        return self.physical.as_x(x)

    def as_y(self, y: Any, *, name: str = "y_target") -> tf.Tensor:
        return self.physical.as_y(y, name=name)

    def as_context(self, context: Context) -> dict[str, tf.Tensor] | None:
        return self.physical.as_context(context)

    def has(self, ability: Ability | str) -> bool:
        ability = Ability(ability)
        if ability in FORMS:
            return super().has(ability)
        if self.has_own(ability):
            return self.adds_abilities or self.physical.has(ability)
        return self.physical.has(ability) and not self.has_lost(ability)

    def has_own(self, name: str) -> bool:
        """Whether the wrapper's class overrides a method, instead of handing it through."""
        return getattr(type(self), name) is not getattr(SimulatorWrapper, name)

    def has_lost(self, name: str) -> bool:
        """Whether the wrapped simulator's way to undo P holds no longer, because the wrapper has an own `forward`."""
        return name in INVERSES and self.has_own("forward") and not self.has_own(name)
