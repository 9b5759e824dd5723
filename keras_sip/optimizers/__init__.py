"""Update rules of network weights that Keras lacks."""

from keras_sip.optimizers.ada_hessian import AdaHessian
from keras_sip.optimizers.hessian_free import HessianFree
from keras_sip.optimizers.muon import Muon
from keras_sip.optimizers.second_order import SecondOrderOptimizer

__all__ = ["AdaHessian", "HessianFree", "Muon", "SecondOrderOptimizer"]
