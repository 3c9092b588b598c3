"""What an episode achieved beyond its rewards: named measures for `rlkit evaluate --measure`.

success, success:RADIUS   mpe2 scenarios with a goal (adversary, push, speaker-listener, reference): 1 or 0 for
                          each team, whether its goal was reached within the radius (0.4) at the last step
frames, frames:RADIUS     the same scenarios: the steps each team had an agent within the radius of its goal
touches                   mpe2 scenarios with chasers (tag, world_comm): pairs of chaser and prey in contact,
                          summed over the steps
infos/KEY                 any environment: KEY of the last step's info; with several agents their mean

What is found is called after the measure: `success/agent`, `success:0.1/agent`, `touches`, KEY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from rlkit.errors import UsageError, did_you_mean

RADIUS = 0.4
TAKEN = ("episode", "seed", "return", "length")  # names of what every evaluation reports
ADVERSARY, AGENT = "adversary", "agent"


class Measure(Protocol):
    """Watches one episode."""

    def step(self, env: Any, infos: Mapping[Any, Mapping[str, Any]]) -> None:
        """Look at the environment after a step."""

    def end(self) -> dict[str, float]:
        """Return what was found, by name."""


class Success:
    """Whether each team's goal was reached at the last step, in mpe2's scenarios with goals.

    `success/agent`: a good agent within `radius` of the goal; `success/adversary`: an adversary. Where a speaker
    tells a listener, the listener counts, and the speaker's landmark is the goal. With two teams
    `success/difference` is agents minus adversaries: Lowe et al. 2017 (arXiv 1706.02275v3), table 5.
    """

    def __init__(self, radius: float = RADIUS, name: str = "success"):
        self.radius, self.name = radius, name
        self._world: Any = None

    def step(self, env: Any, infos: Mapping[Any, Mapping[str, Any]]) -> None:
        self._world = mpe_world(env, "success")

    def end(self) -> dict[str, float]:
        found = {
            f"{self.name}/{team}": float(there)
            for team, there in _at_goal(self._world, self.radius, "success").items()
        }
        if len(found) == 2:
            good, bad = found[f"{self.name}/{AGENT}"], found[f"{self.name}/{ADVERSARY}"]
            found[f"{self.name}/difference"] = good - bad
        return found


class Frames:
    """The steps in which a team had an agent within `radius` of its goal, teams and goals as in `Success`.

    `frames/adversary` in physical deception and keep-away: Lowe et al. 2017, the figures on ensembles.
    """

    def __init__(self, radius: float = RADIUS, name: str = "frames"):
        self.radius, self.name = radius, name
        self._frames: dict[str, int] = {}

    def step(self, env: Any, infos: Mapping[Any, Mapping[str, Any]]) -> None:
        for team, there in _at_goal(mpe_world(env, "frames"), self.radius, "frames").items():
            self._frames[team] = self._frames.get(team, 0) + there

    def end(self) -> dict[str, float]:
        return {f"{self.name}/{team}": float(count) for team, count in self._frames.items()}


def _at_goal(world: Any, radius: float, measure: str) -> dict[str, bool]:
    """Return for each team whether any of its agents is within `radius` of its goal."""
    reached: dict[str, bool] = {}
    for agent in world.agents:
        aim = _aim(agent)
        if aim is not None:
            mover, goal = aim
            near = np.linalg.norm(mover.state.p_pos - goal.state.p_pos) <= radius
            team = ADVERSARY if getattr(agent, "adversary", False) else AGENT
            reached[team] = reached.get(team, False) or bool(near)
    if not reached:
        raise UsageError(
            f"measure {measure!r}: no agent of this scenario has a goal; see rlkit/envs/measures.py"
        )
    return dict(sorted(reached.items()))


def _aim(agent: Any) -> tuple[Any, Any] | None:
    """Return who is to come where: (agent, landmark), or what a speaker wants of its listener."""
    goal = _goal(agent, "goal_a")
    if goal is None:
        return None
    if hasattr(goal, "action"):  # another agent: goal_b says where it is to go
        landmark = _goal(agent, "goal_b")
        return None if landmark is None else (goal, landmark)
    return agent, goal


def _goal(agent: Any, name: str) -> Any:
    """mpe2 1.1 asserts that a goal has been set when it is read."""
    try:
        return getattr(agent, name, None)
    except AssertionError:
        return None


class Touches:
    """Contacts of adversaries and good agents, summed over pairs and steps: the paper's prey touches.

    In simple_tag each of them pays every chaser 10 and costs the prey 10.
    """

    def __init__(self) -> None:
        self._count = 0

    def step(self, env: Any, infos: Mapping[Any, Mapping[str, Any]]) -> None:
        agents = mpe_world(env, "touches").agents
        chasers = [a for a in agents if getattr(a, "adversary", False)]
        prey = [a for a in agents if not getattr(a, "adversary", False)]
        self._count += sum(
            bool(np.linalg.norm(one.state.p_pos - other.state.p_pos) < one.size + other.size)
            for one in chasers
            for other in prey
        )

    def end(self) -> dict[str, float]:
        return {"touches": float(self._count)}


class LastInfo:
    """The value of a key in the last step's info; the mean over the agents that have it."""

    def __init__(self, key: str):
        self.key = key
        self._found: list[Any] = []
        self._keys: set[str] = set()

    def step(self, env: Any, infos: Mapping[Any, Mapping[str, Any]]) -> None:
        given = [info for info in infos.values() if isinstance(info, Mapping)]
        self._keys.update(key for info in given for key in info)
        self._found = [info[self.key] for info in given if self.key in info]

    def end(self) -> dict[str, float]:
        if not self._found:
            raise UsageError(
                f"measure 'infos/{self.key}': the last info has no {self.key!r}{did_you_mean(self.key, self._keys)}; "
                f"the infos have {', '.join(sorted(self._keys)) or 'no keys'}"
            )
        try:
            return {self.key: sum(map(float, self._found)) / len(self._found)}
        except (TypeError, ValueError):
            raise UsageError(
                f"measure 'infos/{self.key}': the last infos have {', '.join(map(repr, self._found))}, expected numbers"
            ) from None


