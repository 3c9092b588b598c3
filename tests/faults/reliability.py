"""docs/reliability.md: what is written down of each try, and the page that is made of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOG = HERE / "tries.jsonl"
PAGE = HERE.parents[1] / "docs" / "reliability.md"
DISK = "training on a disk "
Try = dict[str, Any]

ROWS = {
    "F1": "`kill -9` of one of two env runners",
    "F2": "`kill -9` of all env runners",
    "F3": "`kill -9` of the driver, the trial, the learner, the raylet, the control store (GCS); then `--resume`",
    "F4": "save, restore, compare",
    "F5": "^C, SIGTERM, SIGHUP, twice, during the start; `kill -9` and what is left",
    "F6": "a damaged checkpoint: every file, folder, the manifest",
    "F7": "a full disk, one that becomes read-only, a folder that cannot be written",
    "F8": "an environment returns what it must not",
    "F9": "an environment blocks",
    "F10": "an environment always raises",
    "F11": "seeds",
    "F12": "NaN in reward, observation, loss, gradient",
    "F13": "agents that die early, join late, end together or differently",
    "F15": "malformed recipes",
    "F16": "every shipped recipe",
    "F17": "recipes, run folders and checkpoints that attack",
    "F18": "a checkpoint of another version",
    "F19": "a callback that raises",
    "F20": "a soak of 200 iterations and of 1,000; an hour; beside other work",
    "F21": "`max_failures` without checkpoints",
    "F22": "a cluster: a node lost, a node that joins late, the head started again",
    "F23": "a second process that reads while the first writes a checkpoint in every iteration",
    "F24": "one of several trials ends; the others are as they would be alone, bit for bit",
}
KILLS = {"F1": ("runner",), "F2": ("runners",), "F3": ("driver", "trial", "learner", "raylet", "gcs")}
# Rows of which each try counts; of the others only the newest of the same kind.
EACH = (*KILLS, "F5", "F20", "F22", "F23", "F24")


def soak_figures(group: Sequence[Try]) -> str:
    """The largest growth that a soak has seen, and the range of what an iteration at the end costs."""
    seen = [t["measured"] for t in group if t["held"]]
    most = {key: max(one[f"{key}_kb_per_iteration"] for one in seen) for key in ("driver", "trial", "logs")}
    files = max(max(one["driver_files_grown"], one["trial_files_grown"]) for one in seen)
    shared, folder = (max(one[key] for one in seen) for key in ("shm_grown", "folder_kb"))
    text = (
        f"{max(one['iterations'] for one in seen)} iterations, kB per iteration, at most: driver {most['driver']}, "
        f"trial {most['trial']}, metrics and logs {most['logs']}; more at the end: open files {files:.0f}, "
        f"shared memory {shared:.0f} kB; run folder {folder / 1000:.1f} MB"
    )
    for key, what in (("cpu", "CPU seconds"), ("time", "seconds")):
        pace = sorted({one[f"{key}_end_over_begin"] for one in seen if f"{key}_end_over_begin" in one})
        if pace:
            ends = " to ".join(map(str, dict.fromkeys([pace[0], pace[-1]])))
            text += f"; {what} of an iteration at the end / before: {ends}"
    return text


PROMISES = """
## What a checkpoint promises

Weights, targets, optimisers, schedules, replay (rows, priorities, its generator), the KL coefficient, temperatures,
normalisation numbers, curriculum, callbacks with state, counters, and the generators of torch, numpy and Python in
the trial's process come back bit for bit. Five updates after a restore equal those of the learner that was never
stopped: `pytest tests/test_complete_state.py`, for DQN with priorities, SAC, discrete SAC, PPO with normalisation,
recurrent PPO, MAPPO, MATD3, MADDPG with ensembles and with inferred policies, and DRON. Of RLlib's own classes in a
recipe, replay and KL coefficients come back too (`pytest tests/test_rllib_classes.py`).

Not promised:

- an environment in mid-episode: after a restore episodes begin anew, with seeds that were not used before. What belongs
  to an episode goes with it (the state of a recurrent policy, the discounted sum of `normalize_rewards`);
