"""An HTTP server of one exported model: TensorFlow Serving's REST predict format, with micro-batches."""
