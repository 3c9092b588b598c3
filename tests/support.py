"""What each algorithm takes: actions, observations, and ways agents come and go, tried one by one.

    python tests/support.py [ALGORITHM ...]    # each cell that is refused or wrong, and counts (an hour for all)
    make support                               # all of them, and docs/support.md

A cell is a recipe that is built, checked as `rlkit train` checks it, and trained for two iterations with one greedy
evaluation after each. It is *right* if every action lay in its space (value, shape and dtype) and came from exactly
the agents whose turn it was, and if length, returns, agent steps and env steps are those of the environment. Else it
has to be *refused* before training. Anything else is a failure.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

import rlkit

S = gym.spaces
ALL = "__all__"
STEPS = 6
DOCS = Path(__file__).parents[1] / "docs" / "support.md"
VECTOR = S.Box(-1, 1, (3,), np.float32)
HALF = S.Box(np.array([0, -1], np.float32), np.array([np.inf, 1], np.float32))
ACTIONS: dict[str, gym.Space] = {
    "Discrete": S.Discrete(3),
    "Discrete(start)": S.Discrete(3, start=-1),
    "Box": S.Box(-1, 1, (2,), np.float32),
    "Box, unequal bounds": S.Box(np.array([0, -10], np.float32), np.array([1, 30], np.float32)),
    "Box, half-bounded": HALF,
    "Box, unbounded": S.Box(-np.inf, np.inf, (2,), np.float32),
    "Box, float64": S.Box(-3.0, 5.0, (2,), np.float64),
    "Box, scalar": S.Box(-2.0, 6.0, (), np.float32),
    "Box, matrix": S.Box(-2.0, 6.0, (2, 3), np.float32),
    "Box, integers": S.Box(-3, 4, (2,), np.int64),
    "MultiDiscrete": S.MultiDiscrete([3, 2]),
    "MultiDiscrete(start)": S.MultiDiscrete([3, 2], start=[-1, 5]),
    "MultiDiscrete, matrix": S.MultiDiscrete([[3, 2], [4, 2]]),
    "MultiBinary": S.MultiBinary(4),
    "Dict": S.Dict(turn=S.Discrete(3, start=2), push=S.Dict(x=HALF, y=S.MultiBinary(2))),
    "Tuple": S.Tuple([S.Discrete(2), S.Tuple([HALF, S.MultiDiscrete([[2], [3]])])]),
}
OBSERVATIONS: dict[str, gym.Space] = {
    "vector": VECTOR,
    "vector, float64": S.Box(-9, 9, (3,), np.float64),
    "vector, int8": S.Box(-9, 9, (3,), np.int8),
    "matrix": S.Box(-1, 1, (2, 3), np.float32),
    "image, uint8": S.Box(0, 255, (16, 16, 3), np.uint8),
    "Discrete": S.Discrete(5),
    "Discrete(start)": S.Discrete(5, start=2),
    "MultiDiscrete": S.MultiDiscrete([3, 2]),
    "MultiBinary": S.MultiBinary(4),
    "Dict": S.Dict(a=S.Discrete(3), b=S.Box(-9, 9, (2,), np.float32)),
    "Tuple": S.Tuple([S.Discrete(3), VECTOR]),
    "Text": S.Text(4),
}
LIVES = ("one agent", "fixed", "dying", "late", "turns")
TRAINED = ("PPO", "DQN", "SAC", "MADDPG", "DRON")
RLLIBS = ("IMPALA", "APPO", "TQC", "rllib/PPO", "rllib/DQN", "rllib/SAC")


class Cell(MultiAgentEnv):
    """Two agents for six steps; who acts, dies and joins when is `life`'s, a wrong action is an error.

    An action pays 1 to who acts; under `turns` 10 to who waits as well.
    """

    def __init__(self, acts: str = "Discrete", sees: str = "vector", life: str = "fixed"):
        super().__init__()
        self.life = life
        self.possible_agents = ["a", "b"]
        self.agents = list(self.possible_agents)
        self.observation_spaces = dict.fromkeys("ab", OBSERVATIONS[sees])
        self.action_spaces = dict.fromkeys("ab", ACTIONS[acts])

    def playing(self, t: int) -> list[str]:
        """Return who acts next when `t` steps are done."""
        if t == STEPS:
            return []
        either = {
            "fixed": "ab",
            "dying": "ab" if t < 3 else "a",
            "late": "a" if t < 3 else "ab",
            "turns": "ab"[t % 2],
        }
        return list(either[self.life])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.t = 0
        return {agent: self.observation_spaces[agent].sample() for agent in self.playing(0)}, {}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        now = self.playing(self.t)
        assert sorted(actions) == now, f"step {self.t}: actions of {sorted(actions)}, expected of {now}"
        for agent, action in actions.items():
            check_action(action, self.action_spaces[agent])
        self.t += 1
        following, over = self.playing(self.t), self.t == STEPS
        gone = [agent for agent in now if agent not in following and self.life != "turns"]
        watching = "ab" if over and self.life == "turns" else [*following, *gone]
        seen = {agent: self.observation_spaces[agent].sample() for agent in watching}
        rewards = dict.fromkeys(now, 1.0)
        if self.life == "turns":
            rewards["ab"["ab".index(now[0]) - 1]] = 10.0
        ended = {**({} if over else dict.fromkeys(gone, True)), ALL: over}
        return seen, rewards, ended, {ALL: False}, {}


class One(gym.Env):
    """The same with one agent."""

    def __init__(self, acts: str = "Discrete", sees: str = "vector"):
        self.observation_space, self.action_space = OBSERVATIONS[sees], ACTIONS[acts]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        check_action(action, self.action_space)
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == STEPS, False, {}


def check_action(action: Any, space: gym.Space) -> None:
    assert space.contains(action), f"{action!r} is not in {space}"
    for part, own in zip(leaves(action), leaves(space), strict=True):
        assert np.asarray(part).dtype == own.dtype, (
            f"{part!r} is {np.asarray(part).dtype}, expected {own.dtype}"
        )


def leaves(value: Any) -> list[Any]:
    if isinstance(value, S.Dict | S.Tuple):
        value = value.spaces
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


# What an episode is, by hand: return of the team, and actions of each agent.
RIGHT: dict[str, tuple[float, dict[str, int]]] = {
    "fixed": (12.0, {"a": 6, "b": 6}),
    "dying": (9.0, {"a": 6, "b": 3}),
    "late": (9.0, {"a": 6, "b": 3}),
    "turns": (66.0, {"a": 3, "b": 3}),
}


@dataclass(frozen=True)
class Case:
    """One cell: `algorithm` with spaces by name, a life, and a local or a remote env runner."""

    algorithm: str
    acts: str = "Discrete"
    sees: str = "vector"
    life: str = "fixed"
    remote: bool = False

    def recipe(self) -> dict[str, Any]:
        """Return the recipe of the cell, without `model`: what a newcomer would write."""
        kind = self.algorithm.removeprefix("rllib/")
        training: dict[str, Any] = {}
        if kind in ("PPO", "APPO", "IMPALA"):
            training = {"train_batch_size_per_learner": 24}
            if kind == "PPO":
                training |= {"minibatch_size": 12, "num_epochs": 1}
        else:
            training = {"num_steps_sampled_before_learning_starts": 24}
            training["train_batch_size" if kind == "MADDPG" else "train_batch_size_per_learner"] = 8
            if self.algorithm.startswith("rllib/") or kind == "TQC":
                many = "" if self.life == "one agent" else "MultiAgent"
                training["replay_buffer_config"] = {"type": f"{many}EpisodeReplayBuffer", "capacity": 1000}
            if kind == "DRON":  # the other features need events of soccer
                training["features"] = ["last_action", "clock", "frequencies"]
        runners = {
            "num_env_runners": int(self.remote), "num_envs_per_env_runner": 2, "rollout_fragment_length": 4,
        }  # fmt: skip
        recipe: dict[str, Any] = {
            "name": "cell", "algorithm": self.algorithm, "seed": 0,
            "env": "cell_one" if self.life == "one agent" else "cell_several",
            "env_config": {"acts": self.acts, "sees": self.sees},
            "config": {
                "training": training, "env_runners": runners,
                "reporting": {"min_sample_timesteps_per_iteration": 48, "min_time_s_per_iteration": 0},
            },
            "stop": {"iterations": 2}, "evaluation": {"every": 1, "episodes": 2},
        }  # fmt: skip
        if self.life != "one agent":
            recipe["env_config"]["life"] = self.life
            recipe["policies"] = "shared"
        return recipe


@dataclass(frozen=True)
class Outcome:
    """`right`, `refused` or `wrong`, and the message of the last two."""

    kind: str
    message: str = ""


def register() -> None:
    for name, env in (("cell_one", One), ("cell_several", Cell)):
        rlkit.register_env(name, env)


def attempt(case: Case) -> Outcome:
    """Build, check and train one cell."""
    from rlkit.errors import RlkitError
    from rlkit.launch.build import build
    from rlkit.launch.spaces import check_spaces, forget_rosters
    from rlkit.recipe import from_mapping

    forget_rosters()
    try:
        recipe = from_mapping(case.recipe())
        config = build(recipe)
        check_spaces(config, recipe)
    except RlkitError as error:
        return Outcome("refused", str(error))
    except Exception as error:
        return Outcome("wrong", f"before training: {type(error).__name__}: {error}")
    algorithm = None
    try:
        algorithm = config.build_algo()
        result = {}
        for _ in range(2):
            result = algorithm.train()
        wrong = [*compare(case, result)]
    except Exception as error:
        return Outcome("wrong", f"{type(error).__name__}: {error}")
    finally:
        if algorithm is not None:
            algorithm.stop()
    return Outcome("wrong", "; ".join(wrong)) if wrong else Outcome("right")


def compare(case: Case, result: dict[str, Any]) -> Iterator[str]:
    """Yield what differs from the environment's own numbers in the last result."""
    found, evaluated = result["env_runners"], result["evaluation"]["env_runners"]
    single = case.life == "one agent"
    total, steps = (6.0, {}) if single else RIGHT[case.life]
    for where, numbers in (("training", found), ("evaluation", evaluated)):
        for name, right in (("episode_return_mean", total), ("episode_len_mean", float(STEPS))):
            if numbers.get(name) != right:
                yield f"{where}: {name} {numbers.get(name)}, expected {right}"
    if not single:
        for agent, count in steps.items():
            if found["agent_steps"].get(agent) != count:
                yield f"agent steps of {agent}: {found['agent_steps'].get(agent)}, expected {count}"
    losses = [
        value for module, row in result.get("learners", {}).items() if module != "__all_modules__"
        for name, value in row.items() if name.endswith("loss")
    ]  # fmt: skip
    if not losses or not np.isfinite(losses).all():
        yield f"losses {losses}"


