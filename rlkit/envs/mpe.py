"""mpe2's parallel environments, stepped as the one world they are.

mpe2 (1.1) writes its scenarios as turn-based (AEC) environments and turns them back into parallel ones: one
parallel step walks through three wrappers once per agent, observes every agent twice, and looks up each attribute
through `__getattr__` chains. That is half the time of a step of `simple_spread`. `WorldSteps` sets all actions, steps
the world once, and returns the same numbers, bit for bit (tests/test_envs_mpe.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv
from pettingzoo.utils import wrappers
from pettingzoo.utils.conversions import aec_to_parallel_wrapper

from rlkit.envs.mpe_physics import hasten


def world_steps(env: Any) -> Any:
    """Return an mpe2 parallel environment as `WorldSteps`; anything else, and windows, as it is."""
    if not isinstance(env, aec_to_parallel_wrapper) or getattr(env, "render_mode", None) == "human":
        return env
    from mpe2._mpe_utils.simple_env import SimpleEnv

    raw = env.unwrapped
    if not isinstance(raw, SimpleEnv):
        return env
    own = all(
        getattr(type(raw), name) is getattr(SimpleEnv, name) for name in ("step", "_execute_world_step")
    )
    known = (
        wrappers.OrderEnforcingWrapper,
        wrappers.ClipOutOfBoundsWrapper,
        wrappers.AssertOutOfBoundsWrapper,
    )
    layer = env.aec_env
    while type(layer) in known:
        layer = layer.env
    if not (own and layer is raw):
        return env
    hasten(raw)
    return WorldSteps(env)


class WorldSteps(ParallelEnv):
    """A parallel mpe2 environment without the turn-based layer.

    Args:
        env: what `mpe2.<scenario>.parallel_env(...)` returns. Resets, rendering and the end of an episode go through
            it, so that it is always in the state its own `step` would leave it in.

    Attributes:
        raw: the `SimpleEnv` with the world.
    """

    def __init__(self, env: Any):
        self.env, self.raw = env, env.unwrapped
        self.possible_agents = list(env.possible_agents)
        self.agents = list(self.possible_agents)
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.state_space = env.state_space
        self._spaces = [self.raw.action_spaces[agent] for agent in self.possible_agents]
        self._bodies = [self.raw.world.agents[self.raw._index_map[agent]] for agent in self.possible_agents]

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        return self.env.action_space(agent)

    @property
    def unwrapped(self) -> Any:
        return self.raw

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        # what the parallel layer's own `reset` does, without a walk through all wrappers for each agent's observation
        self.env.aec_env.reset(seed=seed, options=options)
        self.env.agents = self.raw.agents[:]
        self.agents = list(self.env.agents)
        return self._observations(), dict(self.raw.infos)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        if not self.agents:
            found: tuple[dict, dict, dict, dict, dict] = self.env.step(actions)
            return found
        raw, agents = self.raw, self.possible_agents
        raw.current_actions = [
            _within(space, actions[agent]) for space, agent in zip(self._spaces, agents, strict=True)
        ]
        raw._execute_world_step()
        raw.steps += 1
        cut = raw.steps >= raw.max_cycles
        over = not cut and bool(raw.scenario.is_terminal(raw.world))
        rewards = {agent: 0 + raw.rewards[agent] for agent in agents}
        raw.truncations = dict.fromkeys(agents, cut)
        raw.terminations = dict.fromkeys(agents, over)
        infos = dict(raw.infos)
        observations = self._observations()
        terminations, truncations = dict(raw.terminations), dict(raw.truncations)
        if cut or over:
            self._leave()
        return observations, rewards, terminations, truncations, infos

    def _observations(self) -> dict[str, np.ndarray]:
        raw = self.raw
        return {
            agent: raw.scenario.observation(body, raw.world).astype(np.float32)
            for agent, body in zip(self.possible_agents, self._bodies, strict=True)
        }

    def together(self, envs: Sequence[Any]) -> Any:
        """Return adapted and checked copies of this environment that are stepped on arrays; None if they cannot be."""
        from rlkit.envs.mpe_together import together

        return together(envs, WorldSteps)

    def end(self, rewards: dict[str, float]) -> None:
        """Truncate an episode that was stepped from outside (`rlkit.envs.mpe_together`), after its last rewards."""
        self.raw.rewards = rewards
        self.raw.truncations = dict.fromkeys(self.possible_agents, True)
        self._leave()

    def _leave(self) -> None:
        while self.raw.agents:  # the turn-based layer takes out its agents one by one
            self.env.aec_env.step(None)
        self.agents = self.env.agents = []

    def render(self) -> Any:
        return self.env.render()

    def state(self) -> np.ndarray:
        found: np.ndarray = self.env.state()
        return found

    def close(self) -> None:
        self.env.close()

    def __str__(self) -> str:
        return str(self.env)


def _within(space: Any, action: Any) -> Any:
    """Clip a Box action, as ClipOutOfBoundsWrapper, and refuse a Discrete one outside, as AssertOutOfBoundsWrapper."""
    if isinstance(space, Box):
        assert action.shape == space.shape, (
            f"action should have shape {space.shape}, has shape {action.shape}"
        )
        return action.clip(space.low, space.high)
    assert space.contains(action), "action is not in action space"
    return action
