"""Observations in, actions out, without an env runner: what RLlib's runners do between two environment steps.

A `Policy` is the modules and connectors of one checkpoint; `rlkit.play.connectors.policy_of` makes one. It has two
forms with the same methods and, bit for bit, the same answers. `ConnectorPolicy` runs the checkpoint's own
connector pipelines. RLlib's default pieces only stack observations and scale actions, at 20 to 50 us per row
and step (benchmarks/evaluate_cost.py); with those alone, `DirectPolicy` does the same on arrays.

Shapes: B rows (one per episode and acting agent), O observation, A action. Recurrent modules see (B, 1, O).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.module_to_env import NormalizeAndClipActions
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.spaces import space_utils
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rlkit import rllib
from rlkit.play.joint_values import joint_values, judges_jointly

ALONE = DEFAULT_AGENT_ID  # the agent of a single-agent environment
BLOCK = 32  # rows of one forward pass in evaluations


@dataclass
class Answer:
    """What a policy says for one episode, by agent: the action for the environment and, if asked, more.

    That is Q-values and, where a module mixes experts, the weight of each.
    """

    actions: dict[Any, Any] = field(default_factory=dict)
    q_values: dict[Any, np.ndarray] = field(default_factory=dict)
    gates: dict[Any, np.ndarray] = field(default_factory=dict)


class Policy:
    """The modules and connectors of one checkpoint. An episode in progress is a `memory`, from `begin`.

    Args:
        modules: every RLModule by id, a MultiRLModule or a dict.
        env_to_module: RLlib's connector pipeline; its state is applied and no longer updated.
        module_to_env: the same for actions.
        env_steps: environment steps trained, for exploration schedules.
    """

    def __init__(self, modules: Any, env_to_module: Any, module_to_env: Any, env_steps: int = 0):
        self.modules = modules
        self.env_to_module = env_to_module
        self.module_to_env = module_to_env
        self.env_steps = env_steps
        self.mapping: Callable[..., str] | None = rllib.policy_mapping(env_to_module)
        self.observation_space: gym.Space = env_to_module.input_observation_space
        self.action_space: gym.Space = module_to_env.input_action_space
        # A MultiRLModule of its own kind may let its modules see each other's batches.
        self._joint = isinstance(modules, MultiRLModule) and any(
            getattr(type(modules), name) is not getattr(MultiRLModule, name)
            for name in ("_forward", "_forward_inference", "_forward_exploration")
        )
        scaling = [c for c in module_to_env.connectors if isinstance(c, NormalizeAndClipActions)]
        # Actions in [-1, 1] are stretched to the space's bounds.
        self.normalize = any(c.normalize_actions for c in scaling)
        self.clip = not self.normalize and any(c.clip_actions for c in scaling)
        rllib.freeze_connectors(env_to_module)

    @property
    def multi_agent(self) -> bool:
        return self.mapping is not None

    def action_struct(self, agent: Any) -> Any:
        """Return an agent's action space, a Dict or Tuple space as a plain dict or tuple."""
        space = self.action_space[agent] if self.multi_agent else self.action_space
        return space_utils.get_base_struct_from_space(space)

    @property
    def memoryless(self) -> bool:
        """Whether an action depends on the latest observation alone."""
        return False

    def begin(self, name: str) -> Any:
        """Return the memory of a new episode. `name` is the id that a policy mapping may look at."""
        raise NotImplementedError

    def see(
        self,
        memory: Any,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        """Tell what `reset` (the first call) or `step` returned; multi-agent: the environment's dicts."""
        raise NotImplementedError

    def act(
        self,
        memories: Sequence[Any],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        """Answer the latest observation of each episode.

        Args:
            memories: the episodes, each with an observation that waits for its action.
            explore: sample as in training instead of taking the best action.
            q_values: also compute the Q-values of the modules that have them.
            judged: module actions by agent, per episode, to compute those Q-values for (where actions are
                continuous) instead of the chosen actions.
            block: rows per forward pass, padded. BLAS chooses its summation order by the number of rows: a
                row gives other last bits in a batch of 2 than in one of 32 (measured, MKL 2024.2). With a
                fixed number it gives the same, whatever the other rows are.
        """
        raise NotImplementedError

    def _forward(self, batches: Mapping[str, dict], explore: bool, block: int | None) -> dict[str, dict]:
        """Run each module on its batch of tensors (B, ...)."""
        call = "forward_exploration" if explore else "forward_inference"
        options = {"t": self.env_steps} if explore else {}
        with torch.no_grad():
            if self._joint and self.multi_agent:
                return getattr(self.modules, call)(batches, **options)
            outs = {}
            for name, batch in batches.items():
                run = functools.partial(rllib.forward(self.modules[name], call), **options)
                outs[name] = in_blocks(run, batch, block)
            return outs

    def _q_values(
        self, name: str, batch: Mapping[str, Any], actions: Any, block: int | None
    ) -> np.ndarray | None:
        """Q of every action (B, n); where actions are continuous (B,), of the given module actions."""
        module = self.modules[name]
        if not has_q_values(module) or judges_jointly(module):
            return None
        inputs = dict(batch)
        if not isinstance(module.action_space, gym.spaces.Discrete):
            inputs[Columns.ACTIONS] = actions

        def run(part: dict) -> dict:
            out = module.compute_q_values(part)
            return {"q": out["qf_preds"] if isinstance(out, dict) else out}

        with torch.no_grad():
            values = in_blocks(run, inputs, block)["q"]
        return (values.squeeze(1) if module.is_stateful() else values).numpy()

    def _gates(self, name: str, batch: Mapping[str, Any], block: int | None) -> np.ndarray | None:
        """Weights of the experts (B, K) of a module that mixes some."""
        module = self.modules[name]
        if not experts_of(module):
            return None
        with torch.no_grad():
            return in_blocks(lambda part: {"gate": module.gate(part[Columns.OBS])}, batch, block)[
                "gate"
            ].numpy()


@dataclass
class _Latest:
    """DirectPolicy's memory: what each agent that must act has seen, and its recurrent state."""

    name: str
    observations: dict[Any, Any] = field(default_factory=dict)
    states: dict[Any, Any] = field(default_factory=dict)
    modules: dict[Any, str] = field(default_factory=dict)
    episode: MultiAgentEpisode | None = None


class DirectPolicy(Policy):
    """RLlib's default connectors done on arrays."""

    @property
    def memoryless(self) -> bool:
        return not any(module.is_stateful() for module in self.modules.values())

    def begin(self, name: str) -> _Latest:
        return _Latest(name)

    def see(
        self,
        memory: _Latest,
        observation: Any,
        info: Any = None,
        reward: Any = 0.0,
        terminated: Any = False,
        truncated: Any = False,
    ) -> None:
        if not self.multi_agent:
            memory.observations = {ALONE: observation}
            return
        flags = [f for f in (terminated, truncated) if isinstance(f, dict)]
        memory.observations = {
            agent: o for agent, o in observation.items() if not any(f.get(agent) for f in flags)
        }

    def act(
        self,
        memories: Sequence[_Latest],
        *,
        explore: bool = False,
        q_values: bool = False,
        judged: Sequence[Mapping[Any, Any]] | None = None,
        block: int | None = None,
    ) -> list[Answer]:
        rows: dict[str, list[tuple[int, Any]]] = {}
        for index, memory in enumerate(memories):
            # Sorted, so that the same agent always draws the same random numbers.
            for agent in sorted(memory.observations, key=str) if explore else memory.observations:
                rows.setdefault(self._module_of(memory, agent), []).append((index, agent))
        rows = dict(sorted(rows.items()))
        batches = {name: self._batch(name, memories, where) for name, where in rows.items()}
        outs = self._forward(batches, explore, block)
        answers = [Answer() for _ in memories]
        parts: dict[str, Any] = {}
        for name, where in rows.items():
            module, out = self.modules[name], outs[name]
            actions = choose(module, out, explore)
            if q_values:
                asked = actions if judged is None else stack([judged[i][agent] for i, agent in where])
                parts[name] = (where, batches[name][Columns.OBS], asked)
                q = self._q_values(name, batches[name], asked, block)
                for (index, agent), values in zip(where, q, strict=True) if q is not None else ():
                    answers[index].q_values[agent] = values
            if module.is_stateful():
                actions = map_tensors(lambda a: a.squeeze(1), actions)
                for row, (index, agent) in enumerate(where):
                    memories[index].states[agent] = map_tensors(
                        lambda s, row=row: s[row], out[Columns.STATE_OUT]
                    )
            for (index, agent), action in zip(where, self._for_env(actions, where), strict=True):
                answers[index].actions[agent] = action
        for (index, agent), value in joint_values(self.modules, parts).items():
            answers[index].q_values[agent] = value
        return answers

    def _module_of(self, memory: _Latest, agent: Any) -> str:
        if self.mapping is None:
            return DEFAULT_MODULE_ID
        if agent not in memory.modules:
            memory.episode = memory.episode or MultiAgentEpisode(memory.name)
            memory.modules[agent] = self.mapping(agent, memory.episode)
        return memory.modules[agent]

    def _batch(self, name: str, memories: Sequence[_Latest], where: list[tuple[int, Any]]) -> dict[str, Any]:
        """Return {obs: (B, O)}, or {obs: (B, 1, O), state_in: (B, ...)} for a recurrent module."""
        module = self.modules[name]
        batch = {Columns.OBS: stack([memories[index].observations[agent] for index, agent in where])}
        if module.is_stateful():
            batch[Columns.OBS] = map_tensors(lambda x: x.unsqueeze(1), batch[Columns.OBS])
            states = [memories[index].states.get(agent) for index, agent in where]
            if any(state is None for state in states):
                first = convert_to_torch_tensor(convert_to_numpy(module.get_initial_state()))
                states = [first if state is None else state for state in states]
            batch[Columns.STATE_IN] = map_tensors(lambda *parts: torch.stack(parts), *states)
        return batch

    def _for_env(self, actions: Any, where: list[tuple[int, Any]]) -> list[Any]:
        """Scale module actions (B, A) to the environment's action space; return one per row."""
        actions = actions.numpy() if torch.is_tensor(actions) else convert_to_numpy(actions)
        if self.normalize or self.clip:
            scale = space_utils.unsquash_action if self.normalize else space_utils.clip_action
            spaces = {agent: self.action_struct(agent) for agent in {agent for _, agent in where}}
            first, *others = spaces.values()
            if any(space != first for space in others):
                rows = zip(space_utils.unbatch(actions), where, strict=True)
                return [scale(action, spaces[agent]) for action, (_, agent) in rows]
            actions = scale(actions, first)  # elementwise: broadcasts over the rows
        return list(actions) if isinstance(actions, np.ndarray) else space_utils.unbatch(actions)


def stack(rows: Sequence[Any]) -> Any:
    """Return rows of arrays, or of nested dicts of them, as tensors (B, ...); float64 becomes float32."""
    first = rows[0]
    if type(first) is np.ndarray and first.dtype == np.float32:
        return torch.from_numpy(np.stack(rows))
    return convert_to_torch_tensor(space_utils.batch(list(rows)))


def choose(module: Any, out: Mapping[str, Any], explore: bool) -> Any:
    """Return the actions of a forward pass: the module's own, else its distribution's mode or a sample.

    RLlib's `GetActions` connector, without the log-probabilities.
    """
    if Columns.ACTIONS in out:
        return out[Columns.ACTIONS]
    inputs = out[Columns.ACTION_DIST_INPUTS]
    if explore:
        return module.get_exploration_action_dist_cls().from_logits(inputs).sample()
    return module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()


def has_q_values(module: Any) -> bool:
    """Whether a module can say what actions are worth: DQN, SAC and their kin, with their critics loaded."""
    if getattr(module, "inference_only", False):
        return False
    return judges_jointly(module) or callable(getattr(module, "compute_q_values", None))


def experts_of(module: Any) -> int:
    """How many experts a module mixes; 0 for all but DRON's mixtures."""
    return int(getattr(module, "experts", 0))


def in_blocks(run: Callable[[dict], dict], batch: Mapping[str, Any], block: int | None) -> dict:
    """Call `run` on every `block` rows of a batch, the last ones padded with a copy; join the outputs."""
    if block is None:
        return run(dict(batch))
    first = batch[Columns.OBS]
    while not torch.is_tensor(first):
        first = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
    outs = []
    for start in range(0, len(first), block):
        rows = min(block, len(first) - start)
        part = map_tensors(lambda x, a=start, r=rows: x[a : a + r], batch)
        if rows < block:
            part = map_tensors(lambda x, n=block - rows: torch.cat([x, x[:1].expand(n, *x.shape[1:])]), part)
        out = run(part)
        outs.append(map_tensors(lambda x, r=rows: x[:r], out) if rows < block else out)
    return outs[0] if len(outs) == 1 else map_tensors(lambda *parts: torch.cat(parts), *outs)


def map_tensors(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to corresponding tensors of nested dicts and tuples; anything else stays as it is."""
    first = trees[0]
    if torch.is_tensor(first):
        return function(*trees)
    if isinstance(first, Mapping):
        return {key: map_tensors(function, *(t[key] for t in trees)) for key in first}
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        return tuple(map_tensors(function, *parts) for parts in zip(*trees, strict=True))
    return first
