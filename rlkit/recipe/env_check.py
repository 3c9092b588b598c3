"""The environment's name, its arguments, its agents, and who plays them."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Mapping
from typing import Any

from rlkit import envs, registry
from rlkit.envs import rules as env_rules
from rlkit.envs.names import EXTRAS, MAKE_OPTIONS
from rlkit.errors import UsageError, did_you_mean
from rlkit.files import FOLDERS, NO_FOLDER
from rlkit.recipe.options import check_values
from rlkit.recipe.problems import Path, Report
from rlkit.recipe.signatures import Config, options, table
from rlkit.recipe.spaces import variants

# Arguments that change neither the agents nor their names.
SAME_AGENTS = {
    "max_cycles", "render_mode", "continuous_actions", "dynamic_rescaling", "local_ratio", "benchmark_data", "api",
    "mask_from_info", "terminate_on_success", "curriculum",
}  # fmt: skip
# What rlkit's PettingZoo adapter and gymnasium.make take beside the environment's own arguments.
PETTINGZOO = {"api": {"type": "Literal['parallel', 'aec']"}, "mask_from_info": {"type": "bool"}}
GYMNASIUM = {"max_episode_steps": {"type": "float | None", "ge": 1}}
CENTRALISED = ("MADDPG", "MATD3", "PPO")


def _found(name: str) -> Mapping[str, Any]:
    """Return what the table says of an environment of Gymnasium or mpe2; nothing for a registered one."""
    if name in registry.TABLES["envs"]:
        return {}
    found: Mapping[str, Any] = table()["gymnasium"].get(name) or table()["mpe2"].get(name) or {}
    return found


def check_env(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report an unknown environment, arguments it does not take, policies it has no agents for."""
    name = data.get("env", "")
    if name and _known(name, report):
        _check_arguments(name, data.get("env_config", {}), report)
        if data.get("policies") is not None:
            _check_policies(name, data, config, report)


def _known(name: str, report: Report) -> bool:
    fix = "see `rlkit list envs`"
    if name in registry.TABLES["envs"]:
        return True
    if name in table()["gymnasium"]:
        package = table()["gymnasium"][name].get("needs")
        if package and importlib.util.find_spec(package) is None:
            message = f"{name} needs the package {package}, which is not installed"
            own = package.lower() in EXTRAS  # Gymnasium's own extra box2d needs swig
            extra = f"{'rlkit-rllib' if own else 'gymnasium'}[{package.lower()}]"
            report.add(("env",), message, f"pip install '{extra}'")
        return True
    if len(name) > 200 or not name.isprintable():
        report.add(("env",), "this is not the name of an environment", fix, got=name)
        return False
    try:
        envs.check_name(name)
    except UsageError as error:
        near = "" if "did you mean" in str(error) else did_you_mean(name, registry.TABLES["envs"])
        message = f"{error}{near}".removeprefix(f"got the environment {name!r}: ")
        report.add(("env",), message, f"{fix}, or register your own with --import")
        return False
    except Exception as error:  # Gymnasium's own check of a malformed id
        report.add(("env",), f"there is no such environment ({error})", fix, got=name)
        return False
    return True


def _check_arguments(name: str, given: Mapping[str, Any], report: Report) -> None:
    if name in registry.TABLES["envs"]:
        found = options("envs", name)
        rows = found["arguments"] if found and not found["open"] else None
    else:
        rows = _found(name).get("arguments")
        if rows is not None:
            rows = {**rows, **(PETTINGZOO if name in table()["mpe2"] else GYMNASIUM)}
    if name not in registry.TABLES["envs"] and not envs.is_multi_agent(name):
        for key in MAKE_OPTIONS:
            if key in given:
                message = f"an option of gymnasium.make, not of {name}"
                report.add(("env_config", key), message, "remove it", key=True)
        given = {key: value for key, value in given.items() if key not in MAKE_OPTIONS}
    if rows is not None:
        check_values(given, rows, ("env_config",), report, owner=name, noun="argument")
    rules = env_rules.rules_of(name)
    if rules is not None and not report.has(("env_config",)):
        for variant in variants(given):
            for path, message, fix in rules.faults(variant):
                report.add(("env_config", *path), message, fix)


def action_of(name: str, env_config: Mapping[str, Any]) -> str | None:
    """Return the kind of action space (`Discrete`, `Box`); None where only the environment can tell."""
    found = _found(name)
    continuous = env_config.get("continuous_actions", False)
    if "agents" in found and continuous is not False:
        return "Box" if continuous is True else None
    return found.get("action")


def agents_of(name: str, env_config: Mapping[str, Any]) -> list[str] | None:
    """Return the agents of an environment, or None where they are not known without making it."""
    return None if set(env_config) - SAME_AGENTS else _found(name).get("agents")


def is_single_agent(name: str) -> bool:
    """True if the environment is known to have one agent."""
    return name not in registry.TABLES["envs"] and not envs.is_multi_agent(name)


def _check_policies(name: str, data: Mapping[str, Any], config: Config, report: Report) -> None:
    policies = data["policies"]
    if is_single_agent(name):
        report.add(("policies",), f"{name} has one agent", "remove the section", key=True)
        return
    if policies == "shared":
        return
    for policy, body in policies.items():
        if NO_FOLDER.search(policy):
            message = f"cannot name a folder of checkpoints ({FOLDERS})"
            report.add(("policies", policy), message, "rename it", got=policy, key=True)
        if body.get("critic") is not None and config.known and config.algorithm not in CENTRALISED:
            place, fix = ("policies", policy, "critic"), f"remove it, or use {' or '.join(CENTRALISED)}"
            message = f"{config.algorithm} has no centralised critic"
            report.add(place, message, fix, got=body["critic"], key=True)
    if policies and not any(body.get("train", True) for body in policies.values()):
        message = "every policy has train: false; nothing is left to learn"
        report.add(("policies",), message, "set train: true for one", key=True)
    agents = agents_of(name, data.get("env_config", {}))
    if agents is not None:
        _check_globs(name, agents, policies, report)
    overrides = data.get("config", {}).get("rl_module", {}).get("algorithm_config_overrides_per_module") or {}
    for module in overrides if isinstance(overrides, Mapping) else ():
        if module not in policies:
            path: Path = ("config", "rl_module", "algorithm_config_overrides_per_module", module)
            message = f"there is no policy {module!r}{did_you_mean(module, policies)}"
            report.add(path, message, f"use one of {', '.join(policies)}", key=True)


def _check_globs(name: str, agents: list[str], policies: Mapping[str, Any], report: Report) -> None:
    """Report globs that match no agent, or none that earlier policies leave, and agents that nobody plays."""
    played: set[str] = set()
    for policy, body in policies.items():
        for index, glob in enumerate(body.get("agents", ())):
            path: Path = ("policies", policy, "agents", index)
            matched = {agent for agent in agents if fnmatch.fnmatchcase(agent, glob)}
            if not matched:
                message = f"no agent of {name} matches{did_you_mean(glob, agents)}"
                report.add(path, message, f"its agents are {', '.join(agents)}", got=glob)
            elif matched <= played:
                fix = "the first matching policy plays an agent; narrow the earlier globs, or remove this one"
                report.add(path, "earlier policies play all these agents already", fix, got=glob)
            played |= matched
    if played and not report.has(("policies",)):
        for agent in sorted(set(agents) - played):
            fix = f"add it to the agents of one: [{agent}]"
            report.add(("policies",), f"no policy plays {agent!r}", fix, key=True)
