"""Repeated matrix games: strategies move by move, optima worked out by hand, the environment, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlkit.envs.matrix_game import MatrixGameEnv, MatrixGames, matrix_game
from rlkit.envs.matrix_rules import GAMES, POOLS, STRATEGIES, strategy
from rlkit.envs.matrix_solver import average_reward, bayes_optimal, best_response, solve


def answers(name: str, mine: str, game: str = "prisoners_dilemma") -> str:
    """What a strategy plays against the learner's moves."""
    automaton, state, out = strategy(name, game), 0, ""
    for a in mine:
        assert automaton.defects[state] in (0.0, 1.0)
        b = int(automaton.defects[state])
        out += "CD"[b]
        state = automaton.after[state, "CD".index(a), b]
    return out


@pytest.mark.parametrize(
    ("name", "mine", "its"),
    [
        ("always_cooperate", "DDD", "CCC"),
        ("always_defect", "CCC", "DDD"),
        ("tit_for_tat", "CDDCC", "CCDDC"),
        ("suspicious_tit_for_tat", "CDDCC", "DCDDC"),
        ("tit_for_two_tats", "DCDDCC", "CCCCDC"),
        ("two_tits_for_tat", "DCCCDDC", "CDDCCDD"),
        ("grim", "CDCCC", "CCDDD"),
        ("win_stay_lose_shift", "CDCDDC", "CCDDCD"),
    ],
)
def test_strategies_move_by_move(name, mine, its):
    assert answers(name, mine) == its


def test_win_stay_lose_shift_looks_at_its_own_payoff():
    assert answers("win_stay_lose_shift", "CDDC", "coordination") == "CCDD"
    assert answers("win_stay_lose_shift", "CCDD", "matching_pennies") == "CDDC"  # it wins where they differ


def test_random_and_generous_strategies_play_their_odds():
    games = MatrixGames(8000, opponents="generous_tit_for_tat", seed=0)
    games.step(np.ones(8000, int))
    assert games.step(np.ones(8000, int)).opponent_action.mean() == pytest.approx(2 / 3, abs=0.02)
    games = MatrixGames(8000, opponents="random", seed=0)
    assert games.step(np.ones(8000, int)).opponent_action.mean() == pytest.approx(0.5, abs=0.02)


PD = np.asarray(GAMES["prisoners_dilemma"], float)


@pytest.mark.parametrize(
    ("name", "rounds", "best"),
    [
        ("always_cooperate", 4, 5),
        ("always_defect", 4, 1),
        ("random", 4, 3),  # D: (5 + 1) / 2
        ("tit_for_tat", 4, (3 + 3 + 3 + 5) / 4),
        ("suspicious_tit_for_tat", 4, (0 + 3 + 3 + 5) / 4),
        ("grim", 4, (3 + 3 + 3 + 5) / 4),
        ("tit_for_two_tats", 4, (5 + 3 + 5 + 5) / 4),
        ("two_tits_for_tat", 4, (3 + 3 + 3 + 5) / 4),
        ("win_stay_lose_shift", 4, (3 + 3 + 3 + 5) / 4),
        ("win_stay_lose_shift", 3, (5 + 1 + 5) / 3),  # D, then D against D, which makes it cooperate
    ],
)
def test_best_responses_worked_out_by_hand(name, rounds, best):
    assert best_response(PD, strategy(name, "prisoners_dilemma"), rounds) == pytest.approx(best)


def test_the_bayes_optimal_player_pays_for_what_it_does_not_know():
    two = solve("coordination", ["always_cooperate", "always_defect"], rounds=2)
    assert (two.known_score, two.inferred_score, two.random_score) == pytest.approx((1.0, 0.75, 0.5))
    assert two.last_round_score == pytest.approx(0.75)
    # Only a look at two rounds in a row tells tit for tat (C, C) from its suspicious kin (D, C).
    kin = solve("prisoners_dilemma", ["tit_for_tat", "suspicious_tit_for_tat"], rounds=4)
    assert kin.inferred_score == pytest.approx((3 + 3 + 3 + 5 + 0 + 3 + 3 + 5) / 8)
    # Grim or always D: a first D costs grim's trust, a first C costs 1 against always D.
    grim = [strategy(name, "prisoners_dilemma") for name in ("grim", "always_defect")]
    assert bayes_optimal(PD, grim, [0.5, 0.5], 3) == pytest.approx((3 + 3 + 5 + 0 + 1 + 1) / 6)
    assert bayes_optimal(PD, grim, [0.1, 0.9], 3) == pytest.approx(0.1 * (5 + 1 + 1) / 3 + 0.9)


def test_optima_bound_each_other_and_games_played_agree_with_them():
    found = solve("prisoners_dilemma", "mixed", rounds=10)
    assert found.random_score < found.last_round_score < found.inferred_score < found.known_score
    policy = np.array([0.0, 0.0, 1.0, 0.5, 1.0])
    games = MatrixGames(4000, opponents="win_stay_lose_shift", rounds=10, seed=0)
    total = np.zeros(4000)
    for _ in range(10):
        total += games.step((games.rng.random(4000) < policy[games.state]).astype(int)).reward
    exact = average_reward(PD, strategy("win_stay_lose_shift", "prisoners_dilemma"), policy, 10)
    assert total.mean() / 10 == pytest.approx(exact, abs=0.03)


