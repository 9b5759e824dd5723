"""TensorFlow without graphs, for tests of what is made of its results: a few steps take less than tracing one."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def eagerly():
    """Functions run as Python does; nothing is traced or compiled, but what is exported and tf.data."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
