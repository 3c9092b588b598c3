"""Q-values of centralised critics, which judge one agent's action among everybody's observations and actions.

A module whose critics do so has `judges_jointly` (true where they can), `joint_inputs` and `joint_q_values`: see
`rlkit.algos.centralised.module`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlkit.play.answers import judges_jointly

# module -> (the rows of its batch as (episode, agent), their observations (B, ...), their module actions (B, ...))
JudgedRows = Mapping[str, tuple[Sequence[tuple[int, Any]], Any, Any]]


def joint_values(modules: Mapping[str, Any], parts: JudgedRows) -> dict[tuple[int, Any], np.ndarray]:
    """Return Q by (episode, agent): of every action (n,) where actions are Discrete, else of the given one, ().

    Agents that do not act in an episode are zeros in the critics' input, as in training.
    """
    judging = [name for name in parts if judges_jointly(modules[name])]
    if not judging:
        return {}
    episodes = sorted({index for where, _, _ in parts.values() for index, _ in where})
    place = {index: row for row, index in enumerate(episodes)}
    vectors: dict[str, torch.Tensor] = {}
    codes: dict[str, torch.Tensor] = {}
    for agent, (vector_size, code_size) in modules[judging[0]].joint_sizes.items():
        vectors[agent] = torch.zeros(len(episodes), vector_size)
        codes[agent] = torch.zeros(len(episodes), code_size)
    with torch.no_grad():
        for name, (where, observations, actions) in parts.items():
            seen, done = modules[name].joint_inputs(observations, actions)
            for row, (index, agent) in enumerate(where):
                vectors[str(agent)][place[index]] = seen[row]
                codes[str(agent)][place[index]] = done[row]
        found: dict[tuple[int, Any], np.ndarray] = {}
        for name in judging:
            where = parts[name][0]
            for agent in {agent for _, agent in where}:
                values = modules[name].joint_q_values(vectors, codes, str(agent)).numpy()
                found |= {(i, a): values[place[i]] for i, a in where if a == agent}
    return found
