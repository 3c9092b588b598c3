"""When a run stops, what it measures, and how Tune repeats it: `stop`, `evaluation`, `checkpoint`, `tune`."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from rlkit import metrics
from rlkit.algos.rules import Settings
from rlkit.errors import did_you_mean
from rlkit.recipe.env_check import agents_of, is_single_agent
from rlkit.recipe.options import check_values
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import Config, table
from rlkit.recipe.spaces import RANGES, SearchSpace, candidates, spaces_in
from rlkit.recipe.words import OLD_METRICS

LAST_SEED = 2**31 - 1
COMPUTED = ("agent_steps", "steps_per_s")
COUNTERS = ("env_steps", "agent_steps", "iteration", "iterations", "time_s")
# searcher -> the package it needs, and the options that Tune's class takes (2.60; it drops others without a word)
SEARCHERS: dict[str, tuple[str | None, str]] = {
    "random": (None, ""),
    "optuna": ("optuna", "sampler study_name storage seed points_to_evaluate evaluated_rewards"),
    "hyperopt": ("hyperopt", "n_initial_points random_state_seed gamma points_to_evaluate"),
    "bayesopt": (
        "bayes_opt",
        "utility_kwargs random_state random_search_steps verbose patience skip_duplicate analysis "
        "repeat_float_precision points_to_evaluate",
    ),
    "ax": ("ax", "parameter_constraints outcome_constraints ax_kwargs points_to_evaluate"),
    "bohb": ("hpbandster", "bohb_config seed max_concurrent points_to_evaluate"),
    "nevergrad": ("nevergrad", "optimizer optimizer_kwargs points_to_evaluate"),
    "hebo": ("hebo", "evaluated_rewards random_state_seed max_concurrent points_to_evaluate"),
    "zoopt": ("zoopt", "algo budget dim_dict parallel_num points_to_evaluate"),
}
# sampler -> its class in Optuna
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
}
STUDY_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
WRITERS = ("BestCheckpoint", "EpisodeGif")  # callbacks with a `folder`
# tracker -> the package it needs
TRACKERS = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
FULL_PATHS = {metrics.FAMILIES[tidy]: tidy for tidy in ("return/", "loss/")}
SPACE_SECTIONS = ("config", "model", "env_config", "exploration")
NAMES = (("model", "name"), ("exploration", "type"))  # what they name decides which keys stand beside them
SCHEDULER: Path = ("tune", "scheduler")


def check_run(
    data: Mapping[str, Any], names: Any, config: Config, settings: Settings, report: Report
) -> None:
    """Report metrics that no result has, stops that come before an evaluation, and a `tune` that cannot work.

    `names` are the keys of `stop`, those with a wrong value included.
    """
    stop = data.get("stop", {})
    for name in names:
        check_metric(name, ("stop", name), data, report, key=True)
    for name, value in stop.items():
        if name in COUNTERS and value <= 0:
            report.add(("stop", name), f"{name} must be above 0", "write a positive number", got=value)
        elif name in ("iteration", "iterations") and value % 1:
            report.add(("stop", name), f"{name} are whole", f"write {math.ceil(value)}", got=value)
    if "iteration" in stop and "iterations" in stop:
        report.add(("stop", "iterations"), "iteration and iterations are the same", "remove one", key=True)
    check_metric(data.get("checkpoint", {}).get("best"), ("checkpoint", "best"), data, report)
    check_metric(data.get("tune", {}).get("metric"), ("tune", "metric"), data, report)
    fix = "compare trials by what they earn, such as episode_return"
    _check_computed(data.get("tune", {}).get("metric"), ("tune", "metric"), fix, report)
    for index, callback in enumerate(data.get("callbacks", ())):
        if isinstance(callback, Mapping) and callback.get("name") == "StopOnPlateau":
            check_metric(callback.get("metric"), ("callbacks", index, "metric"), data, report)
        if isinstance(callback, Mapping) and callback.get("name") in WRITERS:
            _check_folder(callback.get("folder"), ("callbacks", index, "folder"), report)
    if data.get("evaluation") is not None:
        _check_evaluation(data, config, settings, report)
    _check_learning_starts(stop, settings, report)
    _check_track(data.get("track", ()), report)
    _check_tune(data, report)
    _check_last_seed(data, report)


def _check_folder(given: Any, path: Path, report: Report) -> None:
    """Report a folder of a callback outside the trial's; a recipe may be a stranger's."""
    if isinstance(given, str) and (given.startswith(("/", "~")) or ".." in given.split("/")):
        fix = "leave it out: the files go below the trial's folder; scripts may name any"
        report.add(path, "a recipe writes below its run alone", fix, got=given)


def _check_last_seed(data: Mapping[str, Any], report: Report) -> None:
    """Report samples whose seeds run past the largest one."""
    seed, samples = data.get("seed"), data.get("tune", {}).get("samples", 1)
    if isinstance(seed, int) and isinstance(samples, int) and seed + samples - 1 > LAST_SEED:
        message = f"with {samples} samples the seeds run from {seed} to {seed + samples - 1}"
        report.add(("seed",), f"{message}, beyond {LAST_SEED}", f"write at most {LAST_SEED - samples + 1}")


def _check_track(track: Any, report: Report) -> None:
    """Report a tracker that is named twice, or whose package is not installed."""
    for number, name in enumerate(track):
        package = TRACKERS.get(name)
        if name in track[:number]:
            report.add(("track", number), f"{name} is named twice", "remove one", got=name)
        elif package is not None and importlib.util.find_spec(package) is None:
            message = f"{name} needs the package {package}, which is not installed"
            report.add(("track", number), message, f"pip install 'rlkit-rllib[{name}]'", got=name)


def check_spaces(data: Any, report: Report) -> None:
    """Report search spaces where Tune does not look for them, and words that Tune would run."""
    for path, space in spaces_in(data):
        inside = path[0] in SPACE_SECTIONS or path[:3] == (*SCHEDULER, "mutations")
        if inside and path not in NAMES:
            continue
        fix = f"search spaces stand below {', '.join(SPACE_SECTIONS)}"
        if path in NAMES:
            fix = f"write a recipe for each, or give {'.'.join(map(str, path))}=… on the command line"
        if path == ("seed",):
            fix = "write seed: 0 and tune: {samples: 5}, which runs seeds 0 to 4"
        report.add(path, "a search space cannot stand here", fix, got=space)
    waiting: list[tuple[Path, Any]] = [((), data)]
    for path, value in waiting:
        if isinstance(value, SearchSpace | list):
            items = value.args if isinstance(value, SearchSpace) else value
            waiting += [((*path, index), item) for index, item in enumerate(items)]
        elif isinstance(value, Mapping):
            waiting += [((*path, key), item) for key, item in value.items()]
            if set(value) == {"eval"}:
                message = "Tune runs the text of a lone key 'eval' as Python"
                report.add((*path, "eval"), message, "rename the key", got=value["eval"], key=True)
            elif "grid_search" in value:
                message = "grid_search stands alone in its mapping"
                report.add((*path, "grid_search"), message, "write !grid [a, b]", key=True)


def check_metric(name: str | None, path: Path, data: Any, report: Report, *, key: bool = False) -> None:
    """Report a metric that no result has, or that needs a section the recipe lacks."""
    if name is None:
        return
    if name in OLD_METRICS:
        report.add(path, f"{name!r} is an old name", f"write {OLD_METRICS[name]}", key=key)
        return
    if not metrics.known("iteration" if name == "iterations" else name):
        hint = did_you_mean(name, [*metrics.PATHS, "iterations"] if key else metrics.PATHS)
        known = [*metrics.PATHS, *(prefix + "…" for prefix in metrics.FAMILIES)]
        fix = instead(hint, known) + ("" if hint else ", or RLlib's full path")
        report.add(path, f"no result has the metric {name!r}{hint}", fix, key=key)
        return
    if name.startswith(("eval/", "evaluation/")) and data.get("evaluation") is None:
        fix = "add evaluation: {every: 10, episodes: 20}"
        report.add(path, f"{name} needs a section `evaluation`", fix, key=key)
    if name.startswith("curriculum/") and data.get("curriculum") is None:
        fix = "add the section, or choose another metric"
        report.add(path, f"{name} needs a section `curriculum`", fix, key=key)
    _check_owner(name.removeprefix("eval/").removeprefix("evaluation/"), path, data, report, key=key)


def _check_computed(name: Any, path: Path, fix: str, report: Report) -> None:
    """Report a metric that stands in no result of RLlib's as a number, where Tune looks for it."""
    if name in (*COMPUTED, metrics.PATHS["agent_steps"]):
        report.add(path, f"Tune cannot see {name}, which rlkit computes from several values", fix)


