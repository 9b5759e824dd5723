"""Keras callbacks around `fit`: watch a run, stop it, go on with it exactly, and leave a record of it."""

from keras_sip.callbacks.batch_statistics import BatchStatistics
from keras_sip.callbacks.exact_resume import ExactResume
from keras_sip.callbacks.model_card import ModelCard
from keras_sip.callbacks.non_finite_guard import NonFiniteGuard
from keras_sip.callbacks.progress_bar import ProgressBar
from keras_sip.callbacks.tensorboard import SIPTensorBoard
from keras_sip.callbacks.wall_time_budget import WallTimeBudget

__all__ = [
    "BatchStatistics",
    "ExactResume",
    "ModelCard",
    "NonFiniteGuard",
    "ProgressBar",
    "SIPTensorBoard",
    "WallTimeBudget",
]
