"""The training objective: multinomial cross-entropy against soft codes, rebalanced by colour."""

from __future__ import annotations

from torch import Tensor


def classification_loss(logits: Tensor, indices: Tensor, weights: Tensor, rebalance: Tensor) -> Tensor:
    """Mean over pixels of -v Σ_q Z_q log softmax(logits)_q: equations 2 and 3 of Zhang et al. 2016.

    logits: (N, Q, h, w). indices, weights: (N, h, w, K), the bins that share a pixel's colour, the nearest first, and
    their shares Z. rebalance: (Q,); v is the weight of the nearest bin. All other bins have Z = 0, so only K
    of the Q terms are computed. Returns a scalar, in nats.
    """
    normalizer = logits.logsumexp(1)
    picked = logits.gather(1, indices.permute(0, 3, 1, 2))
    expected = (picked * weights.permute(0, 3, 1, 2)).sum(1)
    loss: Tensor = (rebalance[indices[..., 0]] * (normalizer - expected)).mean()
    return loss