def _check_owner(name: str, path: Path, data: Mapping[str, Any], report: Report, *, key: bool) -> None:
    """Report `return/<agent>` and `loss/<module>/<name>` of agents and modules that the recipe does not have.

    RLlib's full paths mean the same.
    """
    for path_of_rllib, tidy in FULL_PATHS.items():
        if name.startswith(path_of_rllib):
            name = tidy + name.removeprefix(path_of_rllib)
    family, _, rest = name.partition("/")
    env, policies = data.get("env", ""), data.get("policies")
    if family not in ("return", "loss") or not env or report.has(("env",)) or report.has(("policies",)):
        return
    single = is_single_agent(env)
    agents = agents_of(env, data.get("env_config", {}))
    if family == "return":
        if single:
            message = f"{env} has one agent, whose return is episode_return"
            report.add(path, message, "write episode_return", key=key)
        elif agents is not None and rest not in agents:
            message = f"{env} has no agent {rest!r}{did_you_mean(rest, agents)}"
            report.add(path, message, f"its agents are {', '.join(agents)}", key=key)
        return
    module = rest.partition("/")[0]
    modules = ["shared"] if policies == "shared" else [*(policies or agents or ())]
    modules = ["default_policy"] if single else modules
    if modules and module not in (*modules, "__all_modules__"):
        message = f"there is no module {module!r}{did_you_mean(module, modules)}"
        report.add(path, message, f"write loss/{modules[0]}/…; modules are {', '.join(modules)}", key=key)


