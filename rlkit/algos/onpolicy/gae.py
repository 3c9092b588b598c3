"""Generalised advantage estimation (arXiv 1506.02438) over whole arrays.

Legend: T iterations of a fragment, N environments. A backward recursion over T steps of N numbers each; RLlib's
(2.60, utils/postprocessing/value_predictions.py) runs over T x N single numbers.
"""

from __future__ import annotations

import numpy as np


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    terminated: np.ndarray,
    goes_on: np.ndarray,
    *,
    gamma: float,
    lambda_: float,
) -> np.ndarray:
    """Return the advantages (T, N), float32.

    δ_t = r_t + γ V(s_{t+1}) - V(s_t), without V(s_{t+1}) where the step terminated its episode;
    A_t = δ_t + γ λ A_{t+1} where row t + 1 goes on with the episode of row t, else A_t = δ_t.

    A truncated step, and the last one of a fragment, bootstrap from their own next observation. Rows that are no
    steps (`ArrayFragment.fresh`) get a number that means nothing.

    Args:
        rewards: (T, N).
        values: (T + 1, N), V of the observation before each row, and of the one after the last.
        terminated: (T, N) bool.
        goes_on: (T, N) bool, see `ArrayFragment.goes_on`.
        gamma: discount γ.
        lambda_: λ; 0 is the one-step TD error, 1 the discounted return minus the value.
    """
    assert values.shape == (rewards.shape[0] + 1, *rewards.shape[1:]), (values.shape, rewards.shape)
    assert terminated.shape == goes_on.shape == rewards.shape, (terminated.shape, goes_on.shape)
    values = np.asarray(values, np.float32)
    advantages = (rewards + gamma * np.where(terminated, 0.0, values[1:]) - values[:-1]).astype(np.float32)
    carry = (gamma * lambda_ * goes_on).astype(np.float32)
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] += carry[t] * advantages[t + 1]
    return advantages


def gae_of_team(
    rewards: np.ndarray,
    values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    acted: np.ndarray,
    present: np.ndarray,
    last: np.ndarray,
    *,
    gamma: float,
    lambda_: float,
) -> np.ndarray:
    """Return the advantages (T, E, N), float32, each agent's along its own steps; 0 where it did not act.

    As `gae`, but the row after an agent's step is the next one in which it is present, its last observation included:
    rows in which it waits are passed over. A step after which the agent is never seen again in its episode does not
    bootstrap.

    Args:
        rewards, terminated, truncated, acted: (T, E, N), see `TeamFragment`.
        values: (T + 1, E, N).
        present: (T + 1, E, N) bool.
        last: (T + 1, E) bool, the last observations of episodes and of the sample.
        gamma, lambda_: as of `gae`.
    """
    assert values.shape == present.shape == (rewards.shape[0] + 1, *rewards.shape[1:]), (
        values.shape,
        present.shape,
    )
    values = np.asarray(values, np.float32)
    advantages = np.zeros(rewards.shape, np.float32)
    # of each agent's next row: its value, and its advantage if it is a step of the same life
    following = np.where(present[-1], values[-1], 0.0).astype(np.float32)
    carried = np.zeros_like(following)
    goes_on = ~(terminated | truncated)
    for t in range(len(rewards) - 1, -1, -1):
        if last[t].any():
            ends = last[t][:, None]
            following = np.where(ends, np.where(present[t], values[t], 0.0), following)
            carried = np.where(ends, 0.0, carried)
        bootstrap = np.where(terminated[t], 0.0, following)
        step = rewards[t] + gamma * bootstrap - values[t] + gamma * lambda_ * goes_on[t] * carried
        advantages[t] = np.where(acted[t], step, 0.0)
        carried = np.where(acted[t], advantages[t], carried)
        following = np.where(present[t], values[t], following)
    return advantages


def standardised(advantages: np.ndarray) -> np.ndarray:
    """Return advantages with mean 0 and standard deviation 1, as RLlib's GAE connector does (2.60).

    Args:
        advantages: (B,), those that are learned from.
    """
    # squares of large float32 numbers overflow, and would make zeros of all
    wide = advantages.astype(np.float64)
    result: np.ndarray = ((wide - wide.mean()) / max(1e-4, wide.std())).astype(advantages.dtype)
    return result
