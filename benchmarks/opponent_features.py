"""Do the opponent features tell a pool's styles apart? A check without reinforcement learning.

    python benchmarks/opponent_features.py '{random: 4, seed: 7}'

A player who infers the style exactly (QMDP, see soccer_pool.py) plays games with 20 % random moves; classifiers learn
the style from what DRON would see in them. Prints the accuracy of each on other games, beside that of the exact
posterior, and the score of a player who puts the classifier's probabilities in place of the posterior: as near to the
optimum as what DRON sees allows, whatever it then learns.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import yaml
from dron_games import Player, evaluate
from soccer_pool import style_values
from torch import nn

from rlkit.algos.opponents.history import FeatureOptions
from rlkit.envs.soccer_games import SoccerGames
from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_solver import greedy
from rlkit.envs.soccer_styles import Pool, pool_of

GAMES, EPSILON = 400, 0.2
OPTIONS = FeatureOptions(window=8)
SEEN = {"features": ("opponent",), "window of 8": ("history",), "both": ("opponent", "history")}


def inputs(player: Player, names: tuple[str, ...]) -> np.ndarray:
    """Return what a classifier reads, (N, inputs)."""
    return np.concatenate(
        [player.observation[name].reshape(player.games.count, -1) for name in names], axis=1
    )


def collect(pool: Pool, q: np.ndarray, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Play, and return rows: what each classifier reads, `style`, and the exact `posterior`."""
    games, rng = SoccerGames(GAMES, SoccerRules(), pool, seed=seed), np.random.default_rng(seed)
    player, policies = Player(games, OPTIONS), pool.policies(SoccerRules())
    belief = np.tile(np.array(pool.weights), (GAMES, 1))
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*SEEN, "style", "posterior")}
    for _ in range(steps):
        for name, columns in SEEN.items():
            found[name].append(inputs(player, columns))
        found["style"].append(games.style.copy())
        found["posterior"].append(belief.copy())
        best = greedy(np.einsum("gk,kga->ga", belief, q[:, games.state]))
        actions = np.where(rng.random(GAMES) < EPSILON, rng.integers(0, len(ACTIONS), GAMES), best)
        before = games.state.copy()
        move = player.step(actions)
        belief = belief * policies[:, before, move.opponent_action].T
        belief /= belief.sum(axis=1, keepdims=True)
        ended = np.flatnonzero(move.done)
        player.restart(ended)
        belief[ended] = pool.weights
    return {name: np.concatenate(parts) for name, parts in found.items()}


def fit(rows: np.ndarray, styles: np.ndarray, count: int, updates: int) -> nn.Module:
    """Train a classifier of one hidden layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(rows.shape[1], 64), nn.ReLU(), nn.Linear(64, count))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    x, y = torch.from_numpy(rows), torch.from_numpy(styles)
    for _ in range(updates):
        pick = torch.randint(0, len(y), (512,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
        optimizer.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("opponents", nargs="?", default="styles", help="a soccer pool, as YAML")
    parser.add_argument("--updates", type=int, default=1500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pool = pool_of(yaml.safe_load(given.opponents))
    q = style_values(SoccerRules(), pool)
    train, test = collect(pool, q, 150, seed=1), collect(pool, q, 40, seed=2)
    exact = (test["posterior"].argmax(axis=1) == test["style"]).mean()
    print(f"exact posterior: accuracy {exact:.3f}")
    for name, columns in SEEN.items():
        model = fit(train[name], train["style"], len(pool.names), given.updates)
        with torch.no_grad():
            right = model(torch.from_numpy(test[name])).argmax(dim=1).numpy() == test["style"]

        def act(player: Player, model: nn.Module = model, columns: tuple[str, ...] = columns) -> np.ndarray:
            with torch.no_grad():
                belief = torch.softmax(model(torch.from_numpy(inputs(player, columns))), dim=1).numpy()
            return greedy(np.einsum("gk,kga->ga", belief, q[:, player.games.state]))

        score = evaluate(act, OPTIONS, 2000, opponents=pool, seed=5)["all"]["score"]
        print(f"{name}: accuracy {right.mean():.3f}, score of the player who believes it {score:.3f}")


if __name__ == "__main__":
    main()
