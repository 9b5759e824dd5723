"""Pure tensor functions: no classes, no state, nothing from the rest of the package.

Fields are `[B, *resolution, C]`, x axis first, in float32 or float64. Every function compiles under XLA, and one
example of a batch never touches another: a NaN in one leaves the others bit-identical.
"""

from keras_sip.ops import (
    advection,
    batched,
    blur,
    conjugate_gradient,
    derivatives,
    eigen,
    lanczos,
    linear_systems,
    moments,
    orthogonal,
    random_boxes,
    random_fields,
    random_markers,
    spectral_transforms,
    staggered,
    stencils,
    time_integration,
    truncated_cg,
)
from keras_sip.ops.linear_systems import cholesky_solve, solve, solve_block_tridiagonal
from keras_sip.ops.time_integration import integrate, runge_kutta_4

__all__ = [
    "advection",
    "batched",
    "blur",
    "conjugate_gradient",
    "derivatives",
    "eigen",
    "lanczos",
    "linear_systems",
    "moments",
    "orthogonal",
    "truncated_cg",
    "random_boxes",
    "random_fields",
    "random_markers",
    "spectral_transforms",
    "staggered",
    "stencils",
    "time_integration",
    "cholesky_solve",
    "integrate",
    "runge_kutta_4",
    "solve",
    "solve_block_tridiagonal",
]
