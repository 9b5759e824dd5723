"""Diagnostics for people who write their own physics: is it right, does the solver serve it, which solver should."""

from keras_sip.diagnostics.calibration import CalibrationReport, check_calibration
from keras_sip.diagnostics.diagnosis import Diagnosis, diagnose
from keras_sip.diagnostics.report import Finding, Report, Verdict
from keras_sip.diagnostics.simulator_report import SimulatorReport, check_simulator
from keras_sip.diagnostics.solver_report import SolverReport, check_solver

__all__ = [
    "CalibrationReport",
    "Diagnosis",
    "Finding",
    "Report",
    "SimulatorReport",
    "SolverReport",
    "Verdict",
    "check_calibration",
    "check_simulator",
    "check_solver",
    "diagnose",
]
