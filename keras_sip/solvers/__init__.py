"""Inverse solvers, one method a file."""

from keras_sip.solvers.analytic_inverse import AnalyticInverse
from keras_sip.solvers.base import InverseSolver, SolverError, SolverResult, Status
from keras_sip.solvers.gauss_newton import GaussNewton
from keras_sip.solvers.gradient_descent import GradientDescent
from keras_sip.solvers.levenberg_marquardt import LevenbergMarquardt

__all__ = [
    "AnalyticInverse",
    "GaussNewton",
    "GradientDescent",
    "InverseSolver",
    "LevenbergMarquardt",
    "SolverError",
    "SolverResult",
    "Status",
]
