"""Modules that are imported when they are first used: each takes a second or more, which few programs should pay."""

import importlib
from typing import Any

import tensorflow as tf


class ModuleOnUse:
    """Stands for the module `name`: `module.attribute` imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # What a module makes of tensors is part of no graph that is being traced.
        with tf.init_scope():
            module = importlib.import_module(self._name)
        return getattr(module, attribute)


event_files = ModuleOnUse("keras_sip.callbacks.events")
posteriors = ModuleOnUse("keras_sip.solvers.posterior")
statistics = ModuleOnUse("scipy.stats")
tensorflow_probability = ModuleOnUse("tensorflow_probability")
