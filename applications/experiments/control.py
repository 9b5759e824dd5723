"""What the control problems of the half-inverse gradients have in common: their methods, and that losses are shown."""

import functools
from collections.abc import Callable

import numpy as np

import keras_sip
from experiments.baselines import adam_with
from experiments.experiment import Variant, adjoint, sip
from keras_sip import GaussianPrior, LevenbergMarquardt, MaximumAPosteriori


def control_variants(
    *,
    num_controls: int,
    control_size: float,
    adam_rate: float,
    half_inverse: Callable,
    lanczos_steps: int | None = None,
) -> dict[str, Variant]:
    """{name: Variant}: Adam, SIP with two solvers, half-inverse and natural gradients.

    Args:
        num_controls: Components of x.
        control_size: Standard deviation of the prior of each, for the generic solver: there is no true x to measure on.
        adam_rate: The source's learning rate of Adam; SIP trains with the same.
        half_inverse: `options -> HalfInverse` with the source's rate and truncation.
        lanczos_steps: Of natural gradients.
    """
    adam = adam_with(adam_rate)
    white = functools.partial(_white_prior, num_controls, control_size)
    return {
        "adam": adjoint("Adam", "back-propagation through the steps", adam),
        "half_inverse": adjoint(
            "Half-inverse", "the same with half-inverse gradients in all weights", half_inverse, rate_factors=(1.0,)
        ),
        "natural_gradient": adjoint(
            "Natural gradient",
            "the same with damped Gauss-Newton steps in all weights and momentum",
            lambda options: keras_sip.NaturalGradient(0.1, lanczos_steps=lanczos_steps),
            rate_factors=(1.0,),
        ),
        "sip": sip(
            "SIP", "scale-invariant updates, Levenberg-Marquardt", LevenbergMarquardt(linear_solver="dense"), adam
        ),
        "sip_generic": sip(
            "SIP, generic",
            "the same, maximum a posteriori with independent controls as prior",
            lambda options: MaximumAPosteriori(prior=white()),
            adam,
        ),
    }


def _white_prior(size, deviation):
    return GaussianPrior(np.zeros(size), np.zeros((0, size)), spectrum=np.full(size, deviation**2), basis="components")
