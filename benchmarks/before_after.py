"""What commands cost in another tree of rlkit and in this one: same work, in turns, CPU seconds of all their processes.

    git worktree add ../before REVISION
    python benchmarks/before_after.py ../before [--runs 5] [--only check,dqn,maddpg,launch,help] [--steps N]

`dqn` and `maddpg` are whole commands that train for a fixed number of env steps without evaluation, `launch` is
RLlib's own DQN under a recipe, `check` reads every shipped recipe that both trees have. Medians of the ratios of
neighbouring runs. Bar: no more than 3 % slower.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from processes import measure

ROOT = Path(__file__).parents[1]
BAR = 1.03
NEED_IMPORT = {"custom_model.yaml"}
QUIET = "checkpoint: {every: 1000}"
RECIPES = {
    "dqn": f"""\
name: dqn
algorithm: DQN
env: CartPole-v1
seed: 0
config:
  training: {{lr: 1.0e-12, train_batch_size: 64, training_intensity: 32}}
  env_runners: {{num_env_runners: 0, num_envs_per_env_runner: 8}}
  reporting: {{min_sample_timesteps_per_iteration: 5000, min_time_s_per_iteration: 0}}
stop: {{env_steps: 20000}}
{QUIET}
""",
    "maddpg": f"""\
name: maddpg
algorithm: MADDPG
env: pettingzoo/mpe2.simple_spread_v3
env_config: {{continuous_actions: true}}
seed: 0
config:
  training: {{train_batch_size: 512, num_steps_sampled_before_learning_starts: 1000}}
  env_runners: {{num_env_runners: 0, num_envs_per_env_runner: 8}}
  reporting: {{min_sample_timesteps_per_iteration: 2000, min_time_s_per_iteration: 0}}
stop: {{env_steps: 8000}}
{QUIET}
""",
    "launch": f"""\
name: launch
algorithm: rllib/DQN
env: CartPole-v1
seed: 0
config:
  training: {{lr: 1.0e-12, train_batch_size_per_learner: 32}}
  env_runners: {{num_env_runners: 0, num_envs_per_env_runner: 16, rollout_fragment_length: 4}}
  reporting: {{min_sample_timesteps_per_iteration: 1000, min_time_s_per_iteration: 0}}
stop: {{env_steps: 15000}}
{QUIET}
""",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path, help="the other tree")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="help,check,launch,dqn,maddpg")
    parser.add_argument("--steps", type=int, help="env steps of a training; default: the recipe's")
    given = parser.parse_args()
    if not (given.before / "rlkit" / "__init__.py").is_file():
        raise SystemExit(f"{given.before} is no tree of rlkit")
    trees = {"before": given.before.resolve(), "now": ROOT}
    shipped = [{path.name for path in (tree / "configs").glob("*.yaml")} for tree in trees.values()]
    both = sorted(set.intersection(*shipped) - NEED_IMPORT)
    late = False
    for what in given.only.split(","):
        ratios, costs = [], {name: [] for name in trees}
        for number in range(given.runs):
            order = list(trees)[:: 1 if number % 2 else -1]  # neither is always first
            for name in order:
                with tempfile.TemporaryDirectory() as folder:
                    costs[name].append(_cpu(what, trees[name], Path(folder), both, given.steps))
            ratios.append(costs["now"][-1] / costs["before"][-1])
        ratio = statistics.median(ratios)
        late |= ratio > BAR
        shown = " ".join(f"{r:.3f}" for r in sorted(ratios))
        print(
            f"{what:<7} {statistics.median(costs['before']):7.2f} -> {statistics.median(costs['now']):7.2f} s CPU, "
            f"x {ratio:.3f} ({shown}; bar: {BAR})",
            flush=True,
        )
    sys.exit(late)


def _cpu(what: str, tree: Path, folder: Path, both: list[str], steps: int | None) -> float:
    env = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "PYTHONPATH": str(tree)}
    if what == "help":
        words = ["--help"]
    elif what == "check":
        words = ["check", *(str(tree / "configs" / name) for name in both)]
    else:
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPES[what])
        words = ["train", str(recipe), "--out", str(folder), *([f"stop.env_steps={steps}"] if steps else [])]
    cost = measure([sys.executable, "-m", "rlkit", *words], env, cwd=str(folder))
    assert cost.code == 0, (what, tree, cost.out)
    return cost.cpu


if __name__ == "__main__":
    main()
