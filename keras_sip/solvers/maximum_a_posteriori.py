"""Maximum a posteriori: Gauss-Newton in white coordinates of a Gaussian prior, for every simulator, with error bars."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sip._on_use import posteriors
from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.priors import GaussianPrior, Whitened
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers import spectral_posterior
from keras_sip.solvers.base import InverseSolver, SolverResult, Step
from keras_sip.solvers.directional_products import component_products, directional_products
from keras_sip.solvers.discrepancy import noise_objective
from keras_sip.solvers.linear_model import check_least_squares
from keras_sip.solvers.problem import InverseProblem, half_square
from keras_sip.solvers.status import Status
from keras_sip.solvers.whitened_problem import (
    WhitenedModel,
    WhitenedProblem,
    noise_deviation,
    squared_norm,
)

# Samples of the rest that tell what it does in y.
REST_PROBES = 16
# No trust region: radii are squared.
LARGEST_RADIUS = 1e100
ANCHORS = ("prior", "start")
# The first trust region, in units of a sample's distance from the mean, sqrt(k), plus the start's.
FIRST_RADIUS = 2.0
# Gain ratios below and above which the trust region shrinks and grows.
POOR, GOOD = 0.25, 0.75
SHRINK, GROW = 0.25, 2.0
# A decrease below so many roundings of phi cannot be seen, and is none.
ROUNDINGS = 8
# An answer explains y where its squared residual is at most this many times the noise's.
EXPLAINED = 1.05


class _State(NamedTuple):
    radius: tf.Tensor
    anchor: Whitened


class _Search(NamedTuple):
    """The search for an acceptable share of the step, per example."""

    share: tf.Tensor
    z: Whitened
    gain: tf.Tensor
    accepted: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaximumAPosteriori(InverseSolver):
    """x = argmin |r(x)|^2 / (2 sigma^2) + |x - m|^2_{C^-1} / 2,   N(m, C) a `GaussianPrior`.

    Gauss-Newton in white coordinates z, x = m + C^(1/2) z, in a trust region. It needs `forward` and a prior, which it
    measures on the simulator's `sample` unless it is given, and nothing else of the physics.

    - x0 is first moved into the prior, and P linearised there: onto its components; with `rest_steps` the rest is kept,
      as far as it is plausible.
    - J C^(1/2) of the components is formed by forward-mode products of all of them at once, and the small system solved
      exactly; a step that does not lower the sum above is shortened.
    - With `rest_steps` conjugate gradients find what the components leave out: see `WhitenedModel.full_step`.
    - `refine` and `posterior` work in all of the prior, dense, where x is small enough: components cap an answer.
    - Where P is linear and diagonal in a Fourier, sine or cosine basis to rounding, which is measured
      (`DiagonalForm.measured`), the minimum is found mode by mode, in one step.

    sigma is context["noise_level"] where it is known, one standard deviation for each example or for each datum; 0
    means that y is exact but for its rounding. Elsewhere it is `noise` times the root mean square of the residual,
    which makes the prior a regularisation that fades as y is explained.

    `posterior` gives error bars, which are worth as much as the noise level and the prior.

    Scale law: any invertible map of x with the prior mapped along (`rest_steps` and measured forms: any common factor);
    any unit of y.

    Source: Bui-Thanh, Ghattas, Martin, Stadler, SISC 35 (2013); Nocedal and Wright, Numerical Optimization, 2nd ed.,
    Algorithms 4.1 and 4.3, Section 10.3.

    Args:
        prior: A `GaussianPrior` of x in physical units; None measures it on the simulator's samples, once.
        noise: Standard deviation of the noise over the residual's root mean square, where no level is known.
        anchor: "prior", the sum above; or "start", the prior on the change of x: |x - x0|^2_{C^-1}.
        rest_steps: CG steps in what the components leave out, two simulations each; 0 leaves it at the prior's mean.
        max_tries: Shares of a step that are tried, each a quarter of the one before.
        spectral: Whether to look for a basis in which P is diagonal.
        largest_dense: Up to so many unknowns `refine` and `posterior` take the whole covariance, with one product with
            J for each of them; above, or with 0, the components that training takes (and `rest_steps`).
    """

    on_failure: str = "zero"
    prior: GaussianPrior | None = None
    noise: float = 1e-2
    anchor: str = "prior"
    rest_steps: int = 0
    max_tries: int = 4
    spectral: bool = True
    largest_dense: int = 1024

    def __post_init__(self):
        super().__post_init__()
        check_number("noise", self.noise)
        check_choice("anchor", self.anchor, ANCHORS)
        check_positive_int("rest_steps", self.rest_steps, minimum=0)
        check_positive_int("max_tries", self.max_tries)
        check_positive_int("largest_dense", self.largest_dense, minimum=0)
        if self.prior is not None and not isinstance(self.prior, GaussianPrior):
            raise TypeError(
                three_part(
                    "`prior` to be a GaussianPrior or None",
                    f"a {type(self.prior).__name__}",
                    "Measure one: GaussianPrior.measured(simulator), or GaussianPrior.measured(simulator, x=array).",
                )
            )

    def check(self, simulator):
        super().check(simulator)
        check_least_squares(simulator, self)
        if self.prior is not None:
            self.prior.check(simulator)
        elif not simulator.has("sample"):
            raise TypeError(
                three_part(
                    "a simulator with `sample`, on which a prior is measured, or a prior",
                    f"{simulator!r} without `sample` and prior=None",
                    "MaximumAPosteriori(prior=GaussianPrior.measured(simulator, x=your_examples)).",
                )
            )

    def prior_of(self, simulator):
        """The prior in the units of a simulator's x, with a rest only where it takes part."""
        if isinstance(simulator, Nondimensional):
            return self.prior_of(simulator.physical).rescaled(simulator.scale)
        prior = self._physical_prior(simulator)
        return prior if self.rest_steps else prior.without_rest()

    def for_answers(self, simulator):
        """The solver of `refine` and `posterior`: in all of the prior, dense, up to `largest_dense` unknowns.

        Steps of training are cheap instead, in the prior's components.
        """
        prior = self._physical_prior(simulator)
        if prior.spectrum is None or prior.size > self.largest_dense or self.form_of(simulator) is not None:
            return self
        return self.with_options(prior=prior.dense(), rest_steps=0)

    def form_of(self, simulator):
        """The measured `DiagonalForm` and the prior's spectrum in its basis, or None."""
        return spectral_posterior.measured(simulator, self.prior) if self.spectral else None

    def init(self, problem, x):
        prior = self.prior_of(problem.simulator)
        z = self._position(prior, x)
        anchor = z if self.anchor == "start" else tf.nest.map_structure(tf.zeros_like, z)
        # A start that no sample of the prior is like must be able to come back at once.
        distance = tf.norm(tf.cast(z.components, tf.float64), axis=1)
        return _State(FIRST_RADIUS * (distance + np.sqrt(max(prior.num_components, 1))), anchor)

    def step(self, problem, x, state):
        prior = self.prior_of(problem.simulator)
        model = self._model(problem, prior, self._position(prior, x), state.anchor)
        whitened = model.whitened
        step = (
            model.full_step(state.radius, self.rest_steps) if self.rest_steps else model.components_step(state.radius)
        )
        found = self._search(whitened, model, step)
        x_new = prior.unwhiten(found.z)
        update = x_new - x
        possible = step.decrease(1.0)
        rounding = ROUNDINGS * np.finfo(x.dtype.as_numpy_dtype).eps
        # At the minimum already, but x itself may still have to be moved into the prior.
        at_minimum = possible <= rounding * model.value
        moved = batched.max_abs(update / tf.constant(prior.scale, x.dtype))
        converged = at_minimum & (moved <= np.sqrt(rounding))
        finite = tf.math.is_finite(possible)
        failure = tf.where(found.accepted | at_minimum, 0, int(Status.REJECTED))
        length = tf.sqrt(squared_norm(step.step) / (squared_norm(model.z) + prior.num_components))
        within = tf.sqrt(squared_norm(step.step)) < state.radius
        infinite = tf.constant(np.inf, tf.float64)
        return Step(
            update=update,
            x=x_new,
            objective=half_square(problem.residual(x)) if self.residual_tolerance else model.misfit,
            converged=converged,
            failure=tf.where(finite, failure, int(Status.NON_FINITE)),
            state=_State(self._radius(state.radius, step, found), state.anchor),
            # A point outside the prior is no solution; a step that the trust region cut promises no end.
            optimality=self._cast(tf.where(moved <= np.sqrt(rounding), model.optimality(), infinite), x),
            decrease=self._cast(tf.where(within, possible / model.value, infinite), x),
            length=self._cast(tf.where(moved <= np.sqrt(rounding), length, infinite), x),
        )

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        form = self.form_of(simulator)
        if form is None:
            return super().solve(simulator, x0, y_target, context, y0, evaluate_result)
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x0, y0)
        start = x0 if self.anchor == "start" else form.mean_like(x0)
        x = form.minimum(problem, start, self.noise, here=x0)
        finite = batched.all_finite(x)
        status = tf.where(finite, int(Status.MAX_STEPS), int(Status.NON_FINITE))
        return self.finish(problem, x0, x - x0, status, tf.cast(finite, tf.int32), evaluate_result, x=x)

    def refine(self, simulator, x0, y_target, context=None, *, steps):
        """Go on from a good guess for `steps` steps: towards the minimum of residual and prior together.

        An answer is no worse where its residual is no larger, or where it explains y to the known noise (discrepancy
        principle): beyond that a lower objective is a fit of noise. Else x0 is returned.

        Args, Returns: As of `InverseSolver.refine`; the objective is L.
        """
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        y0 = simulator.forward(x0, context)
        if self.form_of(simulator) is not None:
            result = self._repeated(simulator, x0, y_target, context, steps)
            # Told to take no step, it takes none.
            asked = (tf.cast(steps, tf.int32) > 0) & tf.ones_like(result.num_steps, tf.bool)
            none = (x0, tf.zeros_like(x0), tf.zeros_like(result.num_steps))
            x, update, num_steps = batched.where_example(asked, (result.x, result.update, result.num_steps), none)
            result = result._replace(x=x, update=update, num_steps=num_steps)
        else:
            solver = self.for_answers(simulator)
            problem = InverseProblem(simulator, y_target, context).scaled_at(x0, y0)
            progress = solver._iterate(problem, solver._start(problem, x0), steps)
            result = SolverResult(
                progress.x, progress.update, None, progress.status, progress.num_steps, None, progress.optimality
            )
        return self._no_worse(simulator, x0, y0, y_target, context, result)

    def posterior(self, simulator, x, y_target, context=None, *, steps=10):
        """The Gaussian of x given y, N(x_MAP, (J^T J / sigma^2 + C^-1)^-1): a `Posterior`.

        A tensorflow-probability distribution of x `[B, *x_shape]` with mean, stddev and variance of each component and
        samples. Its root is of the size of the prior's components, never dense in fields. What the components leave out
        keeps the prior's variance, and what it does in y counts as noise (measured with 16 samples of it). Exact where
        P is linear and the components, or a measured form, are the whole prior; else it is the Gaussian that fits at
        the minimum (Laplace's approximation), and of one minimum.

        Args:
            simulator: The process P.
            x: Where the search for the minimum starts, `[B, *x_shape]`.
            y_target, context: As in `solve`; the noise level should be known.
            steps: Steps at most.
        """
        x, y_target, context = self.prepare(simulator, x, y_target, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x)
        form = self.form_of(simulator)
        if form is not None:
            return form.posterior(problem, self.noise)
        solver = self.for_answers(simulator).with_options(anchor="prior")
        progress = solver._iterate(problem, solver._start(problem, x), steps)
        return solver._around(problem, progress.x)

    def _around(self, problem, x):
        """The `Posterior` with P linearised at x."""
        simulator = problem.simulator
        prior, full = self.prior_of(simulator), self.prior_of_posterior(simulator)
        z = self._position(prior, x)
        at_mean = tf.nest.map_structure(tf.zeros_like, z)
        if full.spectrum is None:
            model = self._model(problem, prior, z, at_mean)
            return posteriors.Posterior(prior.unwhiten(z), model.cholesky(), prior=full)
        # What the components leave out of x is noise in y to them, besides the measurement's.
        variance = self._variance_of_rest_in_y(problem, prior.unwhiten(z), full)
        model = self._model(problem, prior, z, at_mean, variance)
        if not self.rest_steps:
            infinite = tf.fill(tf.shape(x)[:1], tf.constant(LARGEST_RADIUS, tf.float64))
            z = moved_along(z, model.components_step(infinite).step, tf.ones_like(infinite))
        return posteriors.Posterior(prior.unwhiten(z), model.cholesky(), prior=full)

    def prior_of_posterior(self, simulator):
        """The prior with its rest, which error bars have whether the solver looks for it or not."""
        form = self.form_of(simulator)
        if form is not None:
            return form.prior
        prior = self.for_answers(simulator)._physical_prior(simulator)
        return prior.rescaled(simulator.scale) if isinstance(simulator, Nondimensional) else prior

    def _physical_prior(self, simulator):
        """The prior in the physical units of x, with its rest."""
        physical = simulator.physical if isinstance(simulator, Nondimensional) else simulator
        return measured_prior(physical) if self.prior is None else self.prior

    def get_config(self):
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        prior = config["prior"]
        return {**config, "prior": None if prior is None else keras.saving.serialize_keras_object(prior)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config.get("prior"), dict):
            config["prior"] = keras.saving.deserialize_keras_object(config["prior"])
        return super().from_config(config)

    def _position(self, prior, x):
        """White coordinates of x, moved into the prior."""
        z = prior.whiten(x)
        if not z.has_field:
            return z
        # No longer than a sample of the prior is: a raw network's small scales are not.
        length = batched.norm(z.field)
        longest = np.sqrt(prior.size)
        share = longest / tf.maximum(length, tf.cast(longest, length.dtype))
        return z._replace(field=z.field * batched.expand(share, z.field))

    def _model(self, problem, prior, z, anchor, more_variance=None):
        residual, jacobian = component_products(problem, prior.unwhiten(z), prior)
        deviation = noise_deviation(problem, residual, self.noise)
        if more_variance is not None:
            deviation = tf.sqrt(tf.square(deviation) + more_variance)
        return WhitenedModel(WhitenedProblem(problem, prior, deviation, anchor), z, residual, jacobian)

    def _variance_of_rest_in_y(self, problem, x, prior):
        """E |J e|^2 of each entry of the residual, e the rest of a sample, in the problem's unit."""
        with tf.init_scope():
            white = prior.white(REST_PROBES, (0, 0), dtype="float64")
            rest = prior.root(white._replace(components=tf.zeros_like(white.components))).numpy()
        residual, products = directional_products(problem, x, rest)
        return tf.reshape(tf.reduce_mean(tf.square(products), axis=1), tf.shape(residual))

    def _search(self, whitened, model, step):
        """Shorten the step of each example until it lowers phi."""
        before = model.value

        def attempt(search):
            z = moved_along(model.z, step.step, search.share)
            gain = (before - whitened.value(z)) / step.decrease(search.share)
            good = (gain > 0) & tf.math.is_finite(gain)
            newly = good & ~search.accepted
            return _Search(
                share=tf.where(search.accepted | newly, search.share, SHRINK * search.share),
                z=batched.where_example(newly, z, search.z),
                gain=tf.where(newly, gain, search.gain),
                accepted=search.accepted | newly,
            )

        ended = ~tf.math.is_finite(before) | ~(step.decrease(1.0) > 0)
        start = _Search(tf.ones_like(before), model.z, tf.zeros_like(before), ended)
        found = tf.while_loop(
            lambda search: ~tf.reduce_all(search.accepted),
            lambda search: (attempt(search),),
            (start,),
            maximum_iterations=self.max_tries,
        )[0]
        return found._replace(accepted=found.accepted & ~ended)

    def _radius(self, radius, step, found):
        length = tf.norm(tf.cast(step.step.components, tf.float64), axis=1)
        shorter = SHRINK * tf.minimum(length, radius)
        shortened = tf.where(found.share < 1.0, found.share * length, radius)
        at_edge = length >= 0.99 * radius
        radius = tf.where(found.gain < POOR, tf.maximum(shorter, SHRINK * shortened), shortened)
        return tf.where((found.gain > GOOD) & at_edge & (found.share == 1.0), GROW * radius, radius)

    def _repeated(self, simulator, x0, y_target, context, steps):
        """Solutions mode by mode, each with the noise relative to what the last one left."""
        solver = self.with_options(on_failure="zero")
        if "noise_level" in (context or {}):
            return solver.solve(simulator, x0, y_target, context)
        first = solver.solve(simulator, x0, y_target, context)

        def again(count, x):
            return count + 1, solver.solve(simulator, x, y_target, context).x

        _, x = tf.while_loop(lambda count, x: count < steps, again, (tf.constant(1), first.x))
        return first._replace(x=x, update=x - x0)

    def _no_worse(self, simulator, x0, y0, y_target, context, result):
        y = simulator.forward(result.x, context)
        objective, start = (simulator.objective(each, y_target, context) for each in (y, y0))
        residual = simulator.residual(y, y_target, context)
        rounding = noise_deviation(InverseProblem(simulator, y_target), residual, 0.0)
        noise = noise_objective(InverseProblem(simulator, y_target, context))
        enough = EXPLAINED * ((0.0 if noise is None else noise) + half_square(rounding + tf.zeros_like(residual)))
        kept = (objective <= tf.maximum(start, enough)) & batched.all_finite(result.update)
        x, update, y = batched.where_example(kept, (result.x, result.update, y), (x0, tf.zeros_like(x0), y0))
        status = tf.where(kept | (result.status >= Status.NON_FINITE), result.status, int(Status.STALLED))
        optimality = tf.where(kept, result.optimality, tf.constant(np.nan, x0.dtype))
        return SolverResult(x, update, y, status, result.num_steps, tf.where(kept, objective, start), optimality)

    @staticmethod
    def _cast(measure, like):
        return tf.cast(measure, like.dtype)


def measured_prior(simulator):
    """The prior of a simulator's own samples, measured once for each simulator."""
    if not hasattr(simulator, "_measured_prior"):
        with tf.init_scope():
            simulator._measured_prior = GaussianPrior.measured(simulator)
    return simulator._measured_prior


def moved_along(z, step, share):
    """z + share * step, in the precision of z."""
    share = tf.cast(share, z.components.dtype)
    return tf.nest.map_structure(lambda part, change: part + batched.expand(share, part) * change, z, step)


def posterior_solver(solver):
    """The solver that gives error bars: the model's own where it can, else one with a measured prior."""
    return solver if hasattr(solver, "posterior") else MaximumAPosteriori()