- generators of remote env runners and learners: they are seeded by the env steps done, not restored;
- what a scheduler of trials has seen (ASHA's rungs, the medians of others): Tune 2.60 saves none of it, so trials that
  go on are judged by what is reported from then on;
- times and throughput.

A manifest took 5 ms of CPU for a checkpoint of 0.7 MB, 7 ms for one of 4 MB, 71 ms for one of 86 MB: 12, 18 and 51 %
of what saving took; verifying took 34, 40 and 56 % of restoring. That misses the aim of 5 %. What is left is SHA-256
itself, 70 of the 71 ms: it runs at 1.2 GB/s, and so does the writing of arrays
(`python benchmarks/checkpoint_cost.py`).

F20 counts as held by its memory alone (100 kB per iteration). That an iteration costs at most 5 % more CPU at the end
was so in five of the ten soaks: an hour of DQN (.987), 1,000 iterations of PPO (.967), 200 of DQN (.990), SAC (1.013)
and DRON (.966); not in 200 of PPO (1.113, 1.164), DQN (1.052) and MADDPG (1.063) and an hour of MADDPG (1.076, 1,280
iterations, while the other work on the two cores grew from four processes to nine, and the seconds to 1.791). Other
work ran on the cores in all of them; the newer soaks divide by a fixed loop timed beside the training, which does not
feel shared caches. In the longest soak of each algorithm only MADDPG was slower at the end; its trial grew by 0.3 kB
per iteration, so nothing piles up in it.

Tune keeps the results it has handled; rlkit drops them
([decisions.md](decisions.md#the-driver-forgets-what-it-has-handled)), and all soaks but the hour of DQN are from
after that: the driver grows by 5 to 53 kB per iteration, before by 20 to 96. In the hour of MADDPG a process of its own
watched, and the driver grew by 41 kB per iteration all the same, 870 kB a minute. All ten soaks are
`python benchmarks/soak.py` by itself, which this program calls too.

A run of `make faults` is killed again and again: each resume is the next one's victim, and half of the kills wait until
a checkpoint is being written.

F15 has a fuzzer beside its tests (`python tests/faults/fuzz_recipes.py --minutes 10`). Of 20,027 recipes in ten minutes
(seed 20261201) one ended in a bug, a mutation of population based training that was a mapping
(`tests/recipes/bad/f_pbt_plain_mutations.yaml`); after the mend none of 15,309 (seed 20261202).

F22 runs several raylets on one machine. A node dies as in a power cut: all its processes at once, by SIGKILL; the next
one joins up to 10 s later, which the seconds include. Of the head the seconds are those of `--resume`. F7's disk
becomes read-only for every file that is opened from then on; the kernel takes it from no file that is open.
"""


def note(found: Try) -> None:
    """Add a try to the log, with the commit and the day of it."""
    found = {**found, "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    with LOG.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(
        f"{found['row']:<4} {found['what']}: {found['held']} of {found['tries']}",
        *found["problems"][:3],
        sep="\n     ",
    )


def commit() -> str:
    """The commit that is tried, with a `+` where rlkit differs from it; empty outside a repository."""
    git = ["git", "-C", str(HERE.parents[1])]
    try:
        name = subprocess.run(
            [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "rlkit"], capture_output=True
        ).returncode
    except OSError:
        return ""
    return name + "+" * (changed == 1)


def page() -> str:
    """docs/reliability.md from the log."""
    written = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    last = {(t["row"], t["what"]): n for n, t in enumerate(written)}
    tries = [
        t
        for n, t in enumerate(written)
        if t["row"] in EACH or t["what"].startswith(DISK) or last[t["row"], t["what"]] == n
    ]
    lines = [
        "# Reliability", "",
        "What was tried, and what held. `make faults` runs the program in `tests/faults/`, which writes each try into",
        "`tests/faults/tries.jsonl` and this page from it. A short form of the rows is",
        "part of `make test` (`tests/test_faults.py` and the tests named below). Lost: iterations done again after",
        "`--resume`, at most. Seconds: until the next new row after a kill, or until the process ended after a signal;",
        "median and largest, on whatever machine ran the program; of F7 and F24 the whole try. A checkpoint was",
        "written every 2 iterations. Newest: the day of the last try; – where none was noted.", "",
        "| row | fault | what was tried | tries | held | lost | seconds | newest |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]  # fmt: skip
    for row, fault in ROWS.items():
        own = [t for t in tries if t["row"] == row]
        if not own:
            lines.append(f"| {row} | {fault} | not run | 0 | – | – | – | – |")
        groups: dict[str, list[Try]] = {}
        for one in own:
            groups.setdefault(one["what"].split(",")[0] if row in (*KILLS, "F7") else one["what"], []).append(
                one
            )
        for what, group in groups.items():
            count, held = sum(t["tries"] for t in group), sum(t["held"] for t in group)
            lost = max((t["lost"] for t in group if "lost" in t), default=None)
            spent = sorted(t["seconds"] for t in group if "seconds" in t and t["held"])
            times = f"{spent[len(spent) // 2]:g}, {spent[-1]:g}" if spent else "–"
            shown = f"{what}: {soak_figures(group)}" if row == "F20" and held else what
            again = "–" if lost is None else lost
            newest = max((t["date"] for t in group if "date" in t), default="–")
            lines.append(f"| {row} | {fault} | {shown} | {count} | {held} | {again} | {times} | {newest} |")
    bad = [
        f"- {t['row']}, {t['what']}: {' '.join(str(p).split())[:300]}" for t in tries for p in t["problems"]
    ]
    lines += ["", PROMISES.strip()]
    if bad:
        lines += ["", "## What did not hold", "", *bad]
    return "\n".join(lines) + "\n"