def _check_evaluation(data: Mapping[str, Any], config: Config, settings: Settings, report: Report) -> None:
    """Report an evaluation that the run ends before."""
    every, stop = data["evaluation"].get("every", 10), data.get("stop", {})
    names = {"iteration", "iterations"} & set(stop)
    limits = [(stop[name], f"stop.{name} {stop[name]:g}") for name in names]
    least = settings.least("reporting", "min_sample_timesteps_per_iteration")
    least = max([least, *(rules.steps(settings) for rules in config.rules if rules.steps)])
    if "env_steps" in stop and least > 0:
        count = -(-stop["env_steps"] // least)
        text = f"stop.env_steps {stop['env_steps']:g}, which is {counted(count)} of "
        text += f"at least {least:g} steps"
        limits.append((count, text))
    limit, text = min(limits, default=(0, ""))
    if every > limit > 0:
        path = ("evaluation", "every") if "every" in data["evaluation"] else ("evaluation",)
        message = f"evaluation every {counted(every)} never takes place before {text}"
        report.add(path, message, f"write every: {max(1, int(limit) // 5)}")


def counted(iterations: float) -> str:
    """Return `1 iteration`, `2 iterations`."""
    return f"{iterations:g} iteration{'' if iterations == 1 else 's'}"


def _check_learning_starts(stop: Mapping[str, float], settings: Settings, report: Report) -> None:
    """Report a run that stops before its first update."""
    argument = "num_steps_sampled_before_learning_starts"
    start, limit = settings.numbers("training", argument), stop.get("env_steps", 0)
    if start and len(stop) == 1 and min(start) >= limit > 0:
        given = settings.given("training", argument)
        path: Path = ("config", "training", argument) if given else ("stop", "env_steps")
        message = f"learning starts after {min(start):g} env steps, the run stops at {limit:g}"
        report.add(path, message, f"write a larger stop.env_steps, or a smaller {argument}")


def _check_tune(data: Mapping[str, Any], report: Report) -> None:
    tune = data.get("tune", {})
    failures, every = tune.get("max_failures", 0), data.get("checkpoint", {}).get("every", 10)
    if failures and every == 0:
        message = f"max_failures {failures} without checkpoints restarts a failed trial from scratch"
        fix = "write checkpoint: {every: 10}, or max_failures: 0"
        report.add(("tune", "max_failures"), message, fix, got=failures)
    for section, known in (("scheduler", table()["schedulers"]), ("search", SEARCHERS)):
        kind = (tune.get(section) or {}).get("type", "")
        if kind and kind not in known:
            hint = did_you_mean(kind, known)
            report.add(("tune", section, "type"), f"unknown {section}{hint}", instead(hint, known), got=kind)
        elif kind and section == "scheduler":
            _check_scheduler(tune["scheduler"], data, report)
        elif kind:
            _check_search(tune["search"], data, report)


def _check_scheduler(scheduler: Any, data: Mapping[str, Any], report: Report) -> None:
    kind = scheduler["type"]
    given = {key: value for key, value in scheduler.items() if key != "type"}
    for key in {"metric", "mode"} & set(given):
        message, fix = f"the scheduler takes {key} from tune.{key}", f"write tune: {{{key}: …}}"
        report.add((*SCHEDULER, key), message, fix, key=True)
        del given[key]
    found = table()["schedulers"][kind]
    check_values(given, found["arguments"], SCHEDULER, report, owner=kind, open_ended=found["open"])
    given = {key: value for key, value in given.items() if not report.has((*SCHEDULER, key))}
    check_metric(given.get("time_attr"), (*SCHEDULER, "time_attr"), data, report)
    _check_computed(given.get("time_attr"), (*SCHEDULER, "time_attr"), "write env_steps", report)
    if kind == "asha":
        _check_asha(given, data.get("stop", {}), report)
    if kind == "pbt":
        _check_pbt(given, data, report)


def _check_asha(given: Mapping[str, Any], stop: Mapping[str, float], report: Report) -> None:
    longest, grace = given.get("max_t", 100), given.get("grace_period", 1)
    if grace > longest:
        message = f"grace_period {grace} is longer than max_t {longest}"
        report.add((*SCHEDULER, "grace_period"), message, f"write at most {longest}")
    iterations = stop.get("iteration", stop.get("iterations", 0))
    counted = given.get("time_attr", "iteration") in ("iteration", "training_iteration")
    if "max_t" not in given and counted and iterations > 100:
        message = f"asha ends every trial at max_t 100, before stop.iterations {iterations:g}"
        report.add(SCHEDULER, message, f"write max_t: {int(iterations)}")


def _check_pbt(given: Mapping[str, Any], data: Mapping[str, Any], report: Report) -> None:
    for name, value in given.get("mutations", {}).items():
        _check_mutation(name, value, given["mutations"], data, report)
    if given.get("mutations") == {}:
        fix = "write mutations: {config.training.lr: !loguniform [1e-5, 1e-3]}"
        report.add((*SCHEDULER, "mutations"), "pbt needs mutations", fix)
    if data.get("checkpoint", {}).get("every", 10) == 0:
        report.add(("checkpoint", "every"), "pbt copies checkpoints between trials", "write every: 10", got=0)
    grids = any(space.kind == "grid" for _, space in spaces_in(data))
    if data["tune"].get("samples", 1) == 1 and not grids:
        report.add(("tune",), "pbt needs a population, tune.samples is 1", "write samples: 4", key=True)


def _check_mutation(
    name: str, value: Any, mutations: Mapping[str, Any], data: Mapping[str, Any], report: Report
) -> None:
    """Report a key that no mutation can have; `rlkit.recipe.check` looks at what its values do to the recipe."""
    path: Path = (*SCHEDULER, "mutations", name)
    head, *rest = name.split(".")
    above: Any = data
    parent = ""
    for part in (head, *rest[:-1]):
        parent = f"{parent}.{part}".lstrip(".")
        above = {} if above.get(part) is None else above[part]
        if not isinstance(above, Mapping):
            break
    if head not in SPACE_SECTIONS or not all(rest) or not rest or (head, *rest) in NAMES:
        message = f"{name!r} is not a key below {', '.join(SPACE_SECTIONS)} that can change"
        report.add(path, message, "write config.training.lr", key=True)
    elif not isinstance(value, SearchSpace | list):
        message = "a mutation is a search space or a list of values"
        report.add(path, message, "write !loguniform [1e-5, 1e-3]", got=value)
    elif other := next((key for key in mutations if key.startswith(f"{name}.")), None):
        report.add(path, f"{other} is a part of {name}", "remove one of the two", key=True)
    elif not isinstance(above, Mapping):
        report.add(path, f"{parent} is no mapping", f"let {parent} mutate as a whole", got=above, key=True)
    elif isinstance(value, SearchSpace) and value.kind in RANGES and not _numeric(above.get(rest[-1], 0)):
        message = f"a mutation of this kind multiplies {name}, which is no number"
        fix = f"give {name} a number, or write a list of values"
        report.add(path, message, fix, got=above[rest[-1]])


def _numeric(value: Any) -> bool:
    """True for a number, and for a search space of numbers alone."""
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in candidates(value))