OF_RADIUS: dict[str, Callable[..., Measure]] = {"success": Success, "frames": Frames}
MEASURES: dict[str, Callable[..., Measure]] = {**OF_RADIUS, "touches": Touches}


def make_measure(name: str) -> Measure:
    """Return a measure for one episode: `success`, `success:0.3`, `frames`, `touches`, `infos/KEY`.

    Raises:
        UsageError: no such measure, a radius that is not a positive number, or the key of an info that is the name of
            something else in the results.
    """
    if name.startswith("infos/") and len(name) > len("infos/"):
        key = name.removeprefix("infos/")
        if key in TAKEN or key.startswith("return/"):
            raise UsageError(
                f"measure {name!r}: the results have a {key!r} of their own; give the info another key in the "
                f"environment, expected none of {', '.join(TAKEN)}, return/…"
            )
        return LastInfo(key)
    kind, _, option = name.partition(":")
    if kind not in MEASURES or (option and kind not in OF_RADIUS):
        known = [*MEASURES, *(f"{kind}:RADIUS" for kind in OF_RADIUS), "infos/KEY"]
        raise UsageError(f"unknown measure {name!r}{did_you_mean(name, known)}; expected {', '.join(known)}")
    if not option:
        return MEASURES[kind]()
    try:
        radius = float(option)
    except ValueError:
        radius = -1.0
    if not 0 < radius < float("inf"):
        raise UsageError(f"measure {name!r}: got the radius {option!r}, expected a positive number")
    return OF_RADIUS[kind](radius, name)


def mpe_world(env: Any, measure: str) -> Any:
    """Return the world of an mpe2 environment inside RLlib's and PettingZoo's wrappers."""
    inner = getattr(env.unwrapped, "env", None)
    world = getattr(getattr(inner, "unwrapped", None), "world", None)
    if world is None:
        raise UsageError(
            f"measure {measure!r} looks at the world of an mpe2 scenario; {env.unwrapped} has none. "
            "`infos/KEY` works for any environment"
        )
    return world
