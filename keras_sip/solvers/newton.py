"""Newton's method: the stationary point of the quadratic model."""

import dataclasses

import keras

from keras_sip.errors import check_number
from keras_sip.solvers.base import InverseSolver
from keras_sip.solvers.curvature import check_few_components, curvature, curvature_step, newton_components


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Newton(InverseSolver):
    """dx = -step_size * (H + damping I)^-1 g, with the gradient g and the Hessian H of L at x.

    Near a minimum with a regular Hessian the error is squared in each step. Elsewhere it steps to whatever stationary
    point the quadratic model has, saddles and maxima too: then `SaddleFreeNewton`. Where H is singular the status says
    BREAKDOWN; a direction without slope or curvature is left alone.

    Dense, by automatic differentiation and eigenvectors (a factorisation of a singular matrix would stop the whole
    batch): for x of at most 256 components. The simulator must have second derivatives.

    Scale law, for damping 0: any invertible map of x; any unit of y.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Section 3.3; the paper, Section 2.2.

    Args:
        step_size: Factor on the step; 1 is Newton's.
        damping: Added to the diagonal of H, in units of L / x^2.
    """

    step_size: float = 1.0
    damping: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_number("step_size", self.step_size, exclusive=True)
        check_number("damping", self.damping)

    def check(self, simulator):
        super().check(simulator)
        check_few_components(simulator, self)

    def step(self, problem, x, state):
        model = problem.quadratic_model(x)
        damping = self.damping / problem.scale_square() if self.damping > 0 else None
        along = curvature(model, problem.simulator.dtype, damping=damping)
        components, undefined = newton_components(along)
        return curvature_step(x, model, along, self.step_size * along.displacement(components), undefined)
