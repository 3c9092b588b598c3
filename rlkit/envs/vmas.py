"""VMAS scenarios: natively batched (`VmasBatch`), and one copy as an RLlib `MultiAgentEnv` (`VmasEnv`).

VMAS (arXiv 2207.03530) steps any number of copies of a scenario as one torch computation. What is held here:

- every batch has its own random stream. VMAS keeps one stream for the whole process, starts it from torch's
  constant default seed, and an unseeded environment in each of two env runners would play the same episodes;
- agents stand in natural order; spaces are Gymnasium's (VMAS still hands out those of the retired `gym`);
- the horizon truncates (it bootstraps), the scenario's own end terminates. VMAS has no horizon by default,
  here it is 100 steps, the value VMAS' authors train with (BenchMARL's `max_steps`);
- actions are clamped into their range instead of failing an assertion on a rounding error;
- `render()` draws with pygame, without a display, where VMAS needs a window or EGL.

Needs the extra: pip install 'rlkit-rllib[vmas]'.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs.pettingzoo import AgentId, MultiStep, natural_order
from rlkit.errors import UsageError, did_you_mean

# gym, which VMAS imports for its space classes, prints an advert.
with contextlib.redirect_stderr(io.StringIO()):
    try:
        import vmas
        from vmas.simulator.environment import Environment
    except ImportError as missing:
        raise UsageError(
            f"VMAS cannot be imported ({missing}); run: pip install 'rlkit-rllib[vmas]'"
        ) from missing

HORIZON = 100
OWN_OPTIONS = (
    "num_envs",
    "max_steps",
    "continuous_actions",
    "multidiscrete_actions",
    "device",
    "seed",
    "render_mode",
)


def _gymnasium_space(space: Any) -> gym.Space:
    """Translate a space of the retired `gym` package."""
    kind = type(space).__name__
    if kind == "Box":
        return gym.spaces.Box(space.low, space.high, dtype=space.dtype.type)
    if kind == "Discrete":
        return gym.spaces.Discrete(int(space.n))
    if kind == "MultiDiscrete":
        return gym.spaces.MultiDiscrete(np.asarray(space.nvec))
    return gym.spaces.Dict({key: _gymnasium_space(part) for key, part in space.spaces.items()})


class VmasBatch:
    """`num_envs` copies of a scenario, stepped as one computation. E copies, N agents, O observation, A action.

    Args:
        scenario: file name of a scenario in `vmas.scenarios`, e.g. `balance`, `simple_spread`.
        num_envs: E.
        max_steps: steps after which a copy is truncated; `None` for never.
        continuous_actions: Box actions, else Discrete (or MultiDiscrete with `multidiscrete_actions`).
        device: where the simulation runs.
        seed: of this batch's own random stream; `None` draws one from the operating system.
        **kwargs: arguments of the scenario (`n_agents`, …).

    Attributes:
        possible_agents: agent names in natural order; the last axis of rewards.
        observation_spaces, action_spaces: of each agent, for one copy.
        env: the `vmas` Environment.
    """

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        *,
        max_steps: int | None = HORIZON,
        continuous_actions: bool = True,
        multidiscrete_actions: bool = False,
        device: str = "cpu",
        seed: int | None = None,
        **kwargs: Any,
    ):
        self.num_envs = num_envs
        self._stream = _stream(seed)
        with self._own_stream(), torch.no_grad(), _unused_options(scenario):
            self.env = vmas.make_env(
                scenario,
                num_envs=num_envs,
                device=device,
                continuous_actions=continuous_actions,
                multidiscrete_actions=multidiscrete_actions,
                max_steps=max_steps,
                clamp_actions=True,
                terminated_truncated=True,
                dict_spaces=True,
                **kwargs,
            )
        self.possible_agents = natural_order(agent.name for agent in self.env.agents)
        self.observation_spaces = {
            a: _gymnasium_space(self.env.observation_space[a]) for a in self.possible_agents
        }
        self.action_spaces = {a: _gymnasium_space(self.env.action_space[a]) for a in self.possible_agents}

    def reset(self, seed: int | None = None) -> dict[AgentId, Any]:
        """Start every copy anew. Returns observations (E, O) per agent (nested ones: dicts of them)."""
        if seed is not None:
            self._stream = _stream(seed)
        with self._own_stream(), torch.no_grad():
            return self.env.reset()

    def step(
        self, actions: Mapping[AgentId, torch.Tensor]
    ) -> tuple[
        dict[AgentId, Any], torch.Tensor, torch.Tensor, torch.Tensor, dict[AgentId, dict[str, torch.Tensor]]
    ]:
        """Step every copy. Copies that ended go on until they are `reset_where`.

        Args:
            actions: per agent (E, A) floats, or integers (E,) for Discrete, (E, parts) for MultiDiscrete.

        Returns:
            observations (E, O) per agent; rewards (E, N) in the order of `possible_agents`; terminated (E,)
            and truncated (E,) booleans, shared by all agents; infos per agent.
        """
        with self._own_stream(), torch.no_grad():
            obs, rewards, terminated, truncated, infos = self.env.step(dict(actions))
        # `wheel` returns rewards of shape (E, 1)
        stacked = torch.stack([rewards[agent].reshape(-1) for agent in self.possible_agents], dim=-1)
        return obs, stacked, terminated, truncated & ~terminated, infos

    def reset_where(self, ended: torch.Tensor) -> dict[AgentId, Any]:
        """Start the copies marked in `ended` (E,) anew and return the observations of all copies."""
        with self._own_stream(), torch.no_grad():
            if bool(ended.all()):
                return self.env.reset()
            for index in torch.nonzero(ended).flatten().tolist():
                self.env.reset_at(index, return_observations=False)
            return self.env.get_from_scenario(True, False, False, False)[0]

    def render(self, index: int = 0) -> np.ndarray:
        """Draw one copy: (height, width, 3) uint8."""
        from rlkit.envs.vmas_drawing import draw

        return draw(self.env, index)

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Lend this batch's stream to VMAS, which reads and writes one list for the whole process."""
        shared: list[Any] = Environment.vmas_random_state
        others = list(shared)
        shared[:] = self._stream
        try:
            yield
        finally:
            self._stream = list(shared)
            shared[:] = others


