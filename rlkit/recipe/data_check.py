"""The key `data`: recorded episodes for the algorithms that learn from them, and what goes with those algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as File
from typing import Any

from rlkit import envs, registry
from rlkit.errors import UsageError
from rlkit.recipe.env_check import action_of, agents_of
from rlkit.recipe.problems import Path, Report
from rlkit.recipe.signatures import Config, table

OFFLINE = ("BC", "MARWIL", "CQL", "IQL")
BOX_ONLY = ("CQL", "IQL")
MINARI = "minari/"
# Arguments of RLlib's methods that recorded episodes leave something to do.
LEFT = {"offline_data": {"dataset_num_iters_per_learner"}, "env_runners": set[str]()}
NO_BUFFER = (
    "replay_buffer_config",
    "n_step",
    "training_intensity",
    "num_steps_sampled_before_learning_starts",
)
# Arguments of `training` that RLlib (2.60) accepts for these algorithms, and why they are refused.
_ONE_STEP = "is for recurrent models, which offline algorithms do not take"
_NO_VALUES = "is for a value function, and BC learns none"
_LOG_STD = "makes the loss ask for a log_std that no action distribution has, and the first update fails"
_LAGRANGE = "is read by nothing: the loss has no Lagrangian"
_AVERAGE = ("moving_average_sqd_adv_norm_start", "moving_average_sqd_adv_norm_update_rate")
UNUSED: dict[str, dict[str, str]] = {
    "BC": {
        **dict.fromkeys(("vf_coeff", *_AVERAGE), _NO_VALUES),
        "bc_logstd_coeff": _LOG_STD,
        "burnin_len": _ONE_STEP,
    },
    "MARWIL": {"bc_logstd_coeff": _LOG_STD, "burnin_len": _ONE_STEP},
    "CQL": dict.fromkeys(("lagrangian", "lagrangian_thresh"), _LAGRANGE),
    "IQL": {
        **dict.fromkeys(
            ("bc_logstd_coeff", "vf_coeff", *_AVERAGE), "is MARWIL's, and nothing of IQL reads it"
        ),
        "burnin_len": _ONE_STEP,
    },
}
POSTPROCESSOR = "TrajectoryPostprocessor"  # of rlkit.callbacks, whose import brings RLlib
POSTPROCESSORS = (
    "HindsightRelabel",
    "MergeAgentObservations",
    "MonteCarloReturns",
    "RewardScale",
    "RewardShaping",
)


def locate(data: dict[str, Any], report: Report) -> None:
    """Make the path in `data` absolute: looked for in the working folder, then beside the recipe."""
    given = data.get("data")
    if not isinstance(given, str) or not given or given.startswith(MINARI):
        return
    beside = File(report.file).parent / given
    found = next((path for path in (File(given), beside) if path.exists()), None)
    if found is None:
        places = " nor ".join(dict.fromkeys(str(path.resolve()) for path in (File(given), beside)))
        fix = "record episodes with `rlkit evaluate CHECKPOINT --record FILE.npz`, or write minari/<id>"
        report.add(("data",), f"there is no {places}", fix, got=given)
        return
    data["data"] = str(found.resolve())


def check_data(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report data without an algorithm that reads it, the reverse, and what neither plays nor is played."""
    if not config.known:
        return
    name = config.algorithm
    if name not in OFFLINE:
        _check_online(data, name, report)
        return
    if "data" not in data and not report.has(("data",)):
        fix = "write data: FILE.npz, from `rlkit evaluate CHECKPOINT --record FILE.npz`, or data: minari/<id>"
        report.add(("algorithm",), f"{name} learns from recorded episodes, and the recipe names none", fix)
    if name in BOX_ONLY and action_of(data.get("env", ""), data.get("env_config", {})) not in ("Box", None):
        message = f"{name} needs continuous actions (RLlib 2.60), {data['env']} has discrete ones"
        report.add(("algorithm",), message, "use BC or MARWIL")
    if agents_of(data.get("env", ""), data.get("env_config", {})) is not None:
        message = f"{data['env']} has several agents, {name} learns from the episodes of one"
        report.add(("env",), message, "choose an environment of one agent")
    if data.get("evaluation") is None and not report.has(("evaluation",)):
        message = f"{name} plays no episodes; without evaluation nothing says how good it is"
        report.add(("algorithm",), message, "add evaluation: {every: 10, episodes: 20}")
    for section in ("exploration", "curriculum"):
        if data.get(section):
            report.add((section,), f"{name} plays no episodes to use it in", "remove the section", key=True)
    for index, entry in enumerate(data.get("callbacks", ())):
        if _postprocesses(entry.get("name")):
            message = f"{entry['name']} edits sampled episodes, and {name} samples none"
            fix = "remove it; change rewards in a wrapper of the environment, and record there"
            report.add(("callbacks", index, "name"), message, fix)
    _check_arguments(data, config, report)
    _check_metrics(data, name, report)
    if "data" in data:
        _check_file(data, report)


