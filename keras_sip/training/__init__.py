"""Training a network with the physics: methods, the Keras model, layers, losses and metrics."""
