"""Time and peak memory of one training step on the heat equation, its physics in float64, by method and batch size.

  python benchmarks/heat_step.py
  python benchmarks/heat_step.py --batch 128 --repeats 20 --output runs/heat_step.json

Measured as by train_step.py, with `sip` by the damped spectral inverse. A SIP step should take no more than 1.15 times
a supervised one. `data` draws the boxes and diffuses them.
"""

import sys

import train_step

if __name__ == "__main__":
    sys.exit(train_step.main(system="heat", description=__doc__))
