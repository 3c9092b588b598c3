"""What DRON's gate does: its weights per opponent style, and after the opponent changes its style within a game.

    python benchmarks/dron_gate.py RUN [--out docs/images/dron_gate.png]

RUN is a run of configs/dron_styles.yaml (network: moe). Left picture: greedy games, mean weight of each expert by move,
games against "up" and "down" apart. Right picture: 2,000 games in which the learner's side is played by the offensive
rule agent, so that they last, and the opponent switches its style at move 25; the weight of the expert that tells the
styles apart best. Prints that difference before and after, and the moves until the gate has changed sides.
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
from rlkit.algos.opponent_history import FEATURES, FeatureOptions
from rlkit.envs.soccer_games import SoccerGames
from rlkit.envs.soccer_rules import MIRRORED, SoccerRules, style_policy, tables

GAMES, SWITCH, LAST = 2000, 25, 50


def observe(player: Player) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in player.observation.items()}


def watch(module: Any, options: FeatureOptions, moves: int, *, rule_agent: bool, seed: int, switch_at: tuple[int, ...]
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return gates (T, N, K), styles (T, N) and whether the game goes on (T, N), over the first `moves` moves."""
    rules = SoccerRules()
    table = SoccerGames(GAMES, rules, "styles", seed=seed, switch_at=switch_at)
    player = Player(table, options)
    as_b = style_policy(rules, "offensive")
    as_a = as_b[tables(rules).mirror][:, MIRRORED].cumsum(axis=1)
    alive, gates, styles, going = np.ones(GAMES, bool), [], [], []
    for _ in range(moves):
        observation = observe(player)
        gates.append(module.gate(observation).numpy())
        styles.append(table.style.copy())
        going.append(alive.copy())
        if rule_agent:
            draw = table.rng.random((GAMES, 1))
            actions = (as_a[table.state] < draw).sum(axis=1).clip(0, 4)
        else:
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
    arguments = parser.parse_args()
    agent = rlkit.load(arguments.run)
    module = agent.modules["default_policy"]
    training = agent.manifest.recipe["config"]["training"]
    options = FeatureOptions(tuple(training.get("features", FEATURES)), int(training.get("history", 0)))

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    gates, styles, going = watch(module, options, 16, rule_agent=False, seed=1, switch_at=())
    for style, name, line in ((0, "up", "-"), (1, "down", "--")):
        means = mean_over(gates, going & (styles == style))
        for k in range(gates.shape[2]):
            left.plot(means[:, k], line, color=f"C{k}", label=f"expert {k + 1}, {name}")
    left.set(xlabel="move", ylabel="mean gate weight", title="greedy games", ylim=(0, 1))
    left.legend(fontsize=7, ncol=2)

    gates, styles, going = watch(module, options, LAST, rule_agent=True, seed=2, switch_at=(SWITCH,))
    first = styles[0]
    means = [mean_over(gates, going & (first == style)[None]) for style in (0, 1)]
    expert = int(
        np.abs(means[0][SWITCH - 5 : SWITCH].mean(0) - means[1][SWITCH - 5 : SWITCH].mean(0)).argmax()
    )
    for style, name in ((0, "up, then down"), (1, "down, then up")):
        right.plot(means[style][:, expert], color=f"C{style}", label=name)
    right.axvline(SWITCH, color="grey", linewidth=0.8)
    right.set(
        xlabel="move",
        ylabel=f"mean weight of expert {expert + 1}",
        title=f"the opponent switches at move {SWITCH}",
    )
    right.legend(fontsize=8)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)

    gap = means[0][:, expert] - means[1][:, expert]
    crossed = np.flatnonzero(np.sign(gap[SWITCH:]) == -np.sign(gap[SWITCH - 1]))
    print(
        f"expert {expert + 1}: weight against up - against down, moves {SWITCH - 5}-{SWITCH - 1}: "
        f"{gap[SWITCH - 5 : SWITCH].mean():+.3f}; after the switch, moves {LAST - 5}-{LAST - 1}: {gap[-5:].mean():+.3f}"
    )
    print(
        f"the gate has changed sides {crossed[0] if len(crossed) else 'never'} moves after the switch; "
        f"{int(going[-1].sum())} of {GAMES} games still going at move {LAST}"
    )
    print(arguments.out)


if __name__ == "__main__":
    main()
