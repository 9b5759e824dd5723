"""Physical systems, one a file."""

from keras_sip.simulators.abilities import (
    Ability,
)
from keras_sip.simulators.acoustic_survey import (
    AcousticSurvey,
)
from keras_sip.simulators.acoustic_wave import (
    AcousticWave,
)
from keras_sip.simulators.base import (
    Simulator,
    join_observation,
    split_observation,
)
from keras_sip.simulators.burgers import (
    Burgers,
)
from keras_sip.simulators.constrained import (
    Constrained,
)
from keras_sip.simulators.darcy_flow import (
    DarcyFlow,
)
from keras_sip.simulators.degraded import (
    Degraded,
)
from keras_sip.simulators.exponential import (
    Exponential,
)
from keras_sip.simulators.function import (
    from_function,
)
from keras_sip.simulators.heat import (
    Heat,
)
from keras_sip.simulators.laplacian import (
    Laplacian,
)
from keras_sip.simulators.lorenz import (
    Lorenz,
)
from keras_sip.simulators.low_passed import (
    LowPassed,
)
from keras_sip.simulators.navier_stokes import (
    NavierStokes,
)
from keras_sip.simulators.nondimensional import (
    Nondimensional,
)
from keras_sip.simulators.ode import (
    LotkaVolterra,
    ODESimulator,
)
from keras_sip.simulators.oscillators import (
    Oscillators,
)
from keras_sip.simulators.poisson import (
    Poisson,
)
from keras_sip.simulators.quantum_dipole import (
    QuantumDipole,
)
from keras_sip.simulators.quartic_bowl import (
    QuarticBowl,
)
from keras_sip.simulators.reverse_form import (
    ReverseForm,
)
from keras_sip.simulators.rotated_sine import (
    RotatedSine,
)
from keras_sip.simulators.spectral import (
    DiagonalForm,
    SpectralSimulator,
)
from keras_sip.simulators.wave_packet import (
    WavePacket,
)
from keras_sip.simulators.wrapper import (
    SimulatorWrapper,
)

__all__ = [
    "Ability",
    "AcousticSurvey",
    "AcousticWave",
    "Burgers",
    "Constrained",
    "DarcyFlow",
    "Degraded",
    "DiagonalForm",
    "Exponential",
    "Heat",
    "Laplacian",
    "Lorenz",
    "LotkaVolterra",
    "LowPassed",
    "NavierStokes",
    "Nondimensional",
    "ODESimulator",
    "Oscillators",
    "Poisson",
    "QuantumDipole",
    "QuarticBowl",
    "ReverseForm",
    "RotatedSine",
    "Simulator",
    "SimulatorWrapper",
    "SpectralSimulator",
    "WavePacket",
    "from_function",
    "join_observation",
    "split_observation",
]
