"""When a run stops, what it measures, and how Tune repeats it: `stop`, `evaluation`, `checkpoint`, `tune`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from rlkit import metrics
from rlkit.errors import did_you_mean
from rlkit.recipe.config_check import check_argument
from rlkit.recipe.env_check import agents_of
from rlkit.recipe.limits import section
from rlkit.recipe.parts_check import check_options
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import Config, table
from rlkit.recipe.spaces import SearchSpace, spaces_in
from rlkit.recipe.together import iteration_steps
from rlkit.recipe.words import OLD_METRICS

COUNTERS = ("env_steps", "agent_steps", "iteration", "iterations", "time_s")
# searcher -> the package it needs
SEARCHERS: dict[str, str | None] = {
    "random": None, "optuna": "optuna", "hyperopt": "hyperopt", "bayesopt": "bayes_opt", "ax": "ax",
    "bohb": "hpbandster",
    "nevergrad": "nevergrad", "hebo": "hebo", "zoopt": "zoopt",
}  # fmt: skip
SPACE_SECTIONS = ("config", "model", "env_config", "exploration")


def check_run(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report metrics that no result has, stops that come before an evaluation, and a `tune` that cannot work."""
    _check_stop(data, report)
    _check_evaluation(data, config, report)
    _check_checkpoint(data, report)
    _check_tune(data, config, report)


def check_spaces(data: Mapping[str, Any], report: Report) -> None:
    """Report search spaces where Tune does not look for them, and words that Tune would run."""
    for path, space in spaces_in(data):
        if path[0] in SPACE_SECTIONS or path[:3] == ("tune", "scheduler", "mutations"):
            continue
        fix = f"search spaces stand below {', '.join(SPACE_SECTIONS)}"
        if path == ("seed",):
            fix = "write seed: 0 and tune: {samples: 5}, which runs seeds 0 to 4"
        report.add(path, "a search space cannot stand here", got=space, fix=fix)
    _check_executed(data, (), report)


def _check_executed(value: Any, path: Path, report: Report) -> None:
    if isinstance(value, SearchSpace):
        for item in value.args:
            _check_executed(item, path, report)
    elif isinstance(value, Mapping):
        if set(value) == {"eval"}:
            report.add(
                (*path, "eval"),
                "Tune runs the text of a lone key 'eval' as Python",
                got=value["eval"],
                fix="rename the key",
                key=True,
            )
        elif "grid_search" in value:
            report.add(
                (*path, "grid_search"),
                "grid_search stands alone in its mapping",
                fix="write !grid [a, b]",
                key=True,
            )
        for key, item in value.items():
            _check_executed(item, (*path, key), report)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_executed(item, (*path, index), report)


def check_metric(
    name: Any, path: Path, data: Mapping[str, Any], report: Report, *, key: bool = False
) -> None:
    """Report a metric that no result has, or that needs a section the recipe lacks."""
    if not isinstance(name, str) or not name:
        return
    if name in OLD_METRICS:
        report.add(path, f"{name!r} is an old name", fix=f"write {OLD_METRICS[name]}", key=key)
        return
    if not metrics.known("iteration" if name == "iterations" else name):
        hint = did_you_mean(name, [*metrics.PATHS, "iterations"] if key else metrics.PATHS)
        known = [*metrics.PATHS, *(prefix + "…" for prefix in metrics.FAMILIES)]
        fix = instead(hint, known) + ("" if hint else ", or RLlib's full path")
        report.add(path, f"no result has the metric {name!r}{hint}", fix=fix, key=key)
        return
    if name.startswith(("eval/", "evaluation/")) and data.get("evaluation") is None:
        report.add(
            path,
            f"{name} needs a section `evaluation`",
            fix="add evaluation: {every: 10, episodes: 20}",
            key=key,
        )
    if name.startswith("curriculum/") and data.get("curriculum") is None:
        report.add(
            path,
            f"{name} needs a section `curriculum`",
            fix="add the section, or choose another metric",
            key=key,
        )
    agent = (
        name.removeprefix("eval/").partition("/")[2]
        if name.removeprefix("eval/").startswith("return/")
        else ""
    )
    env = data.get("env")
    agents = agents_of(env, section(data, "env_config")) if isinstance(env, str) else None
    if agent and agents is not None and agent not in agents:
        hint = did_you_mean(agent, agents)
        report.add(
            path, f"{env} has no agent {agent!r}{hint}", fix=f"its agents are {', '.join(agents)}", key=key
        )


