"""The soccer game against hand-worked positions, an independent copy of its rules, and the published figures."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from rlkit.envs.soccer import SoccerEnv, SoccerParallelEnv, SoccerVectorEnv, soccer
from rlkit.envs.soccer_games import SoccerGames, play
from rlkit.envs.soccer_rules import DOWN, LEFT, NOOP, RIGHT, UP, SoccerRules
from rlkit.envs.soccer_solver import finite_horizon, outcome, solve, value_iteration
from rlkit.envs.soccer_styles import STYLES, Style, pool_of, read_style, register_soccer_style, style_policy
from rlkit.envs.soccer_tables import STATE_FEATURES, tables

RULES = SoccerRules()
RANDOM = np.full((tables(RULES).size, 5), 0.2)


def at(a: tuple[int, int], b: tuple[int, int], ball: str) -> int:
    table = tables(RULES)
    return int(table.state(np.array(table.cell(*a)), np.array(table.cell(*b)), int(ball == "A")))


def where(state: int) -> tuple[tuple[int, int], tuple[int, int], str]:
    t = tables(RULES)
    return (int(t.a_x[state]), int(t.a_y[state])), (int(t.b_x[state]), int(t.b_y[state])), "BA"[t.ball[state]]


def step_by_hand(
    a: tuple[int, int], b: tuple[int, int], ball: str, act_a: int, act_b: int
) -> tuple[tuple[int, int], tuple[int, int], str, int]:
    """The rules of soccer_framework.lua, written down a second time."""

    def move(x: int, y: int, action: int, low: int, high: int) -> tuple[int, int]:
        if action == UP:
            y = min(6, y + 1)
        elif action == DOWN:
            y = max(1, y - 1)
        elif action == LEFT:
            x = max(low, x - 1)
        elif action == RIGHT:
            x = min(high, x + 1)
        return x, y

    new_a, new_b = move(*a, act_a, 2, 9), move(*b, act_b, 1, 8)
    if new_a == new_b:
        new_a, new_b, ball = a, b, "B" if ball == "A" else "A"
    if ball == "A" and new_a[0] == 9 and new_a[1] in (3, 4):
        return new_a, new_b, ball, 1
    if ball == "B" and new_b[0] == 1 and new_b[1] in (3, 4):
        return new_a, new_b, ball, -1
    return new_a, new_b, ball, 0


@pytest.mark.parametrize(
    ("a", "b", "ball", "act_a", "act_b", "expected", "reward"),
    [
        ((2, 1), (8, 6), "A", LEFT, RIGHT, ((2, 1), (8, 6), "A"), 0),  # walls stop both
        ((2, 1), (8, 6), "A", DOWN, UP, ((2, 1), (8, 6), "A"), 0),
        ((4, 3), (5, 3), "A", RIGHT, LEFT, ((5, 3), (4, 3), "A"), 0),  # swapping cells is allowed
        ((4, 3), (5, 3), "A", RIGHT, NOOP, ((4, 3), (5, 3), "B"), 0),  # A runs into B and loses the ball
        ((4, 3), (6, 3), "B", RIGHT, LEFT, ((4, 3), (6, 3), "A"), 0),  # both want the cell between
        ((8, 3), (5, 1), "A", RIGHT, NOOP, ((9, 3), (5, 1), "A"), 1),
        ((8, 2), (5, 1), "A", RIGHT, NOOP, ((9, 2), (5, 1), "A"), 0),  # beside the goal
        ((8, 3), (5, 1), "B", RIGHT, NOOP, ((9, 3), (5, 1), "B"), 0),  # without the ball
        ((5, 5), (2, 4), "B", NOOP, LEFT, ((5, 5), (1, 4), "B"), -1),
        ((9, 4), (8, 4), "B", LEFT, NOOP, ((9, 4), (8, 4), "A"), 1),  # a steal in the goal cell scores
    ],
)
def test_a_move_follows_the_rules(a, b, ball, act_a, act_b, expected, reward):
    table = tables(RULES)
    after = table.after[at(a, b, ball), act_a, act_b]
    assert where(after) == expected
    assert table.reward[after] == reward


def test_every_kind_of_move_agrees_with_an_independent_copy_of_the_rules():
    table, rng = tables(RULES), np.random.default_rng(0)
    states = rng.choice(np.flatnonzero(table.reachable & ~table.over), 3000)
    for state, act_a, act_b in zip(states, rng.integers(0, 5, 3000), rng.integers(0, 5, 3000), strict=True):
        *position, reward = step_by_hand(*where(state), act_a, act_b)
        after = table.after[state, act_a, act_b]
        assert where(after) == tuple(position)
        assert table.reward[after] == reward


@pytest.mark.parametrize(
    ("style", "a", "b", "ball", "best"),
    [
        ("offensive", (3, 1), (6, 3), "B", {LEFT}),  # advance, though avoid would go up or right
        ("offensive", (6, 5), (6, 2), "B", {LEFT}),  # 1.0 left against .9 up
        ("offensive", (5, 2), (6, 5), "B", {LEFT, DOWN}),
        ("defensive", (3, 1), (6, 3), "B", {UP, RIGHT}),  # step away on either axis
        ("defensive", (3, 3), (6, 3), "A", {RIGHT, UP}),  # back to the goal, towards the rows 3 and 4
        ("defensive", (3, 6), (8, 3), "A", {UP}),  # in front of the goal: between its rows
        ("defensive", (3, 1), (8, 4), "A", {DOWN}),
        ("offensive", (5, 3), (6, 3), "A", {NOOP}),  # adjacent: wait
        ("offensive", (4, 3), (6, 5), "A", {DOWN}),  # 1.0 down against .9 left
        ("offensive", (4, 6), (6, 5), "A", {LEFT, UP}),
        ("up", (5, 2), (6, 5), "B", {LEFT}),
        ("down", (5, 2), (6, 5), "B", {DOWN}),
        ("up", (4, 6), (6, 5), "A", {UP}),
        ("down", (4, 6), (6, 5), "A", {LEFT}),
    ],
)
def test_rule_agents_choose_what_their_scores_say(style, a, b, ball, best):
    policy = style_policy(RULES, style)[at(a, b, ball)]
    assert set(np.flatnonzero(policy)) == best
    assert policy[list(best)] == pytest.approx(1 / len(best))


def test_figures_of_the_rule_agents_against_a_random_player_hold_exactly():
    offensive = outcome(RULES, RANDOM, style_policy(RULES, "offensive"))
    assert offensive.loss == pytest.approx(0.9991, abs=5e-5)
    assert offensive.length == pytest.approx(10.56, abs=0.005)
    defensive = outcome(RULES, RANDOM, style_policy(RULES, "defensive"))
    assert (defensive.loss, defensive.draw, defensive.win) == pytest.approx(
        (0.3215, 0.5838, 0.0947), abs=5e-5
    )


def test_played_games_agree_with_the_exact_figures():
    played = play(RANDOM, 4000, opponents="paper", seed=3)
    assert played["offensive"]["games"] + played["defensive"]["games"] == played["all"]["games"] == 4000
    assert played["offensive"]["games"] == pytest.approx(2000, abs=150)
    assert played["offensive"]["loss"] == pytest.approx(0.9991, abs=0.003)
    assert played["offensive"]["length"] == pytest.approx(10.56, abs=0.5)
    assert played["defensive"]["draw"] == pytest.approx(0.584, abs=0.04)


def test_optimal_scores_of_both_pools():
    assert int(tables(RULES).reachable.sum()) == 4608
    paper = solve(RULES, "paper", gamma=0.9)
    assert paper.known["offensive"].score == pytest.approx(0.896, abs=1e-3)
    assert paper.known["defensive"].score == pytest.approx(0.495, abs=1e-3)
    assert paper.known_score == pytest.approx(0.6951, abs=1e-4)
    assert paper.clock_score == pytest.approx(0.774, abs=1e-3)
    styles = solve(RULES, "styles", gamma=0.9)
    assert styles.known_score == pytest.approx(0.837, abs=1e-3)
    assert styles.blind_score < 0.55  # seeing the state alone is not enough


def test_the_solvers_on_a_game_small_enough_to_work_out():
    """One row of goals, B never moves: A with the ball in front of a free goal scores in one move."""
    rules = SoccerRules(width=4, height=2, goal_rows=(1, 1), horizon=3)
    table = tables(rules)
    still = np.tile(np.eye(5)[NOOP], (table.size, 1))
    values, q = value_iteration(rules, still, gamma=0.5)
    one = int(table.state(np.array(table.cell(3, 1)), np.array(table.cell(1, 2)), 1))
    two = int(table.state(np.array(table.cell(2, 1)), np.array(table.cell(1, 2)), 1))
    assert (values[one], values[two], q[one].argmax()) == (1.0, 0.5, RIGHT)
    assert finite_horizon(rules, still) <= 1.0


def test_steal_probability_leaves_the_ball_in_the_given_share_of_meetings():
    games = SoccerGames(4000, SoccerRules(steal_probability=0.25), "random", seed=0)
    start = at((4, 3), (5, 3), "A")
    games.state[:] = start
    games.step(np.full(4000, RIGHT), np.full(4000, NOOP))
    assert set(games.state) == {start, start ^ 1}
    assert (games.state != start).mean() == pytest.approx(0.25, abs=0.03)
    half = SoccerRules(steal_probability=0.5)
    exact = outcome(half, RANDOM, style_policy(half, "defensive"))
    assert exact.win + exact.draw + exact.loss == pytest.approx(1.0)
    played = play(RANDOM, 4000, half, "defensive", seed=1)["all"]
    assert (played["win"], played["draw"]) == pytest.approx((exact.win, exact.draw), abs=0.03)
    assert exact.win > 0.11  # .0947 where every meeting costs the ball: it is another game


def test_a_game_is_drawn_after_its_horizon_and_pays_nothing():
    env = SoccerEnv("defensive", horizon=7)
    for seed in range(20):
        env.reset(seed=seed)
        done, steps, reward = False, 0, 0.0
        while not done:
            _, reward, done, truncated, _ = env.step(NOOP)
            steps += 1
            assert not truncated
        assert steps <= 7
        if steps == 7 and reward == 0.0:
            return
    pytest.fail("no draw in 20 games against a defensive agent who is left alone")


def test_environments_pass_the_api_checks():
    check_env(SoccerEnv(), skip_render_check=True)
    parallel_api_test(SoccerParallelEnv(), num_cycles=300)


def test_same_seed_same_games():
    def games(env: SoccerVectorEnv) -> list:
        env.reset(seed=5)
        actions = np.random.default_rng(0).integers(0, 5, (200, 8))
        return [env.step(a)[:3] for a in actions]

    for first, second in zip(games(soccer(num_envs=8)), games(soccer(num_envs=8)), strict=True):
        for x, y in zip(first, second, strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_vector_environment_plays_whole_games_and_starts_new_ones_in_the_next_step():
    env = SoccerVectorEnv(16, "offensive")
    env.reset(seed=0)
    rng, ended, goals = np.random.default_rng(0), 0, 0.0
    fresh = np.zeros(16, bool)
    for _ in range(300):
        states = env.games.state.copy()
        _, reward, done, _, info = env.step(rng.integers(0, 5, 16))
        assert (reward[fresh] == 0).all()
        assert not done[fresh].any()
        np.testing.assert_array_equal(info["_opponent_action"], ~fresh)
        assert (env.games.clock[fresh] == 0).all()
        assert np.isin(env.games.state[fresh], env.games.tables.starts).all()
        expected = env.games.tables.moves[states[~fresh], info["opponent_action"][~fresh]]
        np.testing.assert_array_equal(info["opponent_moves"][~fresh], expected)
        ended += int(done.sum())
        goals += reward.sum()
        fresh = done
    assert ended > 200
    assert goals < -0.95 * ended


def test_infos_describe_the_opponents_move_and_the_lost_ball():
    env = SoccerEnv("up")
    env.reset(seed=0)
    env.games.state[:] = at((4, 3), (5, 3), "A")  # "up" waits next to the carrier
    _, _, _, _, info = env.step(RIGHT)
    assert info["opponent_action"] == NOOP
    assert info["ball_lost"] == 1
    assert info["opponent_moves"].tolist() == [0, 0, 0, 0, 1]
    _, _, _, _, info = env.step(NOOP)  # now B has the ball and advances to its left, into A
    assert info["opponent_action"] == LEFT
    assert info["ball_lost"] == 0
    assert info["opponent_moves"].tolist() == [1, 1, -1, 1, 0]


def test_the_type_is_not_in_the_observation():
    env = SoccerEnv("paper")
    seen = {}
    for style in ("offensive", "defensive"):
        obs, info = env.reset(seed=11, options={"opponent": style})
        seen[info["opponent_type"]] = obs
    assert set(seen) == {0, 1}
    np.testing.assert_array_equal(seen[0], seen[1])
    assert env.observation_space.shape == (15,)


def test_what_never_changes_in_an_observation_has_equal_bounds():
    space = SoccerEnv().observation_space
    changes = np.flatnonzero(space.high > space.low)
    assert [STATE_FEATURES[i] for i in changes] == [*STATE_FEATURES[:4], STATE_FEATURES[-1]]


def test_the_opponent_switches_where_it_is_told_to():
    env = SoccerEnv("styles", switch_at=[3], horizon=6)
    env.reset(seed=1)
    types = [env.step(NOOP)[4]["opponent_type"] for _ in range(5)]
    assert types[0] == types[1] != types[2] == types[3]
    often = SoccerGames(500, opponents={"up": 0.5, "down": 0.5}, switch_probability=0.1, seed=0)
    before = often.style.copy()
    often.step(np.full(500, NOOP))
    assert (often.style != before).mean() == pytest.approx(0.1, abs=0.05)


def test_both_players_see_a_mirrored_game_and_opposite_rewards():
    env = SoccerParallelEnv()
    rng = np.random.default_rng(0)
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        while env.agents:
            assert obs["player_a"][14] == 1 - obs["player_b"][14]  # one of them has the ball
            assert obs["player_a"][0] == pytest.approx(1 - obs["player_b"][2], abs=1e-6)
            assert obs["player_a"][1] == obs["player_b"][3]
            obs, rewards, done, _, _ = env.step({a: int(rng.integers(5)) for a in env.agents})
            assert rewards["player_a"] == -rewards["player_b"]
        assert all(done.values())


def test_player_b_advances_to_its_right_and_scores():
    env = SoccerParallelEnv()
    env.reset(seed=0)
    env.games.state[:] = at((5, 6), (2, 3), "B")
    _, rewards, _, _, infos = env.step({"player_a": NOOP, "player_b": RIGHT})
    assert rewards == {"player_a": -1.0, "player_b": 1.0}
    assert infos["player_a"]["opponent_moves"].tolist() == [1, -1, -1, 1, 0]
    assert infos["player_b"]["opponent_moves"].tolist() == [0, 0, 0, 0, 1]


def test_pictures_show_players_and_ball():
    env = SoccerEnv(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (240, 360, 3)
    assert first.dtype == np.uint8
    assert (first == (255, 255, 255)).all(axis=-1).any()
    env.step(UP)
    assert (env.render() != first).any()
    text = SoccerEnv(render_mode="ansi")
    text.reset(seed=0)
    text.games.state[:] = at((2, 1), (5, 4), "B")
    assert text.render().splitlines() == [
        ". . . . . . . . .",
        ". . . . . . . . .",
        "| . . . B . . . |",
        "| . . . . . . . |",
        ". . . . . . . . .",
        ". a . . . . . . .",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponents": "offensiv"}, "did you mean 'offensive'"),
        ({"opponents": {"up": 0.5, "sideways": 0.5}}, "no soccer opponent 'sideways'"),
        ({"opponents": {"up": -1}}, "expected a positive number"),
        ({"opponents": ["up", "up"]}, "twice; fix: write weights"),
        ({"opponents": [["up"]]}, "expected the name of an opponent"),
        ({"opponents": []}, "at least one style"),
        ({"width": 3}, "at least 4 x 2"),
        ({"goal_rows": [3, 9]}, r"within 1\.\.6"),
        ({"horizon": 0}, "at least 1 move"),
        ({"steal_probability": 1.5}, r"in \[0, 1\]"),
        ({"opponents": "up", "switch_at": [5]}, "at least two opponents"),
        ({"render_mode": "human"}, "expected one of"),
    ],
)
def test_bad_arguments_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        SoccerEnv(**options)


def test_bad_actions_and_options_are_refused():
    env = SoccerEnv()
    with pytest.raises(ValueError, match="one of"):
        env.reset(options={"opponent": "up"})
    env.reset()
    with pytest.raises(ValueError, match=r"expected 0\.\.4"):
        env.step(5)


def shares(*pool) -> dict[str, float]:
    made = pool_of(*pool)
    return dict(zip(made.names, made.weights, strict=True))


def test_pools_are_normalised():
    assert shares({"up": 3, "down": 1}) == {"up": 0.75, "down": 0.25}
    assert shares(["up", "down"]) == {"up": 0.5, "down": 0.5}
    assert shares("defensive") == {"defensive": 1.0}
    assert shares() == {"offensive": 0.5, "defensive": 0.5}
    assert shares(None, {"mine": GOALKEEPER}) == {"mine": 1.0}


# Styles --------------------------------------------------------------------------------------------------------------

GOALKEEPER = {
    "advance": 1,
    "avoid": 3,
    "defend": 9,
    "intercept": 1,
    "order": ["down", "left", "right", "up", "noop"],
}


@pytest.mark.parametrize(
    ("weights", "a", "b", "ball", "best"),
    [
        ((1, 3, 9, 1), (3, 1), (6, 3), "B", {UP, RIGHT}),  # avoid 3 outweighs advance 1; both axes away tie
        ((3, 1, 9, 1), (3, 1), (6, 3), "B", {LEFT}),
        ((3, 3, 9, 1), (3, 1), (6, 3), "B", {LEFT, UP, RIGHT}),  # 3 left, 3 away on either axis
        ((1, 1, 2, 3), (4, 3), (6, 5), "A", {DOWN}),  # defend 2 and intercept 3: 5 down
        ((1, 1, 3, 0.5), (4, 3), (8, 4), "A", {DOWN}),  # in front of the goal: 3 down, .5 left and down
    ],
)
def test_a_style_plays_what_its_weights_say(weights, a, b, ball, best):
    style = Style(*weights)
    assert set(np.flatnonzero(style_policy(RULES, style)[at(a, b, ball)])) == best


def test_order_and_noise_of_a_style_from_a_recipe():
    style = read_style("mine", {**GOALKEEPER, "noise": 0.5})
    policy = style_policy(RULES, style)[at((3, 1), (6, 3), "B")]
    # right comes before up: .5 of it, and .5 of any
    assert policy == pytest.approx([0.1, 0.1, 0.1, 0.6, 0.1])
    games = SoccerGames(5000, RULES, ["mine"], styles={"mine": {**GOALKEEPER, "noise": 0.5}}, seed=0)
    games.state[:] = at((3, 1), (6, 3), "B")
    counts = np.bincount(games.opponent_actions(), minlength=5) / 5000
    assert counts == pytest.approx(policy, abs=0.03)


def test_a_random_pool_is_the_same_for_the_same_seed_and_its_styles_differ():
    one, same, other = (pool_of({"random": 4, "seed": seed}) for seed in (7, 7, 8))
    assert one == same != other
    policies = one.policies(RULES)
    assert all((policies[i] != policies[j]).any() for i in range(4) for j in range(i))
    assert SoccerVectorEnv(2, {"random": 4, "seed": 7}).games.names == (
        "style_0",
        "style_1",
        "style_2",
        "style_3",
    )


def test_a_registered_style_can_be_named_and_its_name_is_taken(monkeypatch):
    monkeypatch.setattr("rlkit.envs.soccer_styles.STYLES", dict(STYLES))
    register_soccer_style("keeper", **GOALKEEPER)
    register_soccer_style("keeper", **GOALKEEPER)  # again, as a re-import does
    assert shares(["keeper", "up"]) == {"keeper": 0.5, "up": 0.5}
    for taken in ("keeper", "styles"):
        with pytest.raises(ValueError, match="choose a new"):
            register_soccer_style(taken, **{**GOALKEEPER, "advance": 2})


def test_other_opponents_hold_from_the_next_reset_on():
    env = SoccerEnv("up")
    env.reset(seed=0)
    env.step(NOOP)
    games, state = env.games, int(env.games.state[0])
    env.opponents = ["down", "offensive"]
    assert env.opponents == ["down", "offensive"]
    assert (env.games, int(env.games.state[0]), int(env.games.clock[0])) == (games, state, 1)
    with pytest.raises(ValueError, match="sideways"):
        env.opponents = "sideways"
    env.reset(seed=0)
    assert env.games.names == ("down", "offensive")


@pytest.mark.parametrize("mirror", [True, False])
def test_two_players_are_told_what_the_other_one_chose(mirror):
    env = SoccerParallelEnv(mirror=mirror)
    env.reset(seed=0)
    infos = env.step({"player_a": UP, "player_b": RIGHT})[4]
    assert (infos["player_a"]["opponent_action"], infos["player_b"]["opponent_action"]) == (RIGHT, UP)
