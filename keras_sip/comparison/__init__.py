"""Comparison of training methods: equal starts, equal data, equal time; tables, curves and files of the result."""

from keras_sip.comparison.comparison import Comparison, compare
from keras_sip.comparison.recipe import Recipe, recipe

__all__ = ["Comparison", "Recipe", "compare", "recipe"]
