"""Physical systems, one a file."""

from keras_sip.simulators.base import Simulator
from keras_sip.simulators.function import from_function
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.simulators.poisson import Poisson

__all__ = ["Nondimensional", "Poisson", "Simulator", "from_function"]