def _check_stop(data: Mapping[str, Any], report: Report) -> None:
    stop = section(data, "stop")
    for name, value in stop.items():
        path = ("stop", name)
        check_metric(name, path, data, report, key=True)
        if name in COUNTERS and isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            report.add(path, f"{name} must be above 0", got=value, fix="write a positive number")
    if "iteration" in stop and "iterations" in stop:
        report.add(
            ("stop", "iterations"), "iteration and iterations are the same", fix="remove one", key=True
        )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _check_evaluation(data: Mapping[str, Any], config: Config, report: Report) -> None:
    if data.get("evaluation") is None:
        return
    every = _whole(section(data, "evaluation").get("every", 10))
    stop = section(data, "stop")
    limits: list[tuple[float, str]] = []
    for name in ("iteration", "iterations"):
        if isinstance(stop.get(name), int | float) and not isinstance(stop[name], bool):
            limits.append((stop[name], f"stop.{name} {stop[name]:g}"))
    steps, least = stop.get("env_steps"), iteration_steps(data, config)
    if isinstance(steps, int | float) and not isinstance(steps, bool) and least > 0:
        text = f"stop.env_steps {steps:g}, which is {-(-steps // least):g} iterations of at least {least:g} steps"
        limits.append((-(-steps // least), text))
    if every is None or not limits:
        return
    limit, text = min(limits)
    if every > limit > 0:
        given = "every" in section(data, "evaluation")
        report.add(
            ("evaluation", "every") if given else ("evaluation",),
            f"evaluation every {every} iterations never takes place before {text}",
            fix=f"write every: {max(1, int(limit) // 5)}",
        )


def _check_checkpoint(data: Mapping[str, Any], report: Report) -> None:
    checkpoint = section(data, "checkpoint")
    check_metric(checkpoint.get("best"), ("checkpoint", "best"), data, report)
    failures = _whole(section(data, "tune").get("max_failures", 0))
    if failures and checkpoint.get("every", 10) == 0:
        report.add(
            ("tune", "max_failures"),
            f"max_failures {failures} without checkpoints restarts a failed trial from scratch",
            got=failures,
            fix="write checkpoint: {every: 10}, or max_failures: 0",
        )


def _check_tune(data: Mapping[str, Any], config: Config, report: Report) -> None:
    tune = section(data, "tune")
    check_metric(tune.get("metric"), ("tune", "metric"), data, report)
    if isinstance(tune.get("scheduler"), Mapping):
        _check_scheduler(tune["scheduler"], data, config, report)
    if isinstance(tune.get("search"), Mapping):
        _check_search(tune["search"], data, report)
    for name in ("scheduler", "search"):
        if isinstance(tune.get(name), str):
            report.add(
                ("tune", name),
                "a mapping is expected",
                got=tune[name],
                fix=f"write {name}: {{type: {tune[name]}}}",
            )


def _type(section_name: str, values: Mapping[str, Any], known: Any, report: Report) -> str | None:
    path: Path = ("tune", section_name)
    if "type" not in values:
        report.add(path, "the key 'type' is missing", fix=f"add type: one of {', '.join(known)}", key=True)
        return None
    kind = values["type"]
    if not isinstance(kind, str) or kind not in known:
        hint = did_you_mean(kind, known) if isinstance(kind, str) else ""
        report.add((*path, "type"), f"unknown {section_name}{hint}", got=kind, fix=instead(hint, known))
        return None
    return kind


def _check_scheduler(
    scheduler: Mapping[str, Any], data: Mapping[str, Any], config: Config, report: Report
) -> None:
    schedulers: Mapping[str, Any] = table().get("schedulers", {})
    kind = _type("scheduler", scheduler, schedulers, report)
    if kind is None:
        return
    path: Path = ("tune", "scheduler")
    given = {key: value for key, value in scheduler.items() if key != "type"}
    for key in ("metric", "mode"):
        if key in given:
            report.add(
                (*path, key),
                f"the scheduler takes {key} from tune.{key}",
                fix=f"write tune: {{{key}: …}}",
                key=True,
            )
            del given[key]
    check_options(kind, schedulers[kind], given, path, report)
    if "time_attr" in given:
        check_metric(given["time_attr"], (*path, "time_attr"), data, report)
    if kind == "asha":
        _check_asha(given, data, report)
    if kind == "pbt":
        _check_pbt(given, data, config, report)


def _check_asha(given: Mapping[str, Any], data: Mapping[str, Any], report: Report) -> None:
    path: Path = ("tune", "scheduler")
    longest, grace = given.get("max_t", 100), given.get("grace_period", 1)
    if _whole(longest) is not None and _whole(grace) is not None and grace > longest:
        report.add(
            (*path, "grace_period"),
            f"grace_period {grace} is longer than max_t {longest}",
            fix=f"write at most {longest}",
        )
    iterations = section(data, "stop").get("iteration", section(data, "stop").get("iterations"))
    counted = given.get("time_attr", "iteration") in ("iteration", "training_iteration")
    if "max_t" not in given and counted and isinstance(iterations, int | float) and iterations > 100:
        report.add(
            path,
            f"asha ends every trial at max_t 100, before stop.iterations {iterations:g}",
            fix=f"write max_t: {int(iterations)}",
        )


def _check_pbt(given: Mapping[str, Any], data: Mapping[str, Any], config: Config, report: Report) -> None:
    path: Path = ("tune", "scheduler")
    mutations = given.get("mutations")
    if isinstance(mutations, Mapping) and not mutations:
        report.add(
            (*path, "mutations"),
            "pbt needs mutations",
            fix="write mutations: {config.training.lr: !loguniform [1e-5, 1e-3]}",
        )
    elif isinstance(mutations, Mapping):
        for name, value in mutations.items():
            _check_mutation(str(name), value, (*path, "mutations", name), config, report)
    if section(data, "checkpoint").get("every", 10) == 0:
        report.add(
            ("checkpoint", "every"), "pbt copies checkpoints between trials", got=0, fix="write every: 10"
        )
    samples = section(data, "tune").get("samples", 1)
    if samples == 1 and not any(space.kind == "grid" for _, space in spaces_in(data)):
        report.add(("tune",), "pbt needs a population, tune.samples is 1", fix="write samples: 4", key=True)


def _check_mutation(name: str, value: Any, path: Path, config: Config, report: Report) -> None:
    parts = name.split(".")
    if parts[0] not in SPACE_SECTIONS or len(parts) < 2:
        report.add(
            path,
            f"{name!r} is not a key below {', '.join(SPACE_SECTIONS)}",
            fix="write config.training.lr",
            key=True,
        )
    elif not isinstance(value, SearchSpace | list):
        report.add(
            path,
            "a mutation is a search space or a list of values",
            got=value,
            fix="write !loguniform [1e-5, 1e-3]",
        )
    elif parts[0] == "config" and len(parts) == 3 and config.known:
        for item in value.candidates() if isinstance(value, SearchSpace) else value:
            before = len(report.problems)
            check_argument(config, parts[1], parts[2], item, path, report)
            if len(report.problems) > before:
                return


def _check_search(search: Mapping[str, Any], data: Mapping[str, Any], report: Report) -> None:
    kind = _type("search", search, SEARCHERS, report)
    if kind is None:
        return
    path: Path = ("tune", "search")
    package = SEARCHERS[kind]
    if package is None:
        for key in search:
            if key != "type":
                report.add((*path, key), f"{kind} has no option {key!r}", fix="remove it", key=True)
        return
    if importlib.util.find_spec(package) is None:
        report.add(
            (*path, "type"),
            f"{kind} needs the package {package}, which is not installed",
            got=kind,
            fix=f"pip install {package}",
        )
    spaces = [(where, space) for where, space in spaces_in(data) if where[0] in SPACE_SECTIONS]
    for where, space in spaces:
        if space.kind == "grid":
            report.add(where, f"{kind} cannot take a grid", got=space, fix="write !choice instead of !grid")
    if not spaces:
        report.add(
            path,
            f"{kind} has nothing to search",
            fix="write a search space, such as lr: !loguniform [1e-5, 1e-3]",
            key=True,
        )
