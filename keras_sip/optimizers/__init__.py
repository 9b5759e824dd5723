"""Update rules of network weights that Keras lacks."""

from keras_sip.optimizers.ada_hessian import AdaHessian
from keras_sip.optimizers.half_inverse import HalfInverse
from keras_sip.optimizers.hessian_free import HessianFree
from keras_sip.optimizers.muon import Muon
from keras_sip.optimizers.natural_gradient import NaturalGradient
from keras_sip.optimizers.second_order import SecondOrderOptimizer
from keras_sip.optimizers.soap import SOAP

__all__ = ["SOAP", "AdaHessian", "HalfInverse", "HessianFree", "Muon", "NaturalGradient", "SecondOrderOptimizer"]
