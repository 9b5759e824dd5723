"""What is known of x before y is seen."""

from keras_sip.priors.gaussian import GaussianPrior, Whitened

__all__ = ["GaussianPrior", "Whitened"]
