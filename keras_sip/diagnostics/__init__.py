"""Diagnostics for people who write their own physics: is it right, does the solver serve it, which solver should."""

from keras_sip.diagnostics.calibration import CalibrationFindings, check_calibration
from keras_sip.diagnostics.diagnosis import Diagnosis, diagnose
from keras_sip.diagnostics.findings import Finding, Findings, Verdict
from keras_sip.diagnostics.simulator_check import SimulatorFindings, check_simulator
from keras_sip.diagnostics.solver_check import SolverFindings, check_solver

__all__ = [
    "CalibrationFindings",
    "Diagnosis",
    "Finding",
    "Findings",
    "SimulatorFindings",
    "SolverFindings",
    "Verdict",
    "check_calibration",
    "check_simulator",
    "check_solver",
    "diagnose",
]
