"""Soccer of He et al. (ICML 2016) as an environment: one player against rule agents, or two players.

`soccer` (Gymnasium): the learner is A, who attacks the right goal, against an opponent drawn per game from a pool.
`soccer_two` (PettingZoo parallel): `player_a` and `player_b`. Each sees the field as if it attacked to the right.

Rules: see `rlkit.envs.soccer_rules`. Actions: Discrete(5), up, down, left, right, noop. Reward: +1 for a goal, -1 for
a goal against, at the end of a game; a draw after `horizon` moves gives 0 and ends the game as well (`terminated`).

Observation: Box((15,), float32) within [0, 1]: my x, my y, its x, its y, min x, max x, min y, max y, my goal x, y1,
y2, its goal x, y1, y2, and whether I have the ball. Ten of them are constant, as in the authors' code; their two
bounds are equal.

What a player has seen of its opponent stands in `infos`, of the move just played (absent after reset):
- `opponent_action`: what it did (with one player, in the field's directions; with two, in its own view).
- `opponent_moves`: (5,) whether it had the ball; for me, the goal I attack and the goal it attacks, +1 if it came
  nearer, -1 if it went away, else 0; 1 if it stood still. Moves that a collision undid count as made.
- `ball_lost`: 1 if I lost the ball.
`opponent_type`, the index of its style, is there too, for supervision alone: it is never part of the
observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from pettingzoo import ParallelEnv

from rlkit.envs.pool_games import OPPONENT_ACTION, OPPONENT_TYPE, PoolGameEnv, PoolVectorEnv
from rlkit.envs.soccer_games import Moves, SoccerGames
from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_styles import Opponents
from rlkit.envs.soccer_tables import MIRRORED, tables

OPPONENT_MOVES, BALL_LOST = "opponent_moves", "ball_lost"
PLAYER_A, PLAYER_B = "player_a", "player_b"


def observation_space(rules: SoccerRules) -> gym.spaces.Box:
    """Return the space of one player's observation; what never changes has one value as both its bounds."""
    seen = tables(rules).observation
    return gym.spaces.Box(seen.min(axis=0), seen.max(axis=0), dtype=np.float32)


def _rules(goal_rows: Sequence[int] | None = None, **field: Any) -> SoccerRules:
    return SoccerRules(goal_rows=None if goal_rows is None else (goal_rows[0], goal_rows[-1]), **field)


class SoccerEnv(PoolGameEnv):
    """One game at a time against an opponent from a pool.

    Args:
        opponents: `paper` (offensive and defensive), `styles` (up and down), one style, a list of styles, {style:
            weight}, or {random: 4, seed: 7}; by default all of `styles`, or `paper`. Can be set later; it holds
            from the next reset on.
        styles: styles of your own, by name, see `rlkit.envs.soccer_styles`.
        switch_probability, switch_at: the style changes within a game, see `SoccerGames`.
        render_mode: `rgb_array` or `ansi`.
        field: width, height, goal_rows, horizon, steal_probability: see `SoccerRules`.

    `reset(options={"opponent": "up"})` chooses the style of that game.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 5}

    def __init__(
        self,
        opponents: Opponents | None = None,
        *,
        styles: Mapping[str, Any] | None = None,
        switch_probability: float = 0.0,
        switch_at: Sequence[int] = (),
        render_mode: str | None = None,
        **field: Any,
    ):
        self.rules = _rules(**field)
        self.render_mode = _known_mode(render_mode, self.metadata)
        self._switching: dict[str, Any] = {
            "switch_probability": switch_probability,
            "switch_at": tuple(switch_at),
            "styles": styles,
        }
        self.observation_space = observation_space(self.rules)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self._next: SoccerGames
        self.opponents = opponents
        self.games = self._next

    @property
    def opponents(self) -> Opponents | None:
        """The pool of opponents."""
        return self._opponents

    @opponents.setter
    def opponents(self, opponents: Opponents | None) -> None:
        self._next = SoccerGames(1, self.rules, opponents, **self._switching, seed=0)
        self._opponents = opponents

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.games = self._next
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        move = self.games.step(np.array([_action(action)]))
        info = {
            OPPONENT_ACTION: int(move.opponent_action[0]),
            OPPONENT_MOVES: move.moves[0],
            BALL_LOST: int(move.ball_lost[0]),
            OPPONENT_TYPE: int(self.games.style[0]),
        }
        return self.games.observation[0], float(move.reward[0]), bool(move.done[0]), False, info

    def render(self) -> np.ndarray | str | None:
        """Return a picture (H, W, 3) uint8, or text, by `render_mode`."""
        return draw(self.rules, int(self.games.state[0]), self.render_mode)


class SoccerVectorEnv(PoolVectorEnv):
    """`num_envs` games at once, stepped as arrays; the same game as `SoccerEnv`, with autoreset in the next step.

    For RLlib: `env_runners(gym_env_vectorize_mode="vector_entry_point")`.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array", "ansi"],
        "render_fps": 5,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        opponents: Opponents | None = None,
        *,
        styles: Mapping[str, Any] | None = None,
        switch_probability: float = 0.0,
        switch_at: Sequence[int] = (),
        render_mode: str | None = None,
        **field: Any,
    ):
        self.rules, self.render_mode = _rules(**field), _known_mode(render_mode, self.metadata)
        super().__init__(num_envs, observation_space(self.rules), gym.spaces.Discrete(len(ACTIONS)))
        switching: dict[str, Any] = {"switch_probability": switch_probability, "switch_at": switch_at}
        self.games = SoccerGames(
            num_envs, self.rules, opponents, styles=styles, **switching, seed=self.np_random
        )

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        move, reward, done, played = self.play(actions)
        info: dict[str, Any] = self.types()
        for name, values in (
            (OPPONENT_ACTION, move.opponent_action),
            (OPPONENT_MOVES, move.moves),
            (BALL_LOST, move.ball_lost),
        ):
            info[name], info[f"_{name}"] = values, played
        return self.games.observation, reward, done, np.zeros(self.num_envs, bool), info

    def render(self) -> tuple[np.ndarray | str | None, ...]:
        """Return one picture or text per game."""
        return tuple(draw(self.rules, int(state), self.render_mode) for state in self.games.state)