def _check_online(data: Mapping[str, Any], name: str, report: Report) -> None:
    if data.get("data") is not None:
        fix = f"remove it, or use one of {', '.join(OFFLINE)}"
        report.add(("data",), f"{name} plays in the environment and reads no data", fix, key=True)
    for argument in data.get("config", {}).get("offline_data", {}):
        if not argument.startswith("output"):
            path: Path = ("config", "offline_data", argument)
            message = f"{name} plays in the environment; {argument} has no effect"
            report.add(path, message, f"remove it, or use one of {', '.join(OFFLINE)}", key=True)


def _postprocesses(callback: Any) -> bool:
    """Whether a registered callback edits the episodes that training runners sample."""
    entry = registry.TABLES["callbacks"].get(callback)
    bases = [] if entry is None else getattr(entry.target, "__mro__", [])
    return callback in POSTPROCESSORS or POSTPROCESSOR in [base.__name__ for base in bases]


def _check_arguments(data: Mapping[str, Any], config: Config, report: Report) -> None:
    given, name = data.get("config", {}), config.algorithm
    for method, left in LEFT.items():
        for argument in given.get(method, {}):
            if argument not in left:
                path: Path = ("config", method, argument)
                what = (
                    "plays no episodes" if method == "env_runners" else "reads what `data:` names into memory"
                )
                fix = "write data: PATH" if argument == "input_" else "remove it"
                report.add(path, f"{name} {what}; {argument} has no effect", fix, key=True)
    for argument in NO_BUFFER:
        if argument in given.get("training", {}):
            path = ("config", "training", argument)
            report.add(
                path,
                f"{name} draws single steps from the data; {argument} has no effect",
                "remove it",
                key=True,
            )
    for argument, reason in UNUSED[name].items():
        default = config.default("training", argument)
        if given.get("training", {}).get(argument, default) != default:
            report.add(("config", "training", argument), f"{argument} {reason}", "remove it", key=True)
    if (sampled := given.get("reporting", {}).get("min_sample_timesteps_per_iteration")) not in (None, 0):
        message = f"{name} samples nothing, and an iteration would never end"
        fix = "remove it; offline_data.dataset_num_iters_per_learner says how many updates an iteration has"
        report.add(("config", "reporting", "min_sample_timesteps_per_iteration"), message, fix, got=sampled)
    learners = given.get("learners", {}).get("num_learners")
    if learners:
        message = f"{name} learns in the trial's own process"
        report.add(("config", "learners", "num_learners"), message, "write 0", got=learners)


def _check_metrics(data: Mapping[str, Any], name: str, report: Report) -> None:
    """Report returns of training episodes, which there are none of."""
    places: list[tuple[Path, Any]] = [(("stop", metric), metric) for metric in data.get("stop", {})]
    places += [
        (("checkpoint", "best"), data.get("checkpoint", {}).get("best")),
        (("tune", "metric"), data.get("tune", {}).get("metric")),
    ]
    for path, metric in places:
        if metric in ("episode_return", "episode_length"):
            message = f"{name} plays no training episodes and has no {metric}"
            report.add(path, message, f"write eval/{metric}", key=path[0] == "stop")


def _check_file(data: Mapping[str, Any], report: Report) -> None:
    """Report a file that is none of recorded episodes, and shapes that the environment does not have."""
    from rlkit.replay import dataset, minari

    source, name = data["data"], data.get("env", "")
    if source.startswith(MINARI) or minari.is_folder(source):
        if not minari.installed():
            report.add(("data",), "reading Minari data sets needs minari and h5py", minari.PIP, got=source)
        return
    try:
        headers = dataset.read_headers(source)
    except UsageError as error:
        report.add(
            ("data",), str(error).removeprefix(f"data {source} ").removeprefix("is "), dataset.FIX, got=source
        )
        return
    if name not in table()["gymnasium"] or report.has(("env",)) or report.has(("env_config",)):
        return  # another environment is made, and compared, before Ray starts
    try:
        env = envs.make_env(name, data.get("env_config", {}))
    except Exception:  # said when it is made in earnest, with the reason
        return
    try:
        dataset.check_shapes(source, headers, name, env.observation_space, env.action_space)
    except UsageError as error:
        report.add(("data",), str(error).removeprefix("data "), f"use data of {name}, or the data's env")
    finally:
        env.close()
