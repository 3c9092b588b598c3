"""Self-play against a pool of past policies: latest, fictitious or prioritised, with Elo and win rates.

The pool is a fixed number of frozen modules beside the trained one. A snapshot copies the trained weights into one of
them, so checkpoints hold the pool and nothing grows. The task of an episode is its opponent, `{"opponent": module}`;
the policy mapping reads it from the episode.

    fictitious    uniform over the pool (Heinrich & Silver 2016, arXiv:1603.01121, with policies in place of averages)
    prioritised   weight (1 - win rate)^2 (Vinyals et al. 2019, doi:10.1038/s41586-019-1724-z, f_hard)
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlkit import rllib
from rlkit.curriculum.base import Clock, Curriculum, Outcome, State
from rlkit.curriculum.samplers import Task
from rlkit.roster import matches

if TYPE_CHECKING:
    from numpy.random import Generator

K = 16.0  # points that change hands in one game
START = 1000.0
OPPONENT = "opponent"
SWAPPED = "swapped"


@dataclass
class PoolSlot:
    """A frozen module and the policy it holds."""

    name: str
    born: int = -1  # number of the snapshot it holds; -1: none yet
    elo: float = START
    results: deque[float] = field(default_factory=lambda: deque(maxlen=100))

    @property
    def win_rate(self) -> float:
        """Of the trained policy against this one, with one win and one loss added."""
        return (sum(self.results) + 1) / (len(self.results) + 2)


class SelfPlay(Curriculum):
    """Play against past policies.

    Args:
        policy: the module that is trained.
        opponents: globs of the agents that the pool plays.
        pool: how many past policies are kept (`<policy>_past_0`, …), or the names of their modules.
        sampling: which of them is played: "latest", "fictitious", "prioritised".
        snapshot: when the trained policy enters the pool: {"iterations": n}, or {"win_rate": w, "episodes": n}, the
            mean over the last n episodes of the present pool.
        mirror: share of episodes against the present policy itself.
        swap: play half of the episodes with the sides exchanged.
    """

    needs = frozenset({"returns"})

    def __init__(
        self,
        policy: str,
        opponents: Sequence[str] | str,
        pool: int | Sequence[str] = 4,
        sampling: Literal["latest", "fictitious", "prioritised"] = "fictitious",
        snapshot: Mapping[str, float] | None = None,
        mirror: float = 0.0,
        swap: bool = False,
    ):
        self.policy = policy
        self.opponents = [opponents] if isinstance(opponents, str) else list(opponents)
        self.slots = [PoolSlot(name) for name in pool_names(policy, pool)]
        self.sampling, self.mirror, self.swap = sampling, mirror, swap
        self.rule = dict(snapshot or {"iterations": 10})
        self.elo = START
        self.snapshots = 0
        self.since = 0  # iterations since the last snapshot
        self._recent: deque[float] = deque(maxlen=int(self.rule.get("episodes", 100)))
        self._due = True
        self._synced = False

    @property
    def filled(self) -> list[PoolSlot]:
        """The slots that hold a policy, oldest first."""
        return sorted((slot for slot in self.slots if slot.born >= 0), key=lambda slot: slot.born)

    def sample(self, rng: Generator) -> Task:
        swapped = bool(self.swap and rng.random() < 0.5)
        known = self.filled
        if not known or rng.random() < self.mirror:
            return {OPPONENT: self.policy, SWAPPED: swapped}
        if self.sampling == "latest":
            return {OPPONENT: known[-1].name, SWAPPED: swapped}
        weights = [1.0 if self.sampling == "fictitious" else (1 - slot.win_rate) ** 2 for slot in known]
        chosen = int(rng.choice(len(known), p=[weight / sum(weights) for weight in weights]))
        return {OPPONENT: known[chosen].name, SWAPPED: swapped}

    def environment_task(self, task: Task) -> Task:
        """The environment does not know its players."""
        return {}

    def evaluated_reward(self, rewards: Mapping[Any, float], task: Task) -> float:
        """Return the sum over the agents of the trained side; in a zero-sum game that over all agents is 0."""
        pool_side = not task[SWAPPED]
        return float(sum(r for agent, r in rewards.items() if matches(agent, self.opponents) != pool_side))

    def evaluated_return(self, outcome: Outcome, task: Task) -> float:
        """Return the same of a whole episode, in which the opponent's module plays the other side."""
        return sum(value for module, value in outcome.returns.items() if module != task[OPPONENT])

    def update(self, task: Task, outcome: Outcome) -> None:
        """Count a game: won if the trained policy's return is the larger one, half if equal."""
        slot = next((slot for slot in self.slots if slot.name == task[OPPONENT]), None)
        if slot is None:
            return
        mine, theirs = outcome.returns.get(self.policy, 0.0), outcome.returns.get(slot.name, 0.0)
        score = 0.5 if math.isclose(mine, theirs, abs_tol=1e-9) else float(mine > theirs)
        slot.results.append(score)
        self._recent.append(score)
        expected = 1.0 / (1.0 + 10.0 ** ((slot.elo - self.elo) / 400.0))
        self.elo += K * (score - expected)
        slot.elo -= K * (score - expected)

    def advance(self, clock: Clock) -> None:
        self.since += 1
        if "win_rate" in self.rule:
            full = len(self._recent) == self._recent.maxlen
            self._due = full and sum(self._recent) / len(self._recent) >= self.rule["win_rate"]
        else:
            self._due = self.since >= self.rule["iterations"]

    def on_algorithm(self, algorithm: Any) -> None:
        """Take a snapshot when it is due (the first one at the start); send the pool to the runners."""
        if self.snapshots == 0 or self._due:
            self._snapshot(algorithm)
        elif not self._synced:
            self._send(algorithm, [slot.name for slot in self.filled])
        self._synced = True

    def _snapshot(self, algorithm: Any) -> None:
        slot = self._slot_to_fill()
        source, target = self.policy, slot.name

        def copy_weights(learner: Any) -> None:
            learner.module[target].set_state(learner.module[source].get_state())

        algorithm.learner_group.foreach_learner(copy_weights)
        slot.born, slot.elo = self.snapshots, self.elo
        slot.results.clear()
        self._recent.clear()
        self.snapshots += 1
        self.since = 0
        self._due = False
        self.stage += 1  # episodes against what the slot held before do not count
        self._send(algorithm, [target])

    def _slot_to_fill(self) -> PoolSlot:
        """An empty slot; else the one whose loss leaves the history, with the snapshot to come, most evenly spread."""
        for slot in self.slots:
            if slot.born < 0:
                return slot
        known = self.filled
        if len(known) < 3 or self.sampling == "latest":
            return known[0]
        born = [*(slot.born for slot in known), self.snapshots]
        gaps = {i: born[i + 1] - born[i - 1] for i in range(1, len(known))}
        return known[min(gaps, key=lambda i: gaps[i])]

    def _send(self, algorithm: Any, names: list[str]) -> None:
        """Set the weights on the runners directly: they ignore a sync with the sequence number they have (2.60)."""

        def read(learner: Any) -> dict[str, Any]:
            return {name: learner.module[name].get_state(inference_only=True) for name in names}

        results = list(algorithm.learner_group.foreach_learner(read))
        weights = results[0].get() if hasattr(results[0], "ok") else results[0]

        def write(env_runner: Any) -> None:
            for name, state in weights.items():
                if env_runner.module is not None and name in env_runner.module:
                    env_runner.module[name].set_state(state)

        for group in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(write)

    def final(self, rng: Generator) -> Task:
        """Play the newest policy of the pool."""
        known = self.filled
        return {OPPONENT: known[-1].name if known else self.policy, SWAPPED: False}

    def each(self) -> dict[str, Task]:
        return {slot.name: {OPPONENT: slot.name, SWAPPED: False} for slot in self.filled}

    def candidates(self) -> dict[str, list[Task]]:
        """Nothing reaches the environment, so there is nothing to try."""
        return {}

    def metrics(self) -> dict[str, Any]:
        """Return `elo` of the trained policy, `pool_elo/…` and `win_rate/…` against each past one, `snapshots`."""
        return {
            "elo": self.elo,
            "snapshots": self.snapshots,
            "pool_elo": {slot.name: slot.elo for slot in self.filled},
            "win_rate": {
                slot.name: sum(slot.results) / len(slot.results) for slot in self.filled if slot.results
            },
        }

    @property
    def state(self) -> State:
        return {
            "slots": [[s.name, s.born, s.elo, list(s.results)] for s in self.slots],
            "elo": self.elo,
            "snapshots": self.snapshots,
            "since": self.since,
            "recent": list(self._recent),
            "stage": self.stage,
        }

    @state.setter
    def state(self, state: State) -> None:
        self.slots = [
            PoolSlot(name, born, elo, deque(results, maxlen=100))
            for name, born, elo, results in state["slots"]
        ]
        self.elo, self.snapshots, self.since = state["elo"], state["snapshots"], state["since"]
        self._recent = deque(state["recent"], maxlen=self._recent.maxlen)
        self.stage = state["stage"]
        self._due, self._synced = False, False


