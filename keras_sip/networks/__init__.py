"""Networks: functions that return functional `keras.Model`s, like `keras.applications`."""

from keras_sip.networks.fno import FNO
from keras_sip.networks.mlp import MLP
from keras_sip.networks.precision import with_precision
from keras_sip.networks.unet import UNet

__all__ = ["FNO", "MLP", "UNet", "with_precision"]
