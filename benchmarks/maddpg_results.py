"""The MADDPG results in docs/maddpg.md: recipes x seeds on MPE, and who wins when they meet.

    python benchmarks/maddpg_results.py run spread matd3 --seeds 0 1 2    # trains, evaluates, appends rows
    python benchmarks/maddpg_results.py versus adversary --seeds 0 1 2    # cross-play of the trained runs
    python benchmarks/maddpg_results.py report

Every run is `rlkit train RECIPE`, then `rlkit evaluate RUN` on 200 greedy episodes whose seeds chose nothing; those of
seed s begin with the environment's seed 200 s (`spread_long`; the rows before it: with 0 for each seed). Rows go
to benchmarks/results/maddpg.jsonl and those that are there already are skipped (take out the rows of a recipe
that has changed); trained runs stay in `--out` for cross-play. `--steps`, `--episodes` and `--rows FILE` make a short
form that leaves the kept rows alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from processes import append_row, rlkit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "maddpg.jsonl"
EPISODES = 200
LOCAL = "config.training.critic=local"
# as many env steps for each of three sub-policies as a single policy has, and the schedules stretched
THREE_TIMES = (
    "stop.env_steps=900000",
    "config.training.actor_lr=[[0, 1.0e-2], [600000, 1.0e-2], [900000, 1.0e-3]]",
    "config.training.critic_lr=[[0, 1.0e-2], [600000, 1.0e-2], [900000, 1.0e-3]]",
    "config.training.exploration_noise=[[0, 0.5], [750000, 0.1]]",
)
# the same recipe with more env steps, schedules stretched
LONG = (
    "stop.env_steps=1200000",
    "config.training.actor_lr=[[0, 1.0e-3], [800000, 1.0e-3], [1200000, 1.0e-4]]",
    "config.training.critic_lr=[[0, 2.0e-3], [800000, 2.0e-3], [1200000, 2.0e-4]]",
    "config.training.exploration_noise=[[0, 0.6], [1000000, 0.1]]",
    "config.training.replay_buffer_config.capacity=1200000",
)


@dataclass(frozen=True)
class Entry:
    """A recipe, what is changed in it, and the measures its evaluation takes."""

    recipe: str
    changes: tuple[str, ...] = ()
    measure: str | None = None


ENTRIES = {
    "spread": Entry("maddpg_spread"),
    "spread_long": Entry("maddpg_spread", LONG),
    "spread_separate": Entry("maddpg_spread", ("policies=null",)),
    "matd3": Entry("matd3_spread"),
    "ddpg": Entry("ddpg_spread"),
    "spread_discrete": Entry("maddpg_spread_discrete"),
    "inferred": Entry("maddpg_spread_inferred"),
    "speaker_listener": Entry("maddpg_speaker_listener", measure="success"),
    "speaker_listener_discrete": Entry("maddpg_speaker_listener_discrete", measure="success"),
    "speaker_listener_inferred": Entry(
        "maddpg_speaker_listener_discrete", ("config.training.infer_policies=true",), "success"
    ),
    "speaker_listener_local": Entry("maddpg_speaker_listener_local", measure="success"),
    "adversary": Entry("maddpg_adversary", measure="success"),
    "adversary_ddpg": Entry("maddpg_adversary", (LOCAL,), "success"),
    "adversary_ensemble": Entry("maddpg_adversary_ensemble", measure="success"),
    "adversary_ensemble_long": Entry("maddpg_adversary_ensemble", THREE_TIMES, "success"),
    "push": Entry("maddpg_push", measure="success"),
    "push_ensemble": Entry("maddpg_push", ("config.training.ensemble_size=3",), "success"),
    "tag": Entry("maddpg_tag", measure="touches"),
    "tag_ddpg": Entry("maddpg_tag", (LOCAL,), "touches"),
    "reference": Entry("maddpg_reference", measure="success"),
    "world_comm": Entry("maddpg_world_comm", measure="touches"),
    "crypto": Entry("maddpg_crypto"),
    "vmas_spread": Entry("maddpg_vmas_spread"),
    "matd3_speaker_listener": Entry("matd3_speaker_listener", measure="success"),
    "mappo_speaker_listener": Entry("mappo_speaker_listener", measure="success"),
    "ippo_speaker_listener": Entry("ippo_speaker_listener", measure="success"),
    "matd3_tag": Entry("matd3_tag", measure="touches"),
    "mappo_tag": Entry("mappo_tag", measure="touches"),
    "ippo_tag": Entry("ippo_tag", measure="touches"),
}


@dataclass(frozen=True)
class Meeting:
    """Games between trained runs.

    Attributes:
        agents: how the agents are dealt to A and B.
        measures: what is measured in each game.
        pairings: label: (entry that plays A, entry that plays B, seeds between the two). A team knows the opponents
            it was trained with, so a comparison of two teams against a third takes that one from the next seed.
        compare: the two labels whose difference is the result, and the key it is taken of.
    """

    agents: str
    measures: tuple[str, ...]
    pairings: dict[str, tuple[str, str, int]]
    compare: tuple[str, str, str]


def both_ways(m: str, d: str) -> dict[str, tuple[str, str, int]]:
    """Return M-M, M-D, D-M and D-D: who plays A and who plays B."""
    names = {"M": m, "D": d}
    return {f"{a}-{b}": (names[a], names[b], 0) for a in "MD" for b in "MD"}


MEETINGS = {
    "adversary": Meeting(
        "agent_*=A,adversary_*=B",
        ("success",),
        both_ways("adversary", "adversary_ddpg"),
        ("M-D", "D-M", "success/difference"),
    ),
    "tag": Meeting(
        "adversary_*=A,agent_*=B", ("touches",), both_ways("tag", "tag_ddpg"), ("M-D", "D-M", "touches")
    ),
    "ensemble": Meeting(
        "adversary_*=A,agent_*=B",
        ("success", "frames"),
        {"E-S": ("adversary_ensemble", "adversary", 1), "S-S": ("adversary", "adversary", 1)},
        ("E-S", "S-S", "frames/adversary"),
    ),
    "keep_away": Meeting(
        "adversary_*=A,agent_*=B",
        ("success", "frames"),
        {"E-S": ("push_ensemble", "push", 1), "S-S": ("push", "push", 1)},
        ("E-S", "S-S", "frames/adversary"),
    ),
}
GAMES = 1000


def rows(kind: str, path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the rows measured so far: `run` or `versus`."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, filter(None, lines)) if row["kind"] == kind]


def keep(row: dict[str, Any], path: Path = RESULTS) -> None:
    append_row(path, row)
    print(json.dumps({key: value for key, value in row.items() if key != "curve"}), flush=True)


def folder(out: Path, name: str, seed: int) -> Path | None:
    """Return the newest run of an entry and seed."""
    found = sorted((out / f"{name}_{seed}").glob("*"))
    return found[-1] if found else None


def train(name: str, seed: int, given: argparse.Namespace) -> None:
    """Train one entry with one seed, evaluate it, and keep the row."""
    entry, began, out = ENTRIES[name], time.monotonic(), given.out
    rlkit(
        "train",
        f"configs/{entry.recipe}.yaml",
        *entry.changes,
        *([f"stop.env_steps={given.steps}", "evaluation.every=1"] if given.steps else []),
        f"seed={seed}",
        f"name={name}_{seed}",
        "--out",
        str(out),
    )
    wall = time.monotonic() - began
    run = folder(out, name, seed)
    assert run is not None
    measure = ["--measure", entry.measure] if entry.measure else []
    first = str(EPISODES * seed)  # the environment's seed: each run plays episodes of its own
    found = json.loads(
        rlkit("evaluate", str(run), "--episodes", str(given.episodes), "--seed", first, *measure, "--json")
    )
    with (run / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    curve = {
        row["env_steps"]: float(row["eval/episode_return"])
        for row in metrics
        if row.get("eval/episode_return")
    }
    kl = [
        statistics.mean(values)
        for row in metrics
        if (values := [float(v) for key, v in row.items() if "inferred_kl" in key and v])
    ]
    quarter = max(1, len(kl) // 4)
    keep(
        {"kind": "run", "name": name, "seed": seed, "env_steps": int(float(metrics[-1]["env_steps"])),
         "wall_s": round(wall),
         "return": found["episode_return"]["mean"], "ci95": found["episode_return"]["ci95"],
         "agents": {agent: values["mean"] for agent, values in found["agents"].items()},
         "measures": {key: values["mean"] for key, values in (found.get("measures") or {}).items()},
         "curve": curve,
         "kl": [statistics.mean(kl[:quarter]), statistics.mean(kl[-quarter:])] if kl else None},
        given.rows,
    )  # fmt: skip


def versus(name: str, seeds: Sequence[int], out: Path) -> None:
    """Let trained runs meet, on the same seeds in every pairing, and keep a row per seed."""
    meeting = MEETINGS[name]
    for seed in seeds:
        if any((r["meeting"], r["seed"]) == (name, seed) for r in rows("versus")):
            continue
        pairings = {}
        for label, (a, b, apart) in meeting.pairings.items():
            other = seeds[(seeds.index(seed) + apart) % len(seeds)]
            if apart and other == seed:
                raise SystemExit(
                    f"versus {name} takes the opponents from another seed: give at least two --seeds"
                )
            runs = folder(out, a, seed), folder(out, b, other)
            if runs[0] is None or runs[1] is None:
                raise SystemExit(f"{out} has no {a}_{seed} or {b}_{other}: train it first")
            measures = [word for measure in meeting.measures for word in ("--measure", measure)]
            found = json.loads(
                rlkit("evaluate", str(runs[0]), "--versus", str(runs[1]), "--agents", meeting.agents, *measures,
                      "--episodes", str(GAMES), "--json")
            )["pairings"][0]  # fmt: skip
            values = {**found["measures"], **{f"return/{key}": v for key, v in found["agents"].items()}}
            pairings[label] = {key: [v["mean"], v["std"]] for key, v in values.items()}
        keep({"kind": "versus", "meeting": name, "seed": seed, "games": GAMES, "pairings": pairings})


def difference(
    found: Sequence[dict[str, Any]], first: str, second: str, key: str
) -> tuple[float, float, list[float]]:
    """Return the mean over seeds of first - second, half its 95 % interval over the pooled games, and each seed's.

    The interval holds for these trained runs: how much training seeds differ shows in the list.
    """
    each, variance = [], 0.0
    for row in found:
        (a, sa), (b, sb) = row["pairings"][first][key], row["pairings"][second][key]
        each.append(a - b)
        variance += (sa**2 + sb**2) / row["games"]
    return statistics.mean(each), 1.96 * variance**0.5 / len(found), each


def report() -> None:
    """Print a line per entry with every seed, and the meetings."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows("run"):
        by_name.setdefault(row["name"], []).append(row)
    for name in ENTRIES:
        found = sorted(by_name.get(name, []), key=lambda row: row["seed"])
        if not found:
            continue
        returns = [row["return"] for row in found]
        print(f"\n{name}: {found[0]['env_steps']} env steps, seeds {[row['seed'] for row in found]}")
        print(f"  team sum {_list(returns)}, median {statistics.median(returns):.1f}")
        at = [
            near
            for row in found
            if (near := [v for k, v in row["curve"].items() if 295e3 <= float(k) <= 306e3])
        ]
        if at:
            print(
                f"  team sum at 300k {_list([v[0] for v in at])}, median {statistics.median(v[0] for v in at):.1f}"
            )
        teams: dict[str, list[str]] = {}
        for agent in found[0]["agents"]:
            teams.setdefault(re.sub(r"_\d+$", "", agent), []).append(agent)
        for team, agents in teams.items():
            means = [float(np.mean([row["agents"][a] for a in agents])) for row in found]
            print(f"  per agent, {team:<11} {_list(means)}, median {statistics.median(means):.1f}")
        for key in found[0]["measures"]:
            values = [row["measures"][key] for row in found]
            print(f"  {key:<22} {_list(values, 2)}")
        if found[0]["kl"]:
            print(
                "  KL, first and last quarter  "
                + "; ".join(f"{a:.2f} -> {b:.2f}" for a, b in (row["kl"] for row in found))
            )
        print(f"  wall-clock {_list([row['wall_s'] for row in found], 0)} s")
    for name, meeting in MEETINGS.items():
        found = sorted((row for row in rows("versus") if row["meeting"] == name), key=lambda row: row["seed"])
        if not found:
            continue
        print(f"\n{name}, {meeting.agents}, seeds {[row['seed'] for row in found]}, {GAMES} games each")
        for label in meeting.pairings:
            keys = found[0]["pairings"][label]
            print(
                f"  {label}  "
                + "  ".join(f"{k} {_list([r['pairings'][label][k][0] for r in found], 2)}" for k in keys)
            )
        first, second, key = meeting.compare
        mean, half, each = difference(found, first, second, key)
        print(f"  {key}, {first} minus {second}: {mean:+.3f} ± {half:.3f} (seeds {_list(each, 3)})")


def _list(values: Sequence[float], digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "versus", "report"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "maddpg_results")
    parser.add_argument("--steps", type=int, help="env steps of a run; default: the recipe's")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--rows", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = {"run": list(ENTRIES), "versus": list(MEETINGS), "report": []}[options.what]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if options.what == "report":
        report()
    for name in options.names:
        if options.what == "versus":
            versus(name, options.seeds, options.out)
            continue
        for seed in options.seeds:
            if not any((r["name"], r["seed"]) == (name, seed) for r in rows("run", options.rows)):
                train(name, seed, options)


if __name__ == "__main__":
    main()
