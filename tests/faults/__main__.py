"""`make faults`: try every fault, write each try down, and make docs/reliability.md of what was written down.

    python tests/faults                       every row; hours
    python tests/faults --rows F3,F6 --each 5
    python tests/faults --rows ''             only the page, from the tries that lie there

A try is one line of tests/faults/tries.jsonl: row, what, tries, held, lost, seconds, problems. The last line of a row
and `what` counts, except for kills, signals, full disks and soaks, of which each does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import corruption
import disks
import kills
import malformed
import signals

HERE = Path(__file__).parent
LOG = HERE / "tries.jsonl"
PAGE = HERE.parents[1] / "docs" / "reliability.md"
ALGORITHMS = ("DQN", "SAC", "PPO", "MADDPG", "DRON")
SEEDED = time.time_ns() % 2**32
FULL = "training on a disk without room for more"
Try = dict[str, Any]

ROWS = {
    "F1": "`kill -9` of one of two env runners",
    "F2": "`kill -9` of all env runners",
    "F3": "`kill -9` of the driver, the trial, the learner, the raylet, the control store (GCS); then `--resume`",
    "F4": "save, restore, compare",
    "F5": "^C, SIGTERM, SIGHUP, twice, during the start; `kill -9` and what is left",
    "F6": "a damaged checkpoint: every file, folder, the manifest",
    "F7": "a full disk, a folder that cannot be written",
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
}
KILLS = {"F1": ("runner",), "F2": ("runners",), "F3": ("driver", "trial", "learner", "raylet", "gcs")}
TESTS = {
    "F4": [
        "tests/test_complete_state.py",
        "tests/test_state.py", "tests/test_replay.py", "tests/test_ppo.py", "tests/test_maddpg.py",
        "tests/test_exploration.py", "tests/test_exploration_intrinsic.py", "-k",
        "restore or resum or schedules or state",
    ],
    "F7": ["tests/test_faults.py", "-k", "disk or written"],
    "F8": ["tests/test_envs_contract.py"],
    "F9": ["tests/test_watchdog.py"],
    "F10": ["tests/test_runner_faults.py"],
    "F11": ["tests/test_seeds.py"],
    "F12": [
        "tests/test_ppo.py", "tests/test_offpolicy.py", "tests/test_maddpg.py", "tests/test_replay.py", "-k",
        "nan or infinite",
    ],
    "F13": ["tests/test_envs_pettingzoo.py", "tests/test_cases.py"],
    "F15": ["tests/test_recipe_corpus.py", "tests/test_recipe_fuzz.py", "tests/test_recipe_malformed.py"],
    "F16": ["tests/test_configs.py"],
    "F17": ["tests/test_seal.py"],
    "F18": ["tests/test_manifest.py", "-k", "version or format"],
    "F19": ["tests/test_callbacks.py", "tests/test_launch.py", "-k", "hook or callback_that_raises"],
    "F21": ["tests/test_recipe_malformed.py", "tests/test_recipe_corpus.py", "-k", "max_failures"],
}  # fmt: skip


def tests(row: str) -> Iterator[Try]:
    """The tests that hold a row; each is a try."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *TESTS[row],
        ]
        subprocess.run(command, cwd=HERE.parents[1], stdout=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [c.get("name", "") for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    what = " ".join(Path(word).name if word.startswith("tests/") else word for word in TESTS[row])
    yield {
        "row": row,
        "what": what,
        "tries": len(cases) - skipped,
        "held": len(cases) - skipped - len(bad),
        "problems": bad,
    }


def killed(
    rows: Sequence[str], each: int, algorithms: Sequence[str], wanted: Sequence[str], folder: Path
) -> Iterator[Try]:
    """`each` kills of each wanted victim of the rows, the algorithms in turn; a run is killed by all victims."""
    rng = random.Random(SEEDED)
    victims = [victim for row in rows for victim in KILLS[row] if victim in wanted]
    row_of = {victim: row for row, names in KILLS.items() for victim in names}
    for number in range(each):
        algorithm = algorithms[number % len(algorithms)]
        for found in kills.chain(algorithm, victims, folder / f"{algorithm}_{number}", rng):
            yield as_try(row_of.get(found.victim, "F5"), found)


def as_try(row: str, found: kills.Killed) -> Try:
    write = ", in a checkpoint write" if found.inside_write else ""
    return {
        "row": row, "what": f"{found.victim}, {found.algorithm}{write}", "tries": 1, "held": int(not found.problems),
        "lost": found.lost, "seconds": round(found.seconds, 1), "problems": found.problems,
    }  # fmt: skip


def signalled(each: int, folder: Path) -> Iterator[Try]:
    """Each case of `signals.CASES`."""
    for number in range(each):
        for name, case in signals.CASES.items():
            place = folder / f"{name}_{number}".replace(" ", "_")
            file = signals.recipe(place)
            seconds = 0.0
            try:
                ended = signals.send(
                    signals.start(file, place),
                    place,
                    case.numbers,
                    while_starting=case.starting,
                    late=case.late,
                )
                bad, seconds = signals.problems(case, ended), ended.seconds
            except Exception as error:  # a try that breaks is a try that did not hold
                bad = [f"{type(error).__name__}: {error}"]
            yield {
                "row": "F5", "what": name, "tries": 1, "held": int(not bad), "seconds": round(seconds, 1),
                "problems": bad,
            }  # fmt: skip


def filled(algorithms: Sequence[str]) -> Iterator[Try]:
    """A disk that fills at some moment, once for each algorithm and kind."""
    rng = random.Random(SEEDED)
    for algorithm in algorithms:
        for kind in disks.KINDS:
            began = time.monotonic()
            bad = disks.attempt(
                algorithm, kind, rng.choice([0, rng.random()]) * (1 if kind == "bytes" else 60)
            )
            yield {"row": "F7", "what": f"{FULL} {kind}, {algorithm}", "tries": 1, "held": int(not bad),
                   "seconds": round(time.monotonic() - began, 1), "problems": bad}  # fmt: skip


def trained(algorithm: str, folder: Path) -> Path:
    """A finished run of an algorithm with three checkpoints."""
    import rlkit

    recipe = {**kills.recipe(algorithm), "stop": {"iterations": 3}, "checkpoint": {"every": 1}}
    recipe["config"]["env_runners"]["num_env_runners"] = 0
    return rlkit.train(recipe, out=folder).path


def damaged(algorithm: str, folder: Path) -> Iterator[Try]:
    """The corruption matrix of one algorithm's checkpoint, and `--resume` past a damaged newest one."""
    from rlkit.runs import manifest

    run = trained(algorithm, folder / algorithm)
    newest = max(run.glob("trial_*/checkpoint_*"))
    count, bad = corruption.matrix(newest, folder, manifest.verify)
    yield {"row": "F6", "what": f"{algorithm}: refused before anything is unpickled", "tries": count,
           "held": count - len(bad), "problems": bad}  # fmt: skip
    found, bad = corruption.resume_past(newest)
    yield {"row": "F6", "what": f"{algorithm}: --resume falls back to the checkpoint before", "tries": 1,
           "held": int(not bad), "lost": found, "problems": bad}  # fmt: skip


def attacked(folder: Path, one_in: int) -> Iterator[Try]:
    run = trained("PPO", folder / "stranger")
    count, bad = malformed.try_all(run, folder / "malformed", lambda number: number % one_in == 0)
    yield {"row": "F17", "what": "run folders of strangers, commands over malformed files", "tries": count,
           "held": count - len(bad), "problems": bad}  # fmt: skip


def soaked(algorithm: str) -> Iterator[Try]:
    """A long training of small iterations; what grew with them."""
    command = [sys.executable, "benchmarks/soak.py", "--algorithms", algorithm]
    done = subprocess.run(command, cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"held": False}
    yield {"row": "F20", "what": algorithm, "tries": 1, "held": int(found["held"]), "measured": found,
           "problems": [] if found["held"] else [found]}  # fmt: skip


def soak_figures(group: Sequence[Try]) -> str:
    """The largest growth that a soak has seen, and the range of what an iteration at the end costs."""
    seen = [t["measured"] for t in group if t["held"]]
    most = {key: max(one[f"{key}_kb_per_iteration"] for one in seen) for key in ("driver", "trial", "logs")}
    pace = sorted({one["cpu_end_over_begin"] for one in seen if "cpu_end_over_begin" in one})
    text = (
        f"{max(one['iterations'] for one in seen)} iterations, kB per iteration, at most: driver {most['driver']}, "
        f"trial {most['trial']}, metrics and logs {most['logs']}"
    )
    if pace:
        ends = " to ".join(map(str, dict.fromkeys([pace[0], pace[-1]])))
        text += f"; CPU seconds of an iteration at the end / before: {ends}"
    return text


PROMISES = """
## What a checkpoint promises

Weights, targets, optimisers, schedules, replay (rows, priorities, its generator), the KL coefficient, temperatures,
normalisation numbers, curriculum, callbacks with state, counters, and the generators of torch, numpy and Python in
the trial's process come back bit for bit. Five updates after a restore equal those of the learner that was never
stopped: `pytest tests/test_complete_state.py`, for DQN with priorities, SAC, PPO with normalisation, recurrent PPO,
MATD3, MADDPG with ensembles, and DRON.

Not promised:

- an environment in mid-episode: after a restore episodes begin anew, with seeds that were not used before. What belongs
  to an episode goes with it (the state of a recurrent policy, the discounted sum of `normalize_rewards`);
- generators of remote env runners and learners: they are seeded by the env steps done, not restored;
- times and throughput.

A manifest took 5 ms of CPU for a checkpoint of 0.7 MB, 7 ms for one of 4 MB, 71 ms for one of 86 MB: 12, 18 and 51 %
of what saving took; verifying took 34, 40 and 56 % of restoring. That misses the aim of 5 %. What is left is SHA-256
itself, 70 of the 71 ms: it runs at 1.2 GB/s, and so does the writing of arrays
(`python benchmarks/checkpoint_cost.py`).

F20 counts as held by its memory alone (100 kB per iteration). That an iteration costs at most 5 % more CPU at the end
was so in five of the ten soaks: an hour of DQN (.987), 1,000 iterations of PPO (.967), 200 of DQN (.990), SAC (1.013)
and DRON (.966); not in 200 of PPO (1.113, 1.164), DQN (1.052) and MADDPG (1.063) and an hour of MADDPG (1.076, 1,280
iterations, while the other work on the two cores grew from four processes to nine). Other work ran on the cores in
all of them; the newer soaks divide by a fixed loop timed beside the training, which does not feel shared caches. In the
longest soak of each algorithm only MADDPG was slower at the end; its trial grew by 0.3 kB per iteration, so nothing
piles up in it.

Tune keeps the results it has handled; rlkit drops them
([decisions.md](decisions.md#the-driver-forgets-what-it-has-handled)), and all soaks but the hour of DQN are from
after that: the driver grows by 5 to 53 kB per iteration, before by 20 to 96. In the hour of MADDPG a process of its own
watched, and the driver grew by 41 kB per iteration all the same, 870 kB a minute. All ten soaks are
`python benchmarks/soak.py` by itself, which this program calls too.

A run of `make faults` is killed again and again: each resume is the next one's victim, and half of the kills wait until
a checkpoint is being written.
"""


def note(found: Try) -> None:
    """Add a try to the log."""
    with LOG.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(
        f"{found['row']:<4} {found['what']}: {found['held']} of {found['tries']}",
        *found["problems"][:3],
        sep="\n     ",
    )


def page() -> str:
    """docs/reliability.md from the log."""
    written = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    last = {(t["row"], t["what"]): n for n, t in enumerate(written)}
    counted = (*KILLS, "F5", "F20")
    tries = [
        t
        for n, t in enumerate(written)
        if t["row"] in counted or t["what"].startswith(FULL) or last[t["row"], t["what"]] == n
    ]
    lines = [
        "# Reliability", "",
        "What was tried, and what held. `make faults` runs the program in `tests/faults/`, which writes each try into",
        "`tests/faults/tries.jsonl` and this page from it. A short form of the rows is",
        "part of `make test` (`tests/test_faults.py` and the tests named below). Lost: iterations done again after",
        "`--resume`, at most. Seconds: until the next new row after a kill, or until the process ended after a signal;",
        "median and largest, on whatever machine ran the program; of a full disk the whole try. A checkpoint was",
        "written every 2 iterations.", "",
        "| row | fault | what was tried | tries | held | lost | seconds |", "|---|---|---|---:|---:|---:|---|",
    ]  # fmt: skip
    for row, fault in ROWS.items():
        own = [t for t in tries if t["row"] == row]
        if not own:
            lines.append(f"| {row} | {fault} | not run | 0 | – | – | – |")
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
            lines.append(
                f"| {row} | {fault} | {shown} | {count} | {held} | {'–' if lost is None else lost} | {times} |"
            )
    bad = [
        f"- {t['row']}, {t['what']}: {' '.join(str(p).split())[:300]}" for t in tries for p in t["problems"]
    ]
    lines += ["", PROMISES.strip()]
    if bad:
        lines += ["", "## What did not hold", "", *bad]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to run, such as F3,F6")
    parser.add_argument("--each", type=int, default=20, help="kills of each kind; signals a fifth of that")
    parser.add_argument("--victims", default=",".join(kills.VICTIMS), help="of F1 to F3, who is killed")
    parser.add_argument(
        "--one-in", type=int, default=1, help="of F17's thousands of commands, try one in N cases"
    )
    parser.add_argument(
        "--algorithms", default=",".join(ALGORITHMS), help="whose runs are killed and checkpoints damaged"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that trainings are ended
    os.environ.setdefault("RLKIT_KEY", str(Path(tempfile.mkdtemp(prefix="rlkit-faults-"), "signing.key")))
    with tempfile.TemporaryDirectory(prefix="rlkit-faults-") as name:
        folder = Path(name)
        rows = list(filter(None, given.rows.split(",")))
        algorithms = given.algorithms.split(",")
        kinds = [row for row in rows if row in KILLS]
        for row in rows:
            work: list[Callable[[], Iterator[Try]]] = []
            if kinds and row == kinds[0]:
                work.append(
                    lambda: killed(kinds, given.each, algorithms, given.victims.split(","), folder / "kills")
                )
            if row == "F5":
                work.append(lambda: signalled(max(1, given.each // 5), folder / "F5"))
            if row == "F7":
                work.append(lambda: filled(algorithms))
            if row == "F6":
                work += [lambda a=a: damaged(a, folder / "F6") for a in algorithms]  # type: ignore[misc]
            if row == "F20":
                work += [lambda a=a: soaked(a) for a in algorithms]  # type: ignore[misc]
            if row == "F17":
                work.append(lambda: attacked(folder / "F17", given.one_in))
            if row in TESTS:
                work.append(lambda row=row: tests(row))  # type: ignore[misc]
            for part in work:
                for found in part():
                    note(found)
                    PAGE.write_text(page())
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
