"""Tag for one: the prey of mpe2's simple_tag learns, three hunters follow a frozen policy drawn per game.

Policies of the hunters, all of them fixed functions of what simple_tag shows an adversary:
- `chase`: run at the prey.
- `lead`: run to where the prey will be in half a second.
- `surround`: run to a place beside the prey, each hunter to another one, and close in from there.

Observation and action of the prey are simple_tag's (Discrete(5): noop, left, right, down, up). Reward: simple_tag's,
-10 for each hunter that touches the prey in a step, and less the further it leaves the field. `infos` tell what the
hunters did (`opponent_action`, three actions) and, for supervision alone, which policy it was (`opponent_type`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from rlkit.envs.tag_rules import HUNTERS, faults

PREY = "agent_0"
NOOP, LEFT, RIGHT, DOWN, UP = range(5)
LEAD_SECONDS = 0.5
RING = 0.35

# (position of the prey seen from the hunter, its velocity, index of the hunter) -> where to run, seen from the hunter
Hunter = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def chase(prey: np.ndarray, velocity: np.ndarray, index: int) -> np.ndarray:
    """Where the prey is."""
    return prey


def lead(prey: np.ndarray, velocity: np.ndarray, index: int) -> np.ndarray:
    """Where the prey will be."""
    return prey + LEAD_SECONDS * velocity


def surround(prey: np.ndarray, velocity: np.ndarray, index: int) -> np.ndarray:
    """Beside the prey while far, at it when near."""
    if np.hypot(*prey) < RING:
        return prey
    angle = 2 * np.pi * index / 3
    return prey + RING * np.array([np.cos(angle), np.sin(angle)])


PLAYS: dict[str, Hunter] = dict(zip(HUNTERS, (chase, lead, surround), strict=True))


class TagPool(gym.Env):
    """simple_tag from the prey's side.

    Args:
        opponents: {policy: weight}, each game draws one; all of them, equally likely, by default.
        max_cycles: steps of a game.
        render_mode: `rgb_array`.

    Raises:
        ValueError: an unknown policy, or a weight that is not positive.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        opponents: Mapping[str, float] | None = None,
        *,
        max_cycles: int = 50,
        render_mode: str | None = None,
    ):
        from mpe2 import simple_tag_v3

        pool = dict(opponents) if opponents is not None else dict.fromkeys(HUNTERS, 1.0)
        for path, message, fix in faults({"opponents": pool}):
            raise ValueError(f"{'.'.join(map(str, path))}: {message}; fix: {fix}")
        self.names = tuple(pool)
        self.weights = np.array(list(pool.values())) / sum(pool.values())
        self.game = simple_tag_v3.parallel_env(max_cycles=max_cycles, render_mode=render_mode)
        self.render_mode = render_mode
        self.hunters = [agent for agent in self.game.possible_agents if agent != PREY]
        self.observation_space = self.game.observation_space(PREY)
        self.action_space = self.game.action_space(PREY)
        self._type = 0
        self._seen: dict[str, np.ndarray] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._type = int(self.np_random.choice(len(self.names), p=self.weights))
        self._seen, _ = self.game.reset(seed=int(self.np_random.integers(2**31)))
        return self._seen[PREY], {"opponent_type": self._type}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        hunted = [self._hunt(i, self._seen[hunter]) for i, hunter in enumerate(self.hunters)]
        actions = dict(zip(self.hunters, hunted, strict=True)) | {PREY: int(action)}
        self._seen, rewards, terminated, truncated, _ = self.game.step(actions)
        info = {"opponent_action": np.array(hunted), "opponent_type": self._type}
        return self._seen[PREY], float(rewards[PREY]), bool(terminated[PREY]), bool(truncated[PREY]), info

    def _hunt(self, index: int, seen: np.ndarray) -> int:
        """Choose by what a hunter sees: its velocity and position first, the prey and its velocity last."""
        velocity, prey, prey_velocity = seen[0:2], seen[-4:-2], seen[-2:]
        # a hunter drifts on with its velocity: steer to where it would miss
        gap = PLAYS[self.names[self._type]](prey, prey_velocity, index) - 0.3 * velocity
        if np.abs(gap).max() < 0.02:
            return NOOP
        if abs(gap[0]) > abs(gap[1]):
            return RIGHT if gap[0] > 0 else LEFT
        return UP if gap[1] > 0 else DOWN

    def render(self) -> Any:
        return self.game.render()

    def close(self) -> None:
        self.game.close()
