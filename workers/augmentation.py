"""Random crop and horizontal flip of a batch of images, drawn from a run's own stream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, crop: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Return the augmented batch (b, c, h, w): pad by `crop` zeros and crop back at random, then flip half of them.

    Draws, in this order, (b, 2) offsets when `crop` > 0 and (b,) flips when `flip`.
    """
    count, _, height, width = images.shape
    if crop:
        offsets = torch.from_numpy(rng.integers(0, 2 * crop + 1, size=(count, 2))).to(images.device)
        padded = F.pad(images, (crop, crop, crop, crop))
        rows = offsets[:, :1] + torch.arange(height, device=images.device)
        columns = offsets[:, 1:] + torch.arange(width, device=images.device)
        index = torch.arange(count, device=images.device)
        images = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        flipped = torch.from_numpy(rng.random(count) < 0.5).to(images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images
