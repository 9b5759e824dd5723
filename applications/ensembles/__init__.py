"""Many small networks trained in one compiled program, and the figures that need them."""
