"""keras_sip: train neural networks through physics simulators with scale-invariant updates.

Two ideas carry the package: a `Simulator` is the physical process y = P(x); an `InverseSolver` gets from (x0, y*) to a
better x. `SIPPhysicsLayer` puts the solver's update in place of the physics gradient; `SIPModel` is the Keras model
around them.
"""

# ruff: noqa: E402  (the environment must be checked before Keras is imported)
from keras_sip._environment import check_environment
from keras_sip._quiet import import_tensorflow

check_environment()
import_tensorflow()

from typing import TYPE_CHECKING

from keras_sip import (
    callbacks,
)
from keras_sip._on_use import (
    posteriors,
)
from keras_sip._version import (
    __version__,
)
from keras_sip.comparison import (
    Comparison,
    Recipe,
    compare,
    recipe,
)
from keras_sip.data import (
    dataset,
    evaluation_set,
    from_arrays,
)
from keras_sip.diagnostics import (
    check_calibration,
    check_simulator,
    check_solver,
    diagnose,
)
from keras_sip.networks import (
    FNO,
    MLP,
    UNet,
    with_precision,
)
from keras_sip.optimizers import (
    SOAP,
    AdaHessian,
    HalfInverse,
    HessianFree,
    Muon,
    NaturalGradient,
    SecondOrderOptimizer,
)
from keras_sip.priors import (
    GaussianPrior,
)
from keras_sip.serving.export import (
    export_litert,
    export_onnx,
    export_saved_model,
)
from keras_sip.serving.pretrained import (
    load_pretrained,
)
from keras_sip.simulators import (
    Ability,
    AcousticSurvey,
    AcousticWave,
    Burgers,
    Constrained,
    DarcyFlow,
    Degraded,
    DiagonalForm,
    Exponential,
    Heat,
    Laplacian,
    Lorenz,
    LotkaVolterra,
    LowPassed,
    NavierStokes,
    Nondimensional,
    ODESimulator,
    Oscillators,
    Poisson,
    QuantumDipole,
    QuarticBowl,
    ReverseForm,
    RotatedSine,
    Simulator,
    SimulatorWrapper,
    SpectralSimulator,
    WavePacket,
    from_function,
    join_observation,
    split_observation,
)
from keras_sip.solvers import (
    LBFGS,
    AnalyticInverse,
    Chain,
    DampedSpectralInverse,
    DirectInverse,
    Fallback,
    GaussNewton,
    GradientDescent,
    InverseProblem,
    InverseSolver,
    LevenbergMarquardt,
    LimitedStep,
    LineSearch,
    MaximumAPosteriori,
    Newton,
    NormalizedGradient,
    ReverseSimulation,
    SaddleFreeNewton,
    SignStep,
    SolverError,
    SolverResult,
    SpectralInverse,
    Status,
    Step,
    WienerInverse,
    auto_solver,
)
from keras_sip.training.adjoint_mix import (
    AdjointMix,
)
from keras_sip.training.answering_model import AnsweringModel
from keras_sip.training.labels import (
    label_with_solver,
)
from keras_sip.training.layers import (
    PhysicsLayer,
    Project,
    Scale,
    SIPPhysicsLayer,
)
from keras_sip.training.losses import (
    HalfSumOfSquares,
    Objective,
)
from keras_sip.training.methods import (
    SIP,
    Adjoint,
    Batch,
    StepReport,
    Supervised,
    SupervisedThenSIP,
    TrainingMethod,
)
from keras_sip.training.model import (
    SIPModel,
)
from keras_sip.training.network import (
    ScaledNetwork,
)
from keras_sip.training.physics import (
    ScaledPhysics,
)
from keras_sip.training.weight_problem import (
    WeightProblem,
)

if TYPE_CHECKING:
    from keras_sip.solvers.posterior import Posterior

__all__ = [
    "AdjointMix",
    "Ability",
    "AcousticSurvey",
    "AcousticWave",
    "AdaHessian",
    "Adjoint",
    "AnalyticInverse",
    "AnsweringModel",
    "Batch",
    "Burgers",
    "Chain",
    "Comparison",
    "Constrained",
    "DampedSpectralInverse",
    "DarcyFlow",
    "Degraded",
    "DiagonalForm",
    "DirectInverse",
    "Exponential",
    "FNO",
    "Fallback",
    "GaussNewton",
    "GaussianPrior",
    "GradientDescent",
    "HalfInverse",
    "HalfSumOfSquares",
    "Heat",
    "HessianFree",
    "InverseProblem",
    "InverseSolver",
    "LBFGS",
    "LevenbergMarquardt",
    "LimitedStep",
    "LineSearch",
    "Laplacian",
    "Lorenz",
    "LotkaVolterra",
    "LowPassed",
    "MLP",
    "MaximumAPosteriori",
    "Muon",
    "NaturalGradient",
    "NavierStokes",
    "Newton",
    "Nondimensional",
    "ODESimulator",
    "Oscillators",
    "NormalizedGradient",
    "Objective",
    "PhysicsLayer",
    "Poisson",
    "Posterior",
    "Project",
    "QuantumDipole",
    "QuarticBowl",
    "ReverseForm",
    "ReverseSimulation",
    "RotatedSine",
    "SIP",
    "SIPModel",
    "SIPPhysicsLayer",
    "SOAP",
    "SaddleFreeNewton",
    "Scale",
    "ScaledNetwork",
    "ScaledPhysics",
    "SecondOrderOptimizer",
    "SignStep",
    "Simulator",
    "SimulatorWrapper",
    "SolverError",
    "SolverResult",
    "SpectralInverse",
    "SpectralSimulator",
    "Status",
    "StepReport",
    "Step",
    "Supervised",
    "SupervisedThenSIP",
    "TrainingMethod",
    "UNet",
    "WavePacket",
    "WeightProblem",
    "WienerInverse",
    "__version__",
    "auto_solver",
    "callbacks",
    "check_calibration",
    "check_simulator",
    "check_solver",
    "compare",
    "dataset",
    "diagnose",
    "evaluation_set",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "from_arrays",
    "from_function",
    "join_observation",
    "label_with_solver",
    "load_pretrained",
    "split_observation",
    "with_precision",
    "Recipe",
    "recipe",
]


def __getattr__(name: str) -> type:
    # TensorFlow Probability, of which it is a distribution, is imported where it is used.
    if name == "Posterior":
        return posteriors.Posterior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