class SelfPlayMapping:
    """RLlib's policy mapping with opponents from the pool: reads the episode's task, else asks the mapping below."""

    def __init__(self, base: Any, policy: str, opponents: Sequence[str], key: str):
        self.base, self.policy, self.opponents, self.key = base, policy, list(opponents), key

    def __call__(self, agent_id: Any, episode: Any = None, *args: Any, **kwargs: Any) -> str:
        module: str = self.base(agent_id, episode, *args, **kwargs)
        if module != self.policy or episode is None:
            return module
        # `MultiAgentEpisode.cut` (2.60) asks before its successor has custom data, and does not use the answer.
        task = (getattr(episode, "custom_data", None) or {}).get(self.key) or {}
        opponent = matches(agent_id, self.opponents)
        return str(task.get(OPPONENT, module)) if opponent != bool(task.get(SWAPPED)) else module


def pool_names(policy: str, pool: int | Sequence[str]) -> list[str]:
    """Return the modules of the pool."""
    return [f"{policy}_past_{i}" for i in range(pool)] if isinstance(pool, int) else list(pool)


def prepare(config: Any, options: Mapping[str, Any], key: str) -> None:
    """Add the pool's modules to a multi-agent config, frozen, and let the policy mapping choose among them.

    Raises:
        ValueError: the trained policy is not among the config's.
    """
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    policy, names = options["policy"], pool_names(options["policy"], options.get("pool", 4))
    known = list(config.policies)
    if policy not in known:
        raise ValueError(f"self_play: policy {policy!r} is not among the policies {known}")
    trained = config.policies_to_train
    if callable(trained):
        raise ValueError("self_play: give policies_to_train as a list; got a function")
    opponents = (
        [options["opponents"]] if isinstance(options["opponents"], str) else list(options["opponents"])
    )
    config.multi_agent(
        policies=list(dict.fromkeys([*known, *names])),
        policy_mapping_fn=SelfPlayMapping(config.policy_mapping_fn, policy, opponents, key),
        policies_to_train=sorted(set(trained or known) - set(names)),
    )
    given = rllib.given_module_spec(config)
    if isinstance(given, MultiRLModuleSpec) and policy in given.rl_module_specs:
        copies = {name: copy.deepcopy(given.rl_module_specs[policy]) for name in names}
        config.rl_module(
            rl_module_spec=MultiRLModuleSpec(rl_module_specs={**given.rl_module_specs, **copies})
        )