def soccer(
    num_envs: int | None = None,
    opponents: Any = None,
    *,
    styles: dict[str, Any] | None = None,
    switch_probability: float = 0.0,
    switch_at: Sequence[int] = (),
    render_mode: str | None = None,
    width: int = 9,
    height: int = 6,
    goal_rows: Sequence[int] | None = None,
    horizon: int = 100,
    steal_probability: float = 1.0,
) -> SoccerEnv | SoccerVectorEnv:
    """Make the one-player game, vectorised if `num_envs` is given (RLlib's vector entry point passes it)."""
    options: dict[str, Any] = {
        "styles": styles, "switch_probability": switch_probability, "switch_at": switch_at, "render_mode": render_mode,
        "width": width, "height": height, "goal_rows": goal_rows, "horizon": horizon,
        "steal_probability": steal_probability,
    }  # fmt: skip
    return (
        SoccerEnv(opponents, **options)
        if num_envs is None
        else SoccerVectorEnv(num_envs, opponents, **options)
    )


class SoccerParallelEnv(ParallelEnv):
    """Two players, zero-sum.

    Args:
        mirror: show `player_b` the field mirrored, and mirror its actions, so that both attack to the right
            and one policy can play both; otherwise B sees what A sees.
        width, height, goal_rows, horizon, steal_probability, render_mode: as in `SoccerEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array", "ansi"],
        "name": "soccer_two",
        "render_fps": 5,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        *,
        mirror: bool = True,
        width: int = 9,
        height: int = 6,
        goal_rows: Sequence[int] | None = None,
        horizon: int = 100,
        steal_probability: float = 1.0,
        render_mode: str | None = None,
    ):
        field = {"width": width, "height": height, "horizon": horizon, "steal_probability": steal_probability}
        self.rules = _rules(goal_rows, **field)
        self.render_mode = _known_mode(render_mode, self.metadata)
        self.mirror = mirror
        self.possible_agents = [PLAYER_A, PLAYER_B]
        self.agents: list[str] = []
        self.games = SoccerGames(1, self.rules, "random")
        self._spaces = {agent: observation_space(self.rules) for agent in self.possible_agents}
        self._actions = {agent: gym.spaces.Discrete(len(ACTIONS)) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> gym.Space:
        return self._spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        return self._actions[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        if seed is not None:
            self.games.rng = np.random.default_rng(seed)
        self.games.reset()
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: Mapping[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        a, b = _action(actions[PLAYER_A]), _action(actions[PLAYER_B])
        b = int(MIRRORED[b]) if self.mirror else b
        before = int(self.games.state[0])
        move = self.games.step(np.array([a]), np.array([b]))
        reward, done = float(move.reward[0]), bool(move.done[0])
        infos = self._infos(before, a, move)
        infos[PLAYER_A][OPPONENT_ACTION] = _action(actions[PLAYER_B])
        infos[PLAYER_B][OPPONENT_ACTION] = a
        agents = self.agents
        if done:
            self.agents = []
        return (
            self._observe(),
            {PLAYER_A: reward, PLAYER_B: -reward},
            dict.fromkeys(agents, done),
            dict.fromkeys(agents, False),
            infos,
        )

    def _observe(self) -> dict[str, np.ndarray]:
        table, state = self.games.tables, int(self.games.state[0])
        seen_by_b = table.mirror[state] if self.mirror else state
        return {PLAYER_A: table.observation[state], PLAYER_B: table.observation[seen_by_b]}

    def _infos(self, before: int, a: int, move: Moves) -> dict[str, dict]:
        table = self.games.tables
        mirrored = int(table.mirror[before])
        lost_by_b = table.ball[before] == 0 and table.ball[int(self.games.state[0])] == 1
        return {
            PLAYER_A: {OPPONENT_MOVES: move.moves[0], BALL_LOST: int(move.ball_lost[0])},
            PLAYER_B: {OPPONENT_MOVES: table.moves[mirrored, MIRRORED[a]], BALL_LOST: int(lost_by_b)},
        }

    def render(self) -> np.ndarray | str | None:
        """Return a picture (H, W, 3) uint8, or text, by `render_mode`."""
        return draw(self.rules, int(self.games.state[0]), self.render_mode)

    def close(self) -> None:
        pass


def _action(action: Any) -> int:
    index = int(action)
    if not 0 <= index < len(ACTIONS):
        raise ValueError(f"got action {action!r}, expected 0..{len(ACTIONS) - 1} ({', '.join(ACTIONS)})")
    return index


def _known_mode(mode: str | None, metadata: Mapping[str, Any]) -> str | None:
    if mode is not None and mode not in metadata["render_modes"]:
        raise ValueError(f"got render_mode {mode!r}, expected one of {metadata['render_modes']}")
    return mode


CELL = 40
GRASS, LINE, GOAL = (46, 125, 50), (67, 145, 71), (27, 80, 31)
COLOURS = {"A": (30, 110, 220), "B": (215, 60, 50)}


def draw(rules: SoccerRules, state: int, mode: str | None) -> np.ndarray | str | None:
    """Draw a state: `rgb_array` (A blue, B red, white ball), `ansi` (a, b; upper case has the ball), None."""
    if mode is None:
        return None
    cells = rules.width * rules.height
    where = {"A": state // 2 // cells, "B": state // 2 % cells}
    carrier = "A" if state % 2 else "B"
    low, high = rules.goal_rows or (1, rules.height)
    if mode == "ansi":
        rows = []
        for y in range(rules.height, 0, -1):
            row = []
            for x in range(1, rules.width + 1):
                here = [
                    n if n == carrier else n.lower()
                    for n in "AB"
                    if where[n] == (x - 1) * rules.height + y - 1
                ]
                mouth = x in (1, rules.width) and low <= y <= high
                row.append("".join(here) or ("|" if mouth else "."))
            rows.append(" ".join(row))
        return "\n".join(rows)
    picture = np.empty((rules.height * CELL, rules.width * CELL, 3), np.uint8)
    picture[:] = GRASS
    picture[::CELL] = picture[:, ::CELL] = LINE
    for x in (1, rules.width):
        picture[(rules.height - high) * CELL : (rules.height - low + 1) * CELL, (x - 1) * CELL : x * CELL] = (
            GOAL
        )
    grid_y, grid_x = np.mgrid[0:CELL, 0:CELL] - (CELL - 1) / 2
    radius = np.hypot(grid_x, grid_y)
    for name, cell in where.items():
        x, y = cell // rules.height, cell % rules.height
        tile = picture[(rules.height - 1 - y) * CELL : (rules.height - y) * CELL, x * CELL : (x + 1) * CELL]
        tile[radius < CELL * 0.38] = COLOURS[name]
        if name == carrier:
            tile[radius < CELL * 0.16] = (255, 255, 255)
    return picture