def _check_search(search: Mapping[str, Any], data: Mapping[str, Any], report: Report) -> None:
    path, kind = ("tune", "search"), search["type"]
    package, words = SEARCHERS[kind]
    options = words.split()
    for key in sorted(set(search) - {"type", *options}):
        if key in ("metric", "mode"):
            message, fix = f"the search takes {key} from tune.{key}", f"write tune: {{{key}: …}}"
        else:
            hint = did_you_mean(key, options)
            message, fix = (
                f"{kind} has no option {key!r}{hint}",
                instead(hint, options) if options else "remove it",
            )
        report.add((*path, key), message, fix, key=True)
    if package is None:
        return
    if kind == "optuna":
        _check_optuna(search, report)
    if importlib.util.find_spec(package) is None:
        message = f"{kind} needs the package {package}, which is not installed"
        report.add((*path, "type"), message, f"pip install {package}", got=kind)
    spaces = [(where, space) for where, space in spaces_in(data) if where[0] in SPACE_SECTIONS]
    for where, space in spaces:
        if space.kind == "grid":
            report.add(where, f"{kind} cannot take a grid", "write !choice instead of !grid", got=space)
        elif any(isinstance(part, int) for part in where):
            message = f"{kind} cannot search one item of a list"
            report.add(where, message, "write the whole list as !choice [[…], […]]", got=space)
        elif any("/" in str(part) for part in where):
            report.add(where, f"{kind} cannot search a key with a '/'", "rename the key", got=space)
    if not spaces:
        fix = "write a search space, such as lr: !loguniform [1e-5, 1e-3]"
        report.add(path, f"{kind} has nothing to search", fix, key=True)


