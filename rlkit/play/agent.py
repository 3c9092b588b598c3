"""`load(path)` turns a checkpoint into an `Agent` that acts: no Ray, no algorithm, no env runner.

agent = rlkit.load("runs/dqn_cartpole/…")
observation, _ = env.reset()
action = agent.act(observation)
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit import registry
from rlkit.errors import CheckpointError, UsageError, did_you_mean, printable
from rlkit.play import bundle
from rlkit.play.answers import ALONE, Answer, has_q_values, named_outputs
from rlkit.play.observations import as_rows
from rlkit.roster import MASK_KEY, check_mask, choices_of, has_mask
from rlkit.runs import manifest
from rlkit.runs.manifest import Manifest

ZOO = "zoo/"


class Agent:
    """A trained policy, or in a multi-agent environment all of them.

    Attributes:
        modules: the RLModules by id, in evaluation mode.
        observation_space: of the environment; a Dict by agent in a multi-agent one.
        action_space: likewise.
        manifest: what the checkpoint says about itself.
        explore: whether `act` samples by default.
    """

    def __init__(self, policy: Any, notes: Manifest, explore: bool = False):
        self.policy = policy
        self.manifest = notes
        self.explore = explore
        self.modules: dict[str, Any] = dict(policy.modules.items())
        self.observation_space: gym.Space = policy.observation_space
        self.action_space: gym.Space = policy.action_space
        self._memories: dict[int, Any] = {}
        self._rows = 0

    def act(self, obs: Any, *, explore: bool | None = None, reward: Any = 0.0, info: Any = None) -> Any:
        """Return the action for an observation, or for each row of a batch.

        A recurrent module, or connectors that look back (frame stacking), remember what each row has seen:
        call `reset` when an episode ends. Otherwise the batch may change its size from call to call.

        Args:
            obs: one observation, or a batch: arrays with one more leading dimension, or a list. Multi-agent:
                a dict of the agents that act, or a list of such dicts.
            explore: sample instead of the best action; None means as loaded.
            reward: what the last step paid, for connectors that feed it to the module; for a batch one for each row,
                or a number for all. Multi-agent: a dict, or a number for all agents.
            info: what `reset` or `step` gave beside the observation, for connectors that read it (DRON's opponents);
                for a batch a list.

        Returns:
            An action inside `action_space`, clipped and scaled as in training; for a batch an array (rows,
            ...), a list for nested spaces. Multi-agent: a dict by agent, or a list of them.

        Raises:
            UsageError: an observation of another shape, a mask that allows nothing, an unknown agent, another batch
                size than before, or rewards or infos for another number of rows.
        """
        rows, batched = self._split(obs)
        self._check_masks(rows)
        memories = self._see(rows, _rewards(reward, len(rows), batched), _infos(info, len(rows), batched))
        answers = self.policy.act(memories, explore=self.explore if explore is None else explore)
        actions = [self._unpack(answer.actions) for answer in answers]
        return self._join(actions) if batched else actions[0]

    def q_values(self, obs: Any, actions: Any = None, *, info: Any = None) -> Any:
        """Return what actions are worth in an observation, without acting: memories stay as they are.

        Args:
            obs: as for `act`.
            actions: the actions to judge, inside `action_space`, of the shape `act` returns. By default every
                action of a discrete space, and in a continuous one the action the agent would take.
            info: as for `act`.

        Returns:
            For every action of a discrete space (n,), or (rows, n); for given or continuous actions a scalar,
            or (rows,). Distributional modules give expected values, twin critics their minimum. Multi-agent:
            a dict of the agents whose module has Q-values, or a list of them. A centralised critic (MADDPG)
            judges an agent's action together with the observations and actions of all agents in `obs`.

        Raises:
            UsageError: no module has Q-values (PPO and its kin have none).
        """
        if not any(has_q_values(module) for module in self.modules.values()):
            names = ", ".join(f"{name} ({type(m).__name__})" for name, m in self.modules.items())
            raise UsageError(
                f"{names} has no Q-values that can be asked for: agents of DQN, SAC, MADDPG and their kin have, but "
                "not where critics keep a state of their own"
            )
        rows, batched = self._split(obs)
        given = self._split_actions(actions, len(rows), batched)
        answers = self._judge(rows, _infos(info, len(rows), batched), given)
        values = [
            self._unpack(self._picked(answer, given[row] if given else None))
            for row, answer in enumerate(answers)
        ]
        return self._join(values) if batched else values[0]

    def gate(self, obs: Any, *, info: Any = None) -> Any:
        """Return how much each expert of DRON's mixture weighs in an observation, without acting.

        Args:
            obs, info: as for `act`.

        Returns:
            (K,), or (rows, K). Multi-agent: a dict of the agents whose module has experts, or a list of them.

        Raises:
            UsageError: no module mixes experts.
        """
        return self.output("gate", obs, info=info)

    def output(self, name: str, obs: Any, *, info: Any = None) -> Any:
        """Return what a module tells about an observation beside its action (`rlkit.play.answers.named_outputs`).

        Args:
            name: of the output.
            obs, info: as for `act`.

        Returns:
            (width,), or (rows, width). Multi-agent: a dict of the agents whose module has it, or a list of them.

        Raises:
            UsageError: no module has it.
        """
        if not any(name in named_outputs(module) for module in self.modules.values()):
            modules = ", ".join(f"{mid} ({type(m).__name__})" for mid, m in self.modules.items())
            known = sorted({n for m in self.modules.values() for n in named_outputs(m)})
            also = f"; it has {', '.join(known)}" if known else ""
            hint = "; DRON with network: moe has one" if name == "gate" else also
            raise UsageError(f"{modules} has no {name}{hint}")
        rows, batched = self._split(obs)
        answers = self._judge(rows, _infos(info, len(rows), batched), None)
        told = [self._unpack(answer.outputs[name]) for answer in answers]
        return self._join(told) if batched else told[0]

    def reset(self, rows: int | Iterable[int] | None = None) -> None:
        """Forget what has been seen: of every row, or of the given rows of the batch.

        Raises:
            UsageError: a row that the batch does not have.
        """
        if rows is None:
            self._memories, self._rows = {}, 0
            return
        for row in (rows,) if isinstance(rows, int | np.integer) else rows:
            if self._rows and not 0 <= row < self._rows:
                raise UsageError(f"got the row {row}, expected one of the batch's: 0 to {self._rows - 1}")
            self._memories.pop(int(row), None)

    def __repr__(self) -> str:
        return f"Agent({str(self.manifest.path)!r}, modules={list(self.modules)})"

    def _judge(
        self, rows: Sequence[Any], infos: Sequence[Any], given: list[dict[Any, Any]] | None
    ) -> list[Answer]:
        """Answer with Q-values, leaving the memories as they are."""
        kept = copy.deepcopy((self._memories, self._rows))
        try:
            memories = self._see(rows, [0.0] * len(rows), infos)
            judged = given and [{a: self._to_module(v, a) for a, v in row.items()} for row in given]
            return self.policy.act(memories, q_values=True, judged=judged)
        finally:
            self._memories, self._rows = kept

    def _see(self, observations: Sequence[Any], rewards: Sequence[Any], infos: Sequence[Any]) -> list[Any]:
        """Return the memories of the rows, which have now seen the observations."""
        if self.policy.memoryless:
            self._memories = {}
        elif self._memories and self._rows != len(observations):
            raise UsageError(
                f"got {len(observations)} rows after {self._rows}; this agent remembers what each row has "
                "seen: keep the number of rows, or call agent.reset() first"
            )
        self._rows = len(observations)
        for row, observation in enumerate(observations):
            if row not in self._memories:
                self._memories[row] = self.policy.begin(f"row-{row}")
            self.policy.see(self._memories[row], observation, infos[row], reward=rewards[row])
        return [self._memories[row] for row in range(self._rows)]

    def _split(self, obs: Any) -> tuple[list[Any], bool]:
        """Return the observations row by row, and whether a batch was given."""
        if not self.policy.multi_agent:
            return as_rows(obs, self.observation_space)
        rows = obs if isinstance(obs, list | tuple) else [obs]
        return [self._observations(row) for row in rows], rows is obs

    def _observations(self, row: Any) -> dict[Any, Any]:
        if not isinstance(row, Mapping):
            raise UsageError(
                f"got a {type(row).__name__}, expected a dict {{agent: observation}} or a list of them"
            )
        spaces: Any = self.observation_space
        found = {}
        for agent, observation in row.items():
            if agent not in spaces.spaces:
                known = list(spaces.spaces)
                raise UsageError(f"unknown agent {agent!r}{did_you_mean(agent, known)}; agents: {known}")
            (found[agent], *_), batched = as_rows(observation, spaces[agent])
            if batched:
                raise UsageError(f"agent {agent!r}: for a batch give a list of dicts, one per environment")
        return found

    def _check_masks(self, rows: Sequence[Any]) -> None:
        """Refuse observations whose mask allows nothing."""
        for number, row in enumerate(rows):
            by_agent = row if self.policy.multi_agent else {ALONE: row}
            for agent, observation in by_agent.items():
                seen, does = self.observation_space, self.action_space
                if self.policy.multi_agent:
                    seen, does = seen[agent], does[agent]
                if not has_mask(seen) or not choices_of(does):
                    continue
                problem = check_mask(observation, does)
                if problem is not None:
                    who = f"agent {agent!r}, " if self.policy.multi_agent else ""
                    raise UsageError(
                        f"{who}row {number}: {MASK_KEY!r}: got {problem[0]}, expected {problem[1]}; an agent that can "
                        "do nothing does not act"
                    )

    def _split_actions(self, actions: Any, rows: int, batched: bool) -> list[dict[Any, Any]] | None:
        if actions is None:
            return None
        each = list(actions) if batched else [actions]
        if len(each) != rows:
            raise UsageError(f"got {len(each)} actions for {rows} observations")
        return [dict(a) if self.policy.multi_agent else {ALONE: a} for a in each]

    def _to_module(self, action: Any, agent: Any) -> Any:
        """Return an action of the environment as the module and its critic know it: undo what `act` did to it."""
        return self.policy.action_map(agent).back(action)

    def _picked(self, answer: Answer, given: Mapping[Any, Any] | None) -> dict[Any, Any]:
        """Keep, of the values of all actions, those of the given ones."""
        if given is None:
            return answer.q_values
        return {
            agent: values[int(self._to_module(given[agent], agent))] if np.ndim(values) == 1 else values
            for agent, values in answer.q_values.items()
        }

    def _unpack(self, by_agent: Mapping[Any, Any]) -> Any:
        return dict(by_agent) if self.policy.multi_agent else by_agent[ALONE]

    def _join(self, rows: list[Any]) -> Any:
        if self.policy.multi_agent or not isinstance(rows[0], np.ndarray | np.generic):
            return rows
        return np.stack(rows)


def _infos(info: Any, rows: int, batched: bool) -> list[Any]:
    """Return one info per row."""
    infos = list(info) if batched and info is not None else [info] * (rows if info is None else 1)
    if len(infos) != rows:
        raise UsageError(f"got {len(infos)} infos for {rows} observations")
    return infos


def _rewards(reward: Any, rows: int, batched: bool) -> list[Any]:
    """Return one reward per row; a number is that of all rows."""
    several = isinstance(reward, list | tuple) or np.ndim(reward) > 0
    if batched and isinstance(reward, Mapping):
        raise UsageError(
            f"got one dict of rewards for {rows} observations, expected a list of dicts, one for each"
        )
    if several and not batched:
        raise UsageError(f"got {len(reward)} rewards for one observation, expected a number")
    rewards = list(reward) if several else [reward] * rows
    if len(rewards) != rows:
        raise UsageError(f"got {len(rewards)} rewards for {rows} observations")
    return rewards


def load(
    path: str | Path,
    *,
    imports: Sequence[str] = (),
    trust: bool = False,
    force: bool | None = False,
    explore: bool = False,
) -> Agent:
    """Read an agent from a checkpoint, a trial or run folder (its best checkpoint, else its last), or an export.

    If a run's best checkpoint is damaged, the newest intact one of its trial takes its place, with a word on stderr.

    Args:
        path: the folder; or a bundle or ONNX file of `rlkit export`, or a policy that comes along (`zoo/NAME`, see
            `rlkit list zoo`), which need neither `trust` nor `force`.
        imports: modules that define the user's own models or connectors, beside those noted at training.
        trust: accept a checkpoint this user did not write, or a plain RLlib one; loading runs code inside it.
        force: accept one of another version of ray, Python or rlkit.
        explore: let `act` sample actions by default.

    Raises:
        CheckpointError: what is missing, damaged, not trusted or of another version.
        UsageError: no such path.
    """
    if str(path).startswith(ZOO):  # else a bundle acts without the room of recipes
        from rlkit.recipe.shipped import find_policy

        path = find_policy(path)
    if bundle.is_bundle(path):
        registry.load_plugins(imports)
        graphs, notes = bundle.read(path)
        return Agent(graphs, notes, explore)
    from rlkit.play.restore import read_policy

    notes = verified(path, imports=imports, trust=trust, force=force)
    policy = read_policy(notes)
    return Agent(policy, dataclasses.replace(notes, env_steps=policy.env_steps or 0), explore)


def verified(
    path: str | Path, *, imports: Sequence[str] = (), trust: bool = False, force: bool | None = None
) -> Manifest:
    """Return the manifest of the checkpoint a path stands for, verified, and its names known in this process.

    Args and errors are those of `load`.
    """
    notes = _verified(Path(path), trust, force)
    registry.load_plugins(imports)
    for module in notes.imports:
        try:
            registry.import_module(module)
        except UsageError as error:
            if not imports:  # else the user has said where it is now
                raise CheckpointError(
                    f"{notes.path} needs a module of yours. {error}; name it with --import"
                ) from error
    return notes


def _verified(path: Path, trust: bool, force: bool | None) -> Manifest:
    """Find and verify the checkpoint a path stands for."""
    if manifest.is_checkpoint(path):
        return manifest.verify(path, trust=trust, force=force)
    from rlkit.runs.run import find_checkpoint

    chosen = find_checkpoint(path)
    try:
        return manifest.verify(chosen, trust=trust, force=force)
    except CheckpointError as error:
        good, _ = manifest.latest_good(chosen.parent, trust=trust, force=force)
        if good is None:
            raise
        print(printable(f"skipping {chosen.name}: {error}"), file=sys.stderr)
        print(printable(f"using {good.path} instead"), file=sys.stderr)
        return good
