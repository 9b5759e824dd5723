"""Ability: what a simulator may know beyond P itself, and the one way to ask for it."""

import enum

from keras_sip.errors import three_part


class Ability(enum.StrEnum):
    """An optional part of a simulator, named like the method or property that gives it.

    Asked for by `simulator.has(Ability.INVERSE)`; the plain name, `simulator.has("inverse")`, does as well.
    """

    RESIDUAL = "residual"
    OBJECTIVE = "objective"
    INVERSE = "inverse"
    SAMPLE = "sample"
    NETWORK_INPUT = "network_input"
    PROJECT = "project"
    DISTANCE = "distance"
    DIAGONAL_FORM = "diagonal_form"
    REVERSE_FORM = "reverse_form"

    @classmethod
    def _missing_(cls, value):
        raise ValueError(
            three_part(
                f"the name of an ability: {', '.join(cls)}",
                f"{value!r}",
                "Ask for one of them; x_shape, y_shape, dtype and forward every simulator has.",
            )
        )


# Properties that are None where they are unknown; the others are methods with a default in `Simulator`.
FORMS = (Ability.DIAGONAL_FORM, Ability.REVERSE_FORM)