def usual(algorithm: str) -> str:
    """Return the action space that an algorithm is tried with where spaces are not the question."""
    return "Box" if algorithm.removeprefix("rllib/") in ("SAC", "TQC") else "Discrete"


def cases(algorithms: Sequence[str] = (*TRAINED, *RLLIBS)) -> Iterator[Case]:
    """Yield the cells of the full table.

    The five algorithms of rlkit: every action space under every life, every observation space for one agent and under
    turns, and every life with a remote runner. RLlib's: every action space for one agent and under turns.
    """
    for algorithm in algorithms:
        own = algorithm in TRAINED
        for life in LIVES if own else ("one agent", "turns"):
            yield from (Case(algorithm, acts, life=life) for acts in ACTIONS)
            if own:
                yield Case(algorithm, usual(algorithm), life=life, remote=True)
        for life in ("one agent", "turns") if own else ():
            yield from (Case(algorithm, usual(algorithm), sees, life) for sees in OBSERVATIONS)


MARKS = {"right": "yes", "refused": "refused", "wrong": "WRONG"}


def markdown(outcomes: Mapping[Case, Outcome]) -> str:
    """Return docs/support.md: a table for each way agents come and go, one for observations, one for remote runners."""
    lines = [
        "# What trains with what", "",
        "`yes`: two iterations and two evaluations went right: every action lay in its space and came from the",
        "agents whose turn it was; returns, lengths and steps were the environment's. `refused`: `rlkit train` says",
        "why before it starts. Environments: two agents for six steps, or one, with the default network.",
        "MADDPG with Discrete actions of one agent trains where rlkit does not know the actions from the name; a",
        "recipe for such an environment of Gymnasium's is refused, with DQN or PPO as the fix.",
        "Written by `make support`.", "",
    ]  # fmt: skip

    def table(title: str, rows: Iterable[str], cases: Callable[[str, str], Case]) -> None:
        algorithms = list(dict.fromkeys(case.algorithm for case in outcomes))
        found = {row: [outcomes.get(cases(name, row)) for name in algorithms] for row in rows}
        lines.extend(
            [f"## {title}", "", f"| | {' | '.join(algorithms)} |", "|---" * (len(algorithms) + 1) + "|"]
        )
        for row, cells in found.items():
            if any(cells):
                marks = [MARKS[cell.kind] if cell else "" for cell in cells]
                lines.append(f"| {row} | {' | '.join(marks)} |")
        lines.append("")

    for life in LIVES:
        table(f"Actions, {life}", ACTIONS, lambda name, acts, life=life: Case(name, acts, life=life))
    for life in ("one agent", "turns"):
        table(
            f"Observations, {life}", OBSERVATIONS,
            lambda name, sees, life=life: Case(name, usual(name), sees, life),
        )  # fmt: skip
    table("A remote runner", LIVES, lambda name, life: Case(name, usual(name), life=life, remote=True))
    return "\n".join(lines)


def main() -> int:
    """Print each cell that is not right, and what became of it; then the counts by algorithm."""
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")
    # Remote runners read it.
    os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parent}"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    register()
    names = [word for word in sys.argv[1:] if word != "--docs"]
    outcomes: dict[Case, Outcome] = {}
    for case in cases(names or (*TRAINED, *RLLIBS)):
        outcome = outcomes[case] = attempt(case)
        if outcome.kind != "right":
            print(case, outcome.kind, outcome.message, flush=True)
    for algorithm in dict.fromkeys(case.algorithm for case in outcomes):
        print(algorithm, dict(Counter(o.kind for case, o in outcomes.items() if case.algorithm == algorithm)))
    if "--docs" in sys.argv:
        DOCS.write_text(markdown(outcomes), encoding="utf-8")
    return int(any(outcome.kind == "wrong" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
