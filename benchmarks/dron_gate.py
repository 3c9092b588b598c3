"""What DRON's gate does: its weights per opponent style, and after the opponent changes its style within a game.

    python benchmarks/dron_gate.py RUN [--out docs/images/dron_gate.png] [--games 20000]

RUN is a run of configs/dron_styles.yaml (network: moe). Left picture: greedy games, mean weight of each expert by move,
games against "up" and "down" apart. Right picture: greedy games in which the opponent takes up the other style at move
6; the weight of the expert that tells the styles apart best, beside games without a switch. Prints how far the gate has
come from the old style's mean weight (0) to the new one's (1), by move after the switch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from dron_games import Player

import rlkit
from rlkit.algos.dron_rules import FEATURES
from rlkit.algos.opponents.history import FeatureOptions
from rlkit.envs.soccer_games import SoccerGames
from rlkit.envs.soccer_rules import SoccerRules

SWITCH, LAST = 6, 16


def watch(
    module: Any, options: FeatureOptions, games: int, *, seed: int, switch_at: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gates (T, N, K), styles (T, N) and whether the game goes on (T, N), by move of greedy games."""
    player = Player(SoccerGames(games, SoccerRules(), "styles", seed=seed, switch_at=switch_at), options)
    alive, gates, styles, going = np.ones(games, bool), [], [], []
    for _ in range(LAST):
        observation = {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in player.observation.items()}
        gates.append(module.gate(observation).numpy())
        styles.append(player.games.style.copy())
        going.append(alive.copy())
        with torch.no_grad():
            actions = module.compute_q_values({"obs": observation})["qf_preds"].argmax(dim=1).numpy()
        alive &= ~player.step(actions).done
    return np.stack(gates), np.stack(styles), np.stack(going)


def mean_over(gates: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean weights by move, (T, K), over the chosen games (T, N)."""
    counts = np.maximum(chosen.sum(axis=1), 1)
    return (gates * chosen[..., None]).sum(axis=1) / counts[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, default=Path("docs/images/dron_gate.png"))
    parser.add_argument("--games", type=int, default=20_000)
    arguments = parser.parse_args()
    agent = rlkit.load(arguments.run)
    module = agent.modules["default_policy"]
    training = agent.manifest.recipe["config"]["training"]
    options = FeatureOptions(tuple(training.get("features", FEATURES)), int(training.get("history", 0)))

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    gates, styles, going = watch(module, options, arguments.games, seed=1)
    plain = [mean_over(gates, going & (styles == style)) for style in (0, 1)]
    for style, (name, line) in enumerate((("up", "-"), ("down", "--"))):
        for k in range(gates.shape[2]):
            left.plot(plain[style][:, k], line, color=f"C{k}", label=f"expert {k + 1}, {name}")
    left.set(xlabel="move", ylabel="mean gate weight", title="greedy games", ylim=(0, 1))
    left.legend(fontsize=7, ncol=2)

    expert = int(np.abs(plain[0][SWITCH:] - plain[1][SWITCH:]).mean(0).argmax())
    gates, styles, going = watch(module, options, arguments.games, seed=2, switch_at=(SWITCH,))
    for style, name in enumerate(("up", "down")):
        other = ("down", "up")[style]
        switched = mean_over(gates, going & (styles[0] == style)[None])[:, expert]
        old, new = plain[style][:, expert], plain[1 - style][:, expert]
        right.plot(old, color=f"C{style}", label=f"{name} throughout")
        right.plot(switched, "--", color=f"C{style}", label=f"{name}, then {other}")
        share = (switched - old)[SWITCH:] / (new - old)[SWITCH:]
        print(f"{name} to {other}: " + ", ".join(f"{i + 1}: {part:.2f}" for i, part in enumerate(share)))
    right.axvline(SWITCH, color="grey", linewidth=0.8)
    right.set(
        xlabel="move",
        ylabel=f"mean weight of expert {expert + 1}",
        title=f"a switch of style at move {SWITCH}",
    )
    right.legend(fontsize=8)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