def _check_optuna(search: Mapping[str, Any], report: Report) -> None:
    sampler, storage, path = search.get("sampler", "tpe"), search.get("storage"), ("tune", "search")
    if str(sampler).lower() not in SAMPLERS:
        hint = did_you_mean(str(sampler), SAMPLERS)
        report.add((*path, "sampler"), f"unknown sampler{hint}", instead(hint, SAMPLERS), got=sampler)
    elif str(sampler).lower() == "cmaes" and storage is not None:
        message = "cmaes keeps pickles in its storage, and a recipe may come with one"
        report.add((*path, "storage"), message, "leave it out, or write sampler: tpe", got=storage)
    if storage is not None:
        file = FilePath(str(storage))
        if "://" in str(storage) or file.is_dir() or not file.absolute().parent.is_dir():
            fix = "name a file in a folder that exists, such as study.log"
            report.add((*path, "storage"), "no file of a study, nor a place for one", fix, got=storage)
        elif file.suffix != ".log":
            # a stranger's recipe must not add lines to what a shell or an editor reads
            report.add((*path, "storage"), "a study's file ends in .log", "write study.log", got=storage)
    seed = search.get("seed")
    if seed is not None and not (type(seed) is int and 0 <= seed <= LAST_SEED):
        fix = "leave it out: it follows from the recipe's seed"
        report.add((*path, "seed"), f"a whole number from 0 to {LAST_SEED} is expected", fix, got=seed)
    study = search.get("study_name")
    if study is not None and not (isinstance(study, str) and STUDY_NAME.fullmatch(study)):
        message, fix = "a study's name is letters, digits, '.', '_' and '-'", "write study_name: my_study"
        report.add((*path, "study_name"), message, fix, got=study)
