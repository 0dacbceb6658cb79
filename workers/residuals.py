"""Residuals at classes that are drawn from a model's own prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def sampled_residuals(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Return softmax(logits) - e_y with y drawn from softmax(logits), (..., classes), one number of `rng` a row.

    Its mean is 0 and its covariance diag(p) - p p^T, the Hessian of the cross-entropy in the logits.
    """
    import torch

    p = logits.detach().softmax(-1)
    drawn = torch.from_numpy(rng.random(tuple(logits.shape[:-1]))).to(p.device)
    classes = (p.double().cumsum(-1) < drawn.unsqueeze(-1)).sum(-1).clamp_(max=logits.shape[-1] - 1)
    return p.scatter_add(-1, classes.unsqueeze(-1), -torch.ones_like(p[..., :1]))
