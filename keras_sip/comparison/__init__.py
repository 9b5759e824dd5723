"""Comparison of training methods: equal starts, equal data, equal time; tables, curves and files of the result."""

from keras_sip.comparison.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
