"""keras_sip: train neural networks through physics simulators with scale-invariant updates.

Two ideas carry the package: a `Simulator` is the physical process y = P(x); an `InverseSolver` gets from (x0, y*) to a
better x. `SIPPhysicsLayer` puts the solver's update in place of the physics gradient; `SIPModel` is the Keras model
around them.
"""

# ruff: noqa: E402  (the environment must be checked before Keras is imported)
from keras_sip._environment import check_environment

check_environment()

from keras_sip.data import dataset, evaluation_set, from_arrays
from keras_sip.export import export_saved_model
from keras_sip.layers import PhysicsLayer, Project, SIPPhysicsLayer
from keras_sip.losses import HalfSumOfSquares, Objective
from keras_sip.models import SIPModel
from keras_sip.networks import MLP, UNet
from keras_sip.simulators import Nondimensional, Poisson, Simulator, from_function
from keras_sip.solvers import (
    AnalyticInverse,
    GaussNewton,
    GradientDescent,
    InverseSolver,
    LevenbergMarquardt,
    SolverError,
    SolverResult,
    Status,
)
from keras_sip.training import SIP, Adjoint, Supervised, TrainingMethod

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SIP",
    "Adjoint",
    "AnalyticInverse",
    "GaussNewton",
    "GradientDescent",
    "HalfSumOfSquares",
    "InverseSolver",
    "LevenbergMarquardt",
    "Nondimensional",
    "Objective",
    "PhysicsLayer",
    "Poisson",
    "Project",
    "SIPModel",
    "SIPPhysicsLayer",
    "Simulator",
    "SolverError",
    "SolverResult",
    "Status",
    "Supervised",
    "TrainingMethod",
    "UNet",
    "dataset",
    "evaluation_set",
    "export_saved_model",
    "from_arrays",
    "from_function",
]
