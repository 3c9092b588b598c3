"""The environment's name, its arguments, its agents, and whether the algorithm can act in it."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Mapping
from typing import Any

from rlkit import envs, registry
from rlkit.errors import UsageError, did_you_mean
from rlkit.recipe.config_check import check_value
from rlkit.recipe.limits import section
from rlkit.recipe.problems import Report, instead
from rlkit.recipe.signatures import Config, options, table
from rlkit.recipe.tree import unreadable

# Arguments that change neither the agents nor their names.
SAME_AGENTS = {
    "max_cycles", "render_mode", "continuous_actions", "dynamic_rescaling", "local_ratio", "benchmark_data", "api",
    "mask_from_info", "terminate_on_success", "curriculum",
}  # fmt: skip
# What rlkit's PettingZoo adapter and gymnasium.make take beside the environment's own arguments.
ADAPTER = {
    "pettingzoo": {"api": "'parallel' | 'aec'", "mask_from_info": "bool"},
    "gymnasium": {"max_episode_steps": "int | None", "render_mode": "str | None"},
}
CENTRALISED = ("MADDPG", "MATD3")


def check_env(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report an unknown environment, arguments it does not take, policies it has no agents for."""
    name = data.get("env")
    if not isinstance(name, str) or not name:
        return
    if not _known(name, report):
        return
    _check_arguments(name, data, report)
    _check_action_space(name, data, config, report)
    _check_policies(name, data, config, report)


def _known(name: str, report: Report) -> bool:
    if name in registry.TABLES["envs"]:
        return True
    if name in table().get("gymnasium", {}):
        package = table()["gymnasium"][name].get("needs")
        if package and importlib.util.find_spec(package) is None:
            fix = f"pip install 'gymnasium[{package.lower()}]'"
            report.add(("env",), f"{name} needs the package {package}, which is not installed", fix=fix)
        return True
    if len(name) > 200 or not name.isprintable():
        report.add(("env",), "this is not the name of an environment", got=name, fix="see `rlkit list envs`")
        return False
    try:
        envs.check_name(name)
    except UsageError as error:
        near = did_you_mean(name, registry.TABLES["envs"])
        message = str(error) if "did you mean" in str(error) else f"{error}{near}"
        message = message.removeprefix(f"got the environment {name!r}: ")
        fix = "see `rlkit list envs`, or register your own with --import"
        report.add(("env",), message, fix=fix)
        return False
    except Exception as error:  # Gymnasium's own check of a malformed id
        report.add(("env",), f"there is no such environment ({error})", got=name, fix="see `rlkit list envs`")
        return False
    return True


def _check_arguments(name: str, data: Mapping[str, Any], report: Report) -> None:
    given = section(data, "env_config")
    registered = options("envs", name) if name in registry.TABLES["envs"] else None
    rows: dict[str, Any] | None = None
    if registered is not None and not registered["open"]:
        rows = registered["arguments"]
    elif name not in registry.TABLES["envs"]:
        library = "pettingzoo" if name in table().get("mpe2", {}) else "gymnasium"
        found = table().get("mpe2", {}).get(name) or table().get("gymnasium", {}).get(name)
        if found and "arguments" in found:
            rows = {**found["arguments"], **{key: {"type": text} for key, text in ADAPTER[library].items()}}
    if rows is None:
        return
    for key, value in given.items():
        path = ("env_config", key)
        if key not in rows:
            hint = did_you_mean(key, rows)
            report.add(
                path,
                f"{name} has no argument {key!r}{hint}",
                fix=instead(hint, rows),
                key=True,
            )
        elif not unreadable(value):
            check_value(key, value, rows[key]["type"], path, report, loose=True)
    missing = [key for key, row in rows.items() if row.get("required") and key not in given]
    for key in missing:
        report.add(
            ("env_config",),
            f"{name} needs the argument {key!r}",
            fix=f"write env_config: {{{key}: …}}",
            key=True,
        )