def test_the_environment_passes_the_api_checks_and_shows_the_last_round():
    check_env(MatrixGameEnv(), skip_render_check=True)
    env = matrix_game(game="chicken", opponents=["tit_for_tat", "grim"], rounds=3)
    obs, info = env.reset(seed=0, options={"opponent": "grim"})
    assert obs.tolist() == [1, 0, 0, 0, 0]
    assert info == {"opponent_type": 1}
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs.tolist(), reward, info["opponent_action"]) == ([0, 0, 0, 1, 0], 4.0, 0)
    obs, reward, terminated, truncated, info = env.step(0)
    assert (obs.tolist(), reward, info["opponent_action"]) == ([0, 0, 1, 0, 0], 1.0, 1)
    assert not terminated
    assert not truncated
    assert env.step(1)[1:4] == (0.0, False, True)


def test_the_vector_environment_starts_new_games_in_the_next_step():
    env = matrix_game(num_envs=3, rounds=2, opponents="always_cooperate")
    env.reset(seed=0)
    played = [env.step(np.ones(3, int)) for _ in range(3)]
    assert [p[3].tolist() for p in played] == [[False] * 3, [True] * 3, [False] * 3]
    assert played[1][1].tolist() == [5.0] * 3
    assert played[2][1].tolist() == [0.0] * 3  # the actions of this step belong to no game
    assert played[2][0][:, 0].tolist() == [1.0] * 3
    assert not played[2][4]["_opponent_action"].any()


def test_responses_are_the_shares_of_what_the_opponent_did_after_each_outcome():
    env = matrix_game(opponents="tit_for_tat", observe="responses", rounds=5)
    check_env(matrix_game(observe="responses"), skip_render_check=True)
    env.reset(seed=0)
    for action in (0, 1, 0, 1):  # CC, DC, CD, DC
        obs = env.step(action)[0]
    assert obs[:5].tolist() == [0, 0, 0, 1, 0]
    # after CC it played C; after CD (second row) C; after DC D; DD has not been seen
    assert obs[5:].tolist() == [1, 0, 1, 0, 0, 1, 0, 0]


def test_an_opponent_stays_for_its_games_and_the_responses_with_it():
    env = matrix_game(rounds=2, observe="responses", games_per_opponent=3, opponents="literature")
    env.reset(seed=0)
    env.games.rng = np.random.default_rng(1)
    types, seen = [], []
    for _ in range(30):
        env.step(1)
        env.games.state[:] = 1  # as if CC had come before: this counts as an answer
        env.step(1)
        obs, info = env.reset()
        types.append(info["opponent_type"])
        seen.append(bool(obs[5:].any()))
    assert seen == [True, True, False] * 10
    changed = [a != b for a, b in itertools.pairwise(types)]
    assert any(changed[1::3])
    assert not any(changed[0::3])
    assert not any(changed[2::3])
    env.step(1)
    assert not env.reset(seed=3)[0][5:].any()


def test_the_step_that_begins_a_game_anew_is_no_answer():
    env = matrix_game(
        num_envs=2, rounds=1, observe="responses", games_per_opponent=3, opponents="tit_for_tat"
    )
    env.reset(seed=0)
    env.step(np.zeros(2, int))
    assert not env.step(np.zeros(2, int))[0][:, 5:].any()  # nothing came before the only round of a game


def test_a_switch_brings_another_strategy():
    games = MatrixGames(
        2000, opponents=["always_cooperate", "always_defect"], switch_probability=0.25, seed=0
    )
    before = games.style.copy()
    games.step(np.zeros(2000, int))
    assert (games.style != before).mean() == pytest.approx(0.25, abs=0.03)
    played = games.step(np.zeros(2000, int))
    assert set(played.opponent_action) == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "prisoner_dilemma"}, "did you mean 'prisoners_dilemma'"),
        ({"opponents": "tit_for_tatt"}, "did you mean 'tit_for_tat'"),
        ({"opponents": ["grim", "nobody"]}, "no strategy 'nobody'"),
        ({"opponents": {"grim": "much"}}, "expected a positive number"),
        ({"opponents": ["grim", "grim"]}, "twice; fix: write weights"),
        ({"opponents": [["grim"]]}, "expected the name of an opponent"),
        ({"opponents": []}, "at least one strategy"),
        ({"rounds": 0}, "at least 1"),
        ({"opponents": "grim", "switch_probability": 0.1}, "at least two opponents"),
        ({"switch_probability": 2}, r"in \[0, 1\]"),
        ({"observe": "response"}, "did you mean 'responses'"),
        ({"games_per_opponent": 0}, "at least 1"),
        ({"games_per_opponent": 3, "switch_probability": 0.1}, "cannot switch as well"),
    ],
)
def test_bad_arguments_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        matrix_game(**options)


def test_every_pool_names_known_strategies():
    assert all(set(pool) <= set(STRATEGIES) for pool in POOLS.values())


@pytest.mark.parametrize("num_envs", [None, 2])
def test_the_first_opponent_without_a_seed_stays_as_long_as_the_others(num_envs):
    env = matrix_game(num_envs=num_envs, rounds=1, observe="responses", games_per_opponent=3)
    env.reset()
    stays = [int(env.games.left[0])]
    for _ in range(5):
        env.reset()
        stays.append(int(env.games.left[0]))
    assert stays == [3, 2, 1, 3, 2, 1]