def _stream(seed: int | None) -> list[Any]:
    """Return a torch, a numpy and a Python random state, in the order VMAS keeps them."""
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    return [
        torch.Generator().manual_seed(seed).get_state(),
        np.random.RandomState(seed).get_state(),
        random.Random(seed).getstate(),
    ]


@contextlib.contextmanager
def _unused_options(scenario: str) -> Iterator[None]:
    """Turn VMAS' warning about an argument that a scenario does not use into an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        unused = re.match(r"Scenario kwargs: (\{.*\}) passed but not used", str(warning.message))
        if unused is None:
            continue
        name = re.findall(r"'(\w+)':", unused[1])[0]
        known = [*OWN_OPTIONS, *_scenario_options(scenario)]
        raise UsageError(
            f"env_config.{name}: 'vmas/{scenario}' has no such argument{did_you_mean(name, known)}; "
            f"it takes {', '.join(known)}"
        )


def _scenario_options(scenario: str) -> list[str]:
    """Read the arguments of a scenario off its source: it takes them by `kwargs.pop("name", default)`."""
    folder = Path(vmas.__file__).parent / "scenarios"
    source = next(folder.rglob(f"{scenario}.py")).read_text(encoding="utf-8")
    return sorted(set(re.findall(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)""", source)))


class VmasEnv(MultiAgentEnv):
    """One copy of a scenario as a `MultiAgentEnv`; arguments as for `VmasBatch`.

    One copy costs as much as hundreds: a step of `simple_spread` takes 1.8 ms of CPU for 1 copy and 1.9 ms for 512
    (one core; `balance` 5.1 and 7.6 ms). Use this class to look and to evaluate, `VmasBatch` to train.

    Attributes:
        batch: the one copy.
    """

    def __init__(self, scenario: str, *, render_mode: str | None = None, **kwargs: Any):
        if kwargs.pop("num_envs", 1) != 1:
            raise UsageError(
                "env_config.num_envs: VmasEnv is one copy; set env_runners.num_envs_per_env_runner"
            )
        self._scenario, self._options = scenario, kwargs
        self.batch = self.batched(1)
        self.possible_agents = list(self.batch.possible_agents)
        self.agents = list(self.possible_agents)
        super().__init__()
        self.observation_spaces = dict(self.batch.observation_spaces)
        self.action_spaces = dict(self.batch.action_spaces)
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "name": f"vmas/{scenario}"}
        self._device = self.batch.env.device

    def batched(self, num_envs: int) -> VmasBatch:
        """Make many copies of the same scenario, stepped as one."""
        return VmasBatch(self._scenario, num_envs, **self._options)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.agents = list(self.possible_agents)
        observations = self.batch.reset(seed)
        return {agent: _first(observations[agent]) for agent in self.agents}, {
            agent: {} for agent in self.agents
        }

    def step(self, action_dict: Mapping[AgentId, Any]) -> MultiStep:
        actions = {
            agent: torch.as_tensor(np.asarray(action_dict[agent], np.float32)[None], device=self._device)
            for agent in self.possible_agents
        }
        obs, rewards, terminated, truncated, infos = self.batch.step(actions)
        names: Sequence[AgentId] = self.possible_agents
        reward = dict(zip(names, rewards[0].tolist(), strict=True))
        ended, cut = bool(terminated[0]), bool(truncated[0])
        if ended or cut:
            self.agents = []
        return (
            {agent: _first(obs[agent]) for agent in names},
            reward,
            {**dict.fromkeys(names, ended), "__all__": ended},
            # no flags per agent: RLlib would take the episode for terminated (rlkit/envs/pettingzoo.py)
            {**dict.fromkeys(names, False), "__all__": cut},
            {agent: {key: _first(value) for key, value in infos[agent].items()} for agent in names},
        )

    def get_agent_ids(self) -> set[AgentId]:
        return set(self.possible_agents)

    def render(self) -> np.ndarray | None:
        """Draw the copy, with `render_mode="rgb_array"`."""
        return self.batch.render() if self.render_mode == "rgb_array" else None


def _first(value: Any) -> Any:
    """Take the only copy out of a batched tensor, or of nested ones."""
    return tree.map_structure(lambda v: v[0].cpu().numpy() if isinstance(v, torch.Tensor) else v, value)