def action_of(name: str, env_config: Mapping[str, Any]) -> str | None:
    """Return the kind of action space (`Discrete`, `Box`); None where only the environment can tell."""
    found = table().get("gymnasium", {}).get(name) or table().get("mpe2", {}).get(name) or {}
    if name in registry.TABLES["envs"]:
        return None
    if name in table().get("mpe2", {}):
        continuous = env_config.get("continuous_actions", False)
        return (
            {True: "Box", False: found.get("action")}.get(continuous)
            if isinstance(continuous, bool)
            else None
        )
    action: str | None = found.get("action")
    return action


def _check_action_space(name: str, data: Mapping[str, Any], config: Config, report: Report) -> None:
    action = action_of(name, section(data, "env_config"))
    if "DQNConfig" in config.line and "SACConfig" not in config.line and action == "Box":
        report.add(
            ("algorithm",),
            f"{config.algorithm} needs discrete actions, {name} has continuous ones",
            got=data.get("algorithm"),
            fix="use SAC or PPO",
        )
    if "TQCConfig" in config.line and action == "Discrete":
        report.add(
            ("algorithm",),
            f"{config.algorithm} needs continuous actions, {name} has discrete ones",
            got=data.get("algorithm"),
            fix="use DQN or PPO",
        )


def agents_of(name: str, env_config: Mapping[str, Any]) -> list[str] | None:
    """Return the agents of an environment, or None where they are not known without making it."""
    found = table().get("mpe2", {}).get(name)
    if found is None or name in registry.TABLES["envs"] or set(env_config) - SAME_AGENTS:
        return None
    agents: list[str] = found["agents"]
    return agents


def is_single_agent(name: str) -> bool:
    """True if the environment is known to have one agent."""
    return name not in registry.TABLES["envs"] and not envs.is_multi_agent(name)


def _check_policies(name: str, data: Mapping[str, Any], config: Config, report: Report) -> None:
    policies = data.get("policies")
    if policies is None:
        return
    if is_single_agent(name):
        report.add(("policies",), f"{name} has one agent", fix="remove the section", key=True)
        return
    if not isinstance(policies, Mapping):
        return
    agents = agents_of(name, section(data, "env_config"))
    played: set[str] = set()
    trained = False
    for policy, body in policies.items():
        if not isinstance(body, Mapping):
            continue
        trained = trained or body.get("train", True) is not False
        if body.get("critic") is not None and config.known and config.algorithm not in CENTRALISED:
            report.add(
                ("policies", policy, "critic"),
                f"{config.algorithm} has no centralised critic",
                got=body["critic"],
                fix=f"remove it, or use {' or '.join(CENTRALISED)}",
                key=True,
            )
        globs = body.get("agents")
        for index, glob in enumerate(globs if isinstance(globs, list) else ()):
            if agents is None or not isinstance(glob, str):
                continue
            matched = {agent for agent in agents if fnmatch.fnmatchcase(agent, glob)}
            if not matched:
                hint = did_you_mean(glob, agents)
                report.add(
                    ("policies", policy, "agents", index),
                    f"no agent of {name} matches{hint}",
                    got=glob,
                    fix=f"its agents are {', '.join(agents)}",
                )
            elif matched <= played:
                report.add(
                    ("policies", policy, "agents", index),
                    "earlier policies play all these agents already",
                    got=glob,
                    fix="the first matching policy plays an agent; narrow the earlier globs, or remove this one",
                )
            played |= matched
    if not trained and policies:
        report.add(
            ("policies",),
            "every policy has train: false; nothing is left to learn",
            fix="set train: true for one",
            key=True,
        )
    if agents is not None and played and not report.has(("policies",)):
        for agent in agents:
            if agent not in played:
                report.add(
                    ("policies",),
                    f"no policy plays {agent!r}",
                    fix=f"add it to the agents of one: [{agent}]",
                    key=True,
                )
    overrides = section(data, "config", "rl_module").get("algorithm_config_overrides_per_module")
    for module in overrides if isinstance(overrides, Mapping) else ():
        if module not in policies:
            report.add(
                ("config", "rl_module", "algorithm_config_overrides_per_module", module),
                f"there is no policy {module!r}{did_you_mean(module, policies)}",
                fix=f"use one of {', '.join(map(str, policies))}",
                key=True,
            )
