"""What the control problems of the half-inverse gradients have in common: their methods, and that losses are shown."""

from collections.abc import Callable

import keras_sip
from experiments.baselines import adam_with, generic
from experiments.experiment import Variant, adjoint, sip
from keras_sip import LevenbergMarquardt

# Over the mean eigenvalue of J^T J, of which all but a few are small. With 1e-3 the steps overfit each batch: on the
# oscillators the loss rises from 0.18 after 10 steps to 2.8 after 230.
NATURAL_DAMPING = 1.0


def control_variants(
    *,
    adam_rate: float,
    half_inverse: Callable,
) -> dict[str, Variant]:
    """{name: Variant}: Adam, SIP with two solvers, half-inverse and natural gradients.

    Args:
        adam_rate: The source's learning rate of Adam; SIP trains with the same.
        half_inverse: `options -> HalfInverse` with the source's rate and truncation.
    """
    adam = adam_with(adam_rate)
    return {
        "adam": adjoint("Adam", "back-propagation through the steps", adam),
        "half_inverse": adjoint(
            "Half-inverse", "the same with half-inverse gradients in all weights", half_inverse, rate_factors=(1.0,)
        ),
        "natural_gradient": adjoint(
            "Natural gradient",
            "the same with damped Gauss-Newton steps in all weights and momentum",
            lambda options: keras_sip.NaturalGradient(0.1, NATURAL_DAMPING),
            rate_factors=(1.0,),
        ),
        "sip": sip(
            "SIP", "scale-invariant updates, Levenberg-Marquardt", LevenbergMarquardt(linear_solver="dense"), adam
        ),
        "sip_generic": generic(adam),
    }
