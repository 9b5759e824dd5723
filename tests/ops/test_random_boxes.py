"""Soft boxes against an independent drawing, and as functions of the seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import random_boxes, random_fields


def drawn_cell_by_cell(resolution, numbers):
    """The boxes of one example from its uniform numbers, as the formula says."""
    dimensions = len(resolution)
    *boxes, count = numbers
    radius = np.sqrt(dimensions) / 2
    field = np.zeros(resolution)
    for box in np.reshape(boxes, (10, 2 * dimensions + 1))[: int(4 + 7 * count)]:
        centre, half_size, strength = box[:dimensions], box[dimensions:-1], box[-1]
        size = np.array(resolution)
        half_size = half_size * 10 / 64 * size
        centre = np.clip(size / 2 + (centre - 0.5) * 0.8 * size, half_size, size - half_size)
        for cell in np.ndindex(*resolution):
            distance = np.max(np.abs(np.array(cell) + 0.5 - centre) - half_size)
            field[cell] += strength * np.clip(0.5 - distance / radius, 0, 1)
    return field


@pytest.mark.parametrize("resolution", [(20,), (16, 13), (6, 8, 7)])
def test_fields_are_those_of_the_formula(mode, resolution):
    shape = (3, *resolution, 1)
    received = mode(lambda seed: random_boxes.soft_boxes(shape, seed, dtype="float64"))(tf.constant([5, 7], tf.int64))
    numbers = random_fields.uniform([3, 10 * (2 * len(resolution) + 1) + 1], (5, 7), dtype="float64").numpy()
    expected = [drawn_cell_by_cell(resolution, example) for example in numbers]
    np.testing.assert_allclose(received[..., 0], expected, rtol=0, atol=1e-13)


def test_both_precisions_and_all_batch_sizes_give_the_same_fields():
    fields = random_boxes.soft_boxes((4, 16, 12, 2), 3, dtype="float64")
    np.testing.assert_allclose(random_boxes.soft_boxes((4, 16, 12, 2), 3), fields, atol=1e-5)
    np.testing.assert_allclose(random_boxes.soft_boxes((2, 16, 12, 2), 3, dtype="float64"), fields[:2], atol=1e-14)
    assert not np.allclose(fields[..., 0], fields[..., 1])
    assert not np.allclose(fields, random_boxes.soft_boxes((4, 16, 12, 2), 4, dtype="float64"))


def test_boxes_lie_inside_and_their_number_is_uniform():
    numbers = random_fields.uniform([7000, 1], 0).numpy()
    counts = np.bincount(np.floor(4 + 7 * numbers[:, 0]).astype(int))[4:]
    # A thousand of each, which scatter by 29.
    assert counts.shape == (7,)
    assert np.all(np.abs(counts - 1000) < 6 * 29)
    fields = random_boxes.soft_boxes((256, 64, 64, 1), 0).numpy()
    assert fields.min() == 0
    assert fields.max() > 1  # where boxes overlap they add up


def test_uniform_numbers_are_uniform():
    numbers = random_fields.uniform([100_000], 1, dtype="float64").numpy()
    assert 0 < numbers.min() < numbers.max() < 1
    # Moments of the uniform distribution; they scatter by 1e-3.
    assert np.mean(numbers) == pytest.approx(1 / 2, abs=6e-3)
    assert np.mean(numbers**2) == pytest.approx(1 / 3, abs=6e-3)
