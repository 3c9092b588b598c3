"""The equations of MADDPG as pure functions of tensors, without RLlib types.

Sources: Lowe et al. 2017 (arXiv 1706.02275v3) and their code, github.com/openai/maddpg; TD3: Fujimoto et al. 2018
(arXiv 1802.09477); Gumbel-softmax: Jang et al. 2017 (arXiv 1611.01144).

Legend: B rows (of a batch, or of batch and time), A size of an action, n number of choices. Every function takes any
leading dimensions where B stands.
"""

from __future__ import annotations

import torch

# logits of forbidden actions; RLlib's Categorical and softmax give them probability 0
FORBIDDEN = float(torch.finfo(torch.float32).min)


def td_targets(
    r_t: torch.Tensor, discount_t: torch.Tensor, terminated_t: torch.Tensor, q_tp1: torch.Tensor
) -> torch.Tensor:
    """y = r + γ^n Q'(x', a') unless terminated (Lowe et al., eq. 6); a truncated episode bootstraps. All (B,).

    Args:
        r_t: rewards of the n steps, already discounted and summed.
        discount_t: γ^n.
        terminated_t: bool; the agent's own episode ended within the n steps.
        q_tp1: the target critics' value of the observation after the n steps.
    """
    return r_t + discount_t * q_tp1 * (~terminated_t)


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over all but the first dimension, of the entries where `mask` is true; 0 where there are none.

    Args:
        values: (n, B).
        mask: (n, B) bool, or None for all entries.
    """
    if mask is None:
        return values.flatten(1).mean(dim=1)
    weight = mask.to(values.dtype).flatten(1)
    return (values.flatten(1) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def critic_losses(
    q_t: torch.Tensor, y_t: torch.Tensor, weights: torch.Tensor | None, mask: torch.Tensor | None
) -> torch.Tensor:
    """Mean of w (Q - y)² of each critic, (n,).

    Args:
        q_t: (n, B).
        y_t: (n, B), without a gradient.
        weights: importance weights of prioritized replay, broadcastable to (n, B), or None.
        mask: (n, B) bool: the agent acted; None for everywhere.
    """
    errors = (q_t - y_t).square()
    return masked_mean(errors if weights is None else errors * weights, mask)


def actor_losses(
    q_t: torch.Tensor, logits_t: torch.Tensor, regularisation: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """-mean Q + c · mean(logits²) of each actor, (n,); the authors' code has c = 1e-3.

    Args:
        q_t: (n, B), of the actions the actors choose now, with the replayed actions of everybody else.
        logits_t: (n, B, A), what the actors' networks put out before squashing or sampling.
        regularisation: c.
        mask: (n, B) bool: the agent acted; None for everywhere.
    """
    loss = masked_mean(-q_t, mask)
    if regularisation:
        # forbidden actions have logits of -3.4e38
        kept = torch.where(logits_t > FORBIDDEN / 2, logits_t, torch.zeros_like(logits_t))
        loss = loss + regularisation * masked_mean(kept.square().mean(dim=-1), mask)
    return loss


def gumbel(like: torch.Tensor) -> torch.Tensor:
    """Gumbel(0, 1) noise in the shape of `like`."""
    # log of an exponential: one draw per entry, never infinite
    return -torch.empty_like(like).exponential_().clamp_(min=1e-20).log_()


def gumbel_softmax(logits: torch.Tensor, noise: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
    """softmax((logits + noise) / temperature), (B, n).

    Args:
        logits: (B, n).
        noise: Gumbel noise, or zeros.
        temperature: above 0; the smaller, the nearer to one-hot.
        hard: straight-through: a one-hot value with the gradient of the soft one.
    """
    soft = torch.softmax((logits + noise) / temperature, dim=-1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return one_hot + soft - soft.detach()


def smoothed(action: torch.Tensor, noise: torch.Tensor, stddev: float, clip: float) -> torch.Tensor:
    """clip(a + clip(σ ε, -c, c), -1, 1): target policy smoothing (TD3 eq. 14), in units of the action's half range.

    Args:
        action: (B, A), in [-1, 1].
        noise: standard normal, (B, A).
        stddev: σ.
        clip: c.
    """
    return (action + (stddev * noise).clamp(-clip, clip)).clamp(-1.0, 1.0)
