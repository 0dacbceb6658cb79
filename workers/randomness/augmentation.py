"""Random crop and horizontal flip of a batch of images, drawn from a run's own stream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def draw(count: int, crop: int, flip: bool, rng: np.random.Generator) -> tuple[Tensor | None, Tensor | None]:
    """Draw, in this order, (count, 2) int64 offsets in [0, 2 crop] when `crop` > 0 and (count,) bool flips when `flip`."""
    offsets = torch.from_numpy(rng.integers(0, 2 * crop + 1, size=(count, 2))) if crop else None
    flips = torch.from_numpy(rng.random(count) < 0.5) if flip else None
    return offsets, flips


def apply(images: Tensor, crop: int, offsets: Tensor | None, flips: Tensor | None) -> Tensor:
    """Return the images (b, c, h, w) padded by `crop` zeros and cropped back at the offsets, then flipped where drawn."""
    count, _, height, width = images.shape
    if offsets is not None:
        offsets = offsets.to(images.device)
        padded = F.pad(images, (crop, crop, crop, crop))
        rows = offsets[:, :1] + torch.arange(height, device=images.device)
        columns = offsets[:, 1:] + torch.arange(width, device=images.device)
        index = torch.arange(count, device=images.device)
        images = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flips is not None:
        images = torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
    return images


def augment(images: Tensor, crop: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Return the batch (b, c, h, w) with one crop and one flip drawn for every image (see `draw` for the order of draws)."""
    return apply(images, crop, *draw(len(images), crop, flip, rng))
