"""What an array runner returns to a learner that reads columns: T iterations of N environments.

Legend: T iterations, N environments, ... the shape of one item. "Nested" means arrays in dicts and tuples, nested like
the space; a plain space is one array.

One iteration steps every environment once. An environment whose episode ended in iteration t is reset in iteration
t + 1 (Gymnasium's NEXT_STEP): that row is `fresh`, its action was ignored, its reward is 0, and it is no step. So

    obs[t], actions[t], rewards[t], obs[t + 1]

are a transition wherever `fresh[t]` is false, and `obs[t + 1]` of a step that ended an episode is the true last
observation of that episode, from which a truncated episode bootstraps. `obs[t + 1]` of a fresh row is the first
observation of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class ArrayFragment:
    """T iterations of N environments, in the order they were played.

    Attributes:
        obs: nested (T + 1, N, ...), what the module saw; float64 has become float32. The last row belongs to the
            state in which the next fragment goes on.
        actions: nested (T, N, ...), the module's actions (before they were scaled and clipped for the environment).
        rewards: (T, N) float64, 0 in fresh rows.
        terminated: (T, N) bool, false in fresh rows. Where an environment sets both flags, so do these.
        truncated: (T, N) bool, false in fresh rows.
        fresh: (T, N) bool, rows that are a reset and no step. Learners leave them out.
        action_logp: (T, N) float32, log-probability of the module's action, 0 for a greedy one; None if the module
            chooses without a distribution (DQN).
        action_dist_inputs: (T, N, D) float32, inputs of the distribution; None as above.
        states: nested (T + 1, N, ...) float32, the recurrent state with which the module saw `obs` of that row: the
            initial state in the first row of an episode. None for a module without state.
        extras: nested (T, N, ...) by name, whatever else `forward_exploration` gave.
        times: (N,) int64, steps that the episodes in row 0 had before this fragment.
        infos: T + 1 lists of N dicts, beside `obs`; None unless asked for.
        weights_seq_no: number of the weights that acted.
    """

    obs: Any
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    fresh: np.ndarray
    action_logp: np.ndarray | None = None
    action_dist_inputs: np.ndarray | None = None
    states: Any = None
    extras: dict[str, Any] = field(default_factory=dict)
    times: np.ndarray | None = None
    infos: list[list[dict[str, Any]]] | None = None
    weights_seq_no: int = 0

    @property
    def done(self) -> np.ndarray:
        """(T, N) bool: the step was the last one of its episode."""
        return self.terminated | self.truncated

    @property
    def env_steps(self) -> int:
        """How many of the T x N rows are steps."""
        return int(self.fresh.size - self.fresh.sum())

    def goes_on(self) -> np.ndarray:
        """(T, N) bool: row t + 1 is the next step of the same episode; a recursion over time carries there.

        The last row does not go on within the fragment; unless `terminated`, it bootstraps from `obs[T]`.
        """
        on = np.zeros(self.fresh.shape, bool)
        on[:-1] = ~self.fresh[:-1] & ~self.done[:-1] & ~self.fresh[1:]
        return on
