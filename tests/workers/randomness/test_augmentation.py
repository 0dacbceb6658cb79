import numpy as np
import pytest
import torch

from workers.randomness.augmentation import augment


def naive(images, crop, flip, rng):
    """Crop and flip one image after the other, with the draws in the documented order."""
    count, channels, height, width = images.shape
    offsets = rng.integers(0, 2 * crop + 1, size=(count, 2)) if crop else np.zeros((count, 2), dtype=int)
    flips = rng.random(count) < 0.5 if flip else np.zeros(count, dtype=bool)
    result = np.empty_like(images)
    for i in range(count):
        padded = np.zeros((channels, height + 2 * crop, width + 2 * crop), dtype=images.dtype)
        padded[:, crop : crop + height, crop : crop + width] = images[i]
        down, right = offsets[i]
        piece = padded[:, down : down + height, right : right + width]
        result[i] = piece[:, :, ::-1] if flips[i] else piece
    return result


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (2, False), (0, True), (3, True)])
def test_equals_a_naive_loop(crop, flip):
    images = np.random.default_rng(0).normal(size=(32, 3, 7, 9)).astype(np.float32)
    got = augment(torch.from_numpy(images), crop, flip, np.random.default_rng(5))
    np.testing.assert_array_equal(got.numpy(), naive(images, crop, flip, np.random.default_rng(5)))
