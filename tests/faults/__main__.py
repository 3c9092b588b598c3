"""`make faults`: try every fault, write each try down, and make docs/reliability.md of what was written down.

    python tests/faults                       every row; hours
    python tests/faults --rows F3,F6 --each 5
    python tests/faults --rows ''             only the page, from the tries that lie there

A try is one line of tests/faults/tries.jsonl: row, what, tries, held, lost, seconds, problems, commit, date. The last
line of a row and `what` counts, except for the rows in `reliability.EACH` and for disks, of which each does.
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

import clusters
import corruption
import disks
import kills
import malformed
import reader
import signals
import trials
from reliability import DISK, HERE, KILLS, PAGE, ROWS, Try, note, page

ALGORITHMS = ("DQN", "SAC", "PPO", "MADDPG", "DRON")
SEEDED = time.time_ns() % 2**32

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


def on_disks(algorithms: Sequence[str], kinds: Sequence[str]) -> Iterator[Try]:
    """A disk that fills or becomes read-only at some moment, once for each algorithm and kind."""
    if not disks.possible():
        print("F7   disks are not tried: `unshare --user --map-root-user --mount` is refused here")
        return
    rng = random.Random(SEEDED)
    for algorithm in algorithms:
        for kind in kinds:
            began = time.monotonic()
            room = rng.choice([0, rng.random()]) * (60 if kind == "files" else 1)
            yield as_row("F7", f"{DISK}{disks.KINDS[kind]}, {algorithm}", disks.attempt(algorithm, kind, room),
                         seconds=round(time.monotonic() - began, 1))  # fmt: skip


def in_clusters(each: int, kinds: Sequence[str], folder: Path) -> Iterator[Try]:
    """Each kind of `clusters.KINDS` so many times."""
    for number in range(each):
        for kind in kinds:
            found = clusters.attempt(kind, folder / f"{kind}_{number}")
            lost = {} if found.lost is None else {"lost": found.lost}
            yield as_row("F22", clusters.KINDS[kind], found.problems, seconds=found.seconds, **lost)


def beside(each: int, folder: Path) -> Iterator[Try]:
    """One of several trials ends, in each way of `trials.KINDS`."""
    alone = trials.Alone(folder / "alone")
    rng = random.Random(SEEDED)
    for number in range(each):
        for kind, what in trials.KINDS.items():
            began = time.monotonic()
            bad = trials.attempt(kind, folder / f"{kind}_{number}", alone, rng)
            yield as_row("F24", what, bad, seconds=round(time.monotonic() - began, 1))


def read_meanwhile(algorithms: Sequence[str], folder: Path) -> Iterator[Try]:
    """Each read is a try."""
    for algorithm in algorithms:
        count, bad = reader.attempt(algorithm, folder / algorithm)
        yield as_row("F23", f"{algorithm}: verified, listed, loaded", bad, tries=count)


def as_row(row: str, what: str, bad: list[str], tries: int = 1, **more: float) -> Try:
    return {
        "row": row,
        "what": what,
        "tries": tries,
        "held": tries - min(tries, len(bad)),
        **more,
        "problems": bad,
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to run, such as F3,F6")
    parser.add_argument(
        "--each", type=int, default=20, help="kills of each kind; signals, clusters and trials a fifth"
    )
    parser.add_argument("--victims", default=",".join(kills.VICTIMS), help="of F1 to F3, who is killed")
    parser.add_argument(
        "--kinds",
        default=",".join([*disks.KINDS, *clusters.KINDS]),
        help="of F7, which disks; of F22, what is lost",
    )
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
        wanted, few = given.kinds.split(","), max(1, given.each // 5)
        for row in rows:
            work: list[Callable[[], Iterator[Try]]] = []
            if kinds and row == kinds[0]:
                work.append(
                    lambda: killed(kinds, given.each, algorithms, given.victims.split(","), folder / "kills")
                )
            if row == "F5":
                work.append(lambda: signalled(few, folder / "F5"))
            if row == "F7":
                work.append(lambda: on_disks(algorithms, [kind for kind in disks.KINDS if kind in wanted]))
            if row == "F6":
                work += [lambda a=a: damaged(a, folder / "F6") for a in algorithms]  # type: ignore[misc]
            if row == "F20":
                work += [lambda a=a: soaked(a) for a in algorithms]  # type: ignore[misc]
            if row == "F17":
                work.append(lambda: attacked(folder / "F17", given.one_in))
            if row == "F22":
                work.append(
                    lambda: in_clusters(few, [k for k in clusters.KINDS if k in wanted], folder / "F22")
                )
            if row == "F23":
                work.append(lambda: read_meanwhile(algorithms, folder / "F23"))
            if row == "F24":
                work.append(lambda: beside(few, folder / "F24"))
            if row in TESTS:
                work.append(lambda row=row: tests(row))  # type: ignore[misc]
            for part in work:
                for found in part():
                    note(found)
                    PAGE.write_text(page())
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
