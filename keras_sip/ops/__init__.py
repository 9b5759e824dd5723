"""Pure tensor functions: no classes, no state, nothing from the rest of the package.

Fields are `[B, *resolution, C]`, x axis first, in float32 or float64. Every function compiles under XLA, and one
example of a batch never touches another: a NaN in one leaves the others bit-identical.
"""

from keras_sip.ops import batched, conjugate_gradient, derivatives, random_fields, spectral, stencils

__all__ = ["batched", "conjugate_gradient", "derivatives", "random_fields", "spectral", "stencils"]
