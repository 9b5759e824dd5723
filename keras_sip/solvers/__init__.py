"""Inverse solvers, one method a file."""

from typing import TYPE_CHECKING

from keras_sip._on_use import (
    posteriors,
)
from keras_sip.solvers.analytic_inverse import (
    AnalyticInverse,
)
from keras_sip.solvers.automatic import (
    auto_solver,
)
from keras_sip.solvers.base import (
    InverseSolver,
    SolverError,
    SolverResult,
    Status,
    Step,
)
from keras_sip.solvers.chain import (
    Chain,
)
from keras_sip.solvers.compositions import (
    Fallback,
    LimitedStep,
    LineSearch,
)
from keras_sip.solvers.damped_spectral_inverse import (
    DampedSpectralInverse,
)
from keras_sip.solvers.direct_inverse import (
    DirectInverse,
)
from keras_sip.solvers.gauss_newton import (
    GaussNewton,
)
from keras_sip.solvers.gradient_descent import (
    GradientDescent,
)
from keras_sip.solvers.lbfgs import (
    LBFGS,
)
from keras_sip.solvers.levenberg_marquardt import (
    LevenbergMarquardt,
)
from keras_sip.solvers.maximum_a_posteriori import (
    MaximumAPosteriori,
)
from keras_sip.solvers.newton import (
    Newton,
)
from keras_sip.solvers.normalized_gradient import (
    NormalizedGradient,
    SignStep,
)
from keras_sip.solvers.problem import (
    InverseProblem,
)
from keras_sip.solvers.reverse_simulation import (
    ReverseSimulation,
)
from keras_sip.solvers.saddle_free_newton import (
    SaddleFreeNewton,
)
from keras_sip.solvers.spectral_inverse import (
    SpectralInverse,
)
from keras_sip.solvers.wiener_inverse import (
    WienerInverse,
)

if TYPE_CHECKING:
    from keras_sip.solvers.posterior import Posterior

__all__ = [
    "AnalyticInverse",
    "Chain",
    "DampedSpectralInverse",
    "DirectInverse",
    "Fallback",
    "GaussNewton",
    "GradientDescent",
    "InverseProblem",
    "InverseSolver",
    "LBFGS",
    "LevenbergMarquardt",
    "LimitedStep",
    "LineSearch",
    "MaximumAPosteriori",
    "Newton",
    "NormalizedGradient",
    "Posterior",
    "ReverseSimulation",
    "SaddleFreeNewton",
    "SignStep",
    "SolverError",
    "SolverResult",
    "SpectralInverse",
    "Status",
    "Step",
    "WienerInverse",
    "auto_solver",
]


def __getattr__(name: str) -> type:
    # TensorFlow Probability, of which it is a distribution, is imported where it is used.
    if name == "Posterior":
        return posteriors.Posterior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
