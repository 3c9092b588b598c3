"""What an environment name means: Gymnasium ids, `pettingzoo/<module>.<env>` and `vmas/<scenario>`.

Looking a name up reads folder listings only; the environment library is imported when one is made. A name
never imports anything else: `module:Env-v0`, which Gymnasium would import, is refused.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import gymnasium as gym
    from ray.rllib.env.multi_agent_env import MultiAgentEnv

PETTINGZOO_FAMILIES = ("atari", "butterfly", "classic", "sisl")
# What the retired names of older tutorials are called now.
RENAMED = {
    "pettingzoo/mpe.": "pettingzoo/mpe2.",
    "pettingzoo/sisl.multiwalker_v8": "pettingzoo/sisl.multiwalker_v9",
}
# Of `gymnasium.make` itself, not of the environment: another `id` would be another environment, and may name a module
# to import; what makes a vector is rlkit's to say.
MAKE_OPTIONS = ("id", "disable_env_checker", "vectorization_mode", "vector_kwargs", "wrappers")
EXTRAS = ("box2d", "mujoco")  # of rlkit; what Gymnasium proposes for the first needs swig
_spec = cache(importlib.util.find_spec)


def _folder(package: str) -> Path | None:
    """Return where a top-level package lies, without importing it."""
    spec = _spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _stems(folder: Path, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern) if not path.stem.startswith("_"))


@cache
def _pettingzoo_names() -> tuple[str, ...]:
    names: list[str] = []
    if mpe2 := _folder("mpe2"):
        names += [f"pettingzoo/mpe2.{stem}" for stem in _stems(mpe2, "*_v*.py")]
    if root := _folder("pettingzoo"):
        for family in PETTINGZOO_FAMILIES:
            names += [f"pettingzoo/{family}.{stem}" for stem in _stems(root / family, "*_v*.py")]
    return tuple(names)


@cache
def _vmas_names() -> tuple[str, ...]:
    root = _folder("vmas")
    if root is None:
        return ()
    scenarios = root / "scenarios"
    stems = (_stems(folder, "*.py") for folder in (scenarios, scenarios / "mpe", scenarios / "debug"))
    return tuple(f"vmas/{stem}" for group in stems for stem in group)


def _gymnasium_names() -> Iterable[str]:
    from gymnasium.envs.registration import registry

    return registry


def available() -> dict[str, str]:
    """List the names that can be made here, with a word about each; VMAS' if it is installed."""
    listed = {name: "PettingZoo, multi-agent" for name in _pettingzoo_names()}
    listed |= {name: "VMAS, multi-agent, batched" for name in _vmas_names()}
    listed |= {name: "Gymnasium" for name in sorted(_gymnasium_names()) if "/" not in name}
    return listed


def is_multi_agent(name: str) -> bool:
    """Say whether a name of this module makes a `MultiAgentEnv`."""
    return name.startswith(("pettingzoo/", "vmas/"))


def check_name(name: str) -> None:
    """Look a name up without making the environment.

    Raises:
        UsageError: there is no such environment, or its library is not installed.
    """
    if name.startswith("pettingzoo/"):
        _check_listed(name, _pettingzoo_names())
        if lacking := missing_packages(name):
            family, packages = name.partition("/")[2].partition(".")[0], ", ".join(lacking)
            raise UsageError(
                f"{name!r} needs {packages}, not installed; run: pip install 'pettingzoo[{family}]'"
            )
    elif name.startswith("vmas/"):
        if not _vmas_names():
            raise UsageError(
                f"{name!r} needs VMAS, which is not installed; run: pip install 'rlkit-rllib[vmas]'"
            )
        _check_listed(name, _vmas_names())
    elif ":" in name:
        module, _, env_id = name.partition(":")
        raise UsageError(
            f"got the environment {name!r}: a name does not import a module; use `--import {module}` and env: {env_id}"
        )
    else:
        _check_gymnasium(name)


@cache
def missing_packages(name: str) -> tuple[str, ...]:
    """Return what the modules of a PettingZoo environment import and nobody installed, read off their source."""
    found: set[str] = set()
    waiting = [name.partition("/")[2] if "/mpe2." in name else f"pettingzoo.{name.partition('/')[2]}"]
    for module in waiting:
        package, _, rest = module.partition(".")
        path = (_folder(package) or Path()) / rest.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        for imported in re.findall(
            r"^(?:from|import) ([\w.]+)", file.read_text() if file.is_file() else "", re.M
        ):
            if imported.startswith(("pettingzoo.", "mpe2.")):
                waiting += [imported] if imported not in waiting else []
            elif _spec(imported.partition(".")[0]) is None:
                found.add(imported.partition(".")[0])
    return tuple(sorted(found))


def _check_listed(name: str, names: Iterable[str]) -> None:
    if name in names:
        return
    for old, new in RENAMED.items():
        if name.startswith(old) and name.replace(old, new) in names:
            raise UsageError(
                f"there is no environment {name!r} any more; it is {name.replace(old, new)!r} now"
            )
    shape = "pettingzoo/<module>.<env>" if name.startswith("pettingzoo/") else "vmas/<scenario>"
    raise UsageError(f"there is no environment {name!r}{did_you_mean(name, names)} (expected {shape})")


def _check_gymnasium(name: str) -> None:
    from gymnasium import error
    from gymnasium.envs import registration

    name = _newest(name)
    if name in registration.registry:
        return
    try:
        registration.spec(name)
    except error.Error as reason:
        known = [*_gymnasium_names(), *_pettingzoo_names(), *_vmas_names()]
        short = {known_name.rpartition(".")[2]: known_name for known_name in _pettingzoo_names()}
        hint = f"; did you mean {short[name]!r}?" if name in short else did_you_mean(name, known)
        if name.startswith("ALE/"):
            hint = "; Atari needs ale-py: pip install 'gymnasium[atari]', then --import ale_py"
        detail = f" ({str(reason).rstrip('.')})" if not isinstance(reason, error.NameNotFound) else ""
        raise UsageError(
            f"there is no environment {name!r}{hint}{detail} "
            "(expected a Gymnasium id, pettingzoo/<module>.<env>, vmas/<scenario>, or a registered name)"
        ) from None


def _newest(name: str) -> str:
    """Return a Gymnasium id with its newest version, where it has none; other names as they are."""
    from gymnasium import error
    from gymnasium.envs import registration

    if name in registration.registry:
        return name
    try:
        namespace, stem, version = registration.parse_env_id(name)
    except error.Error:
        return name
    newest = registration.find_highest_version(namespace, stem) if version is None else None
    return name if newest is None else registration.get_env_id(namespace, stem, newest)


def make_env(name: str, env_config: Mapping[str, Any] | None = None) -> gym.Env | MultiAgentEnv:
    """Make an environment by name.

    Args:
        name: a Gymnasium id, `pettingzoo/<module>.<env>`, or `vmas/<scenario>`.
        env_config: keyword arguments of the environment. For PettingZoo also `api` (`parallel`, the default
            where the environment has it, or `aec`) and `mask_from_info` (see `PettingZooEnv`).

    Raises:
        UsageError: no such environment, a missing package, or an argument that the environment does not take.
    """
    check_name(name)
    kwargs = dict(env_config or {})
    if name.startswith("pettingzoo/"):
        return _make_pettingzoo(name, kwargs)
    if name.startswith("vmas/"):
        from rlkit.envs.vmas import VmasEnv

        if "scenario" in kwargs:
            raise UsageError(f"env_config.scenario: the name says it, {name!r}; remove it")
        return VmasEnv(name.partition("/")[2], **kwargs)
    return _make_gymnasium(name, kwargs)


def make_vector(name: str, env_config: Mapping[str, Any]) -> Any:
    """Make the vector environment that a Gymnasium id has of its own; `env_config` holds `num_envs`.

    Raises:
        UsageError: it has none.
    """
    import gymnasium
    from gymnasium.envs import registration

    check_name(name)
    name = _newest(name)
    if registration.spec(name).vector_entry_point is None:
        raise UsageError(f"{name!r} has no vector environment of its own")
    kwargs = dict(env_config)
    _refuse_make_options(name, kwargs)
    count = kwargs.pop("num_envs")
    return gymnasium.make_vec(name, num_envs=count, vectorization_mode="vector_entry_point", **kwargs)


def adapt(env: Any) -> gym.Env | MultiAgentEnv:
    """Turn what a user's own maker returned into an environment of RLlib: PettingZoo's are wrapped.

    Raises:
        UsageError: it is no `gymnasium.Env`, `MultiAgentEnv` or PettingZoo environment.
    """
    import gymnasium

    if isinstance(env, gymnasium.Env):
        return env
    if type(env).__module__.startswith("gym."):
        raise UsageError(
            f"got an environment of the retired gym package ({type(env).__name__}); port it to gymnasium"
        )
    if hasattr(env, "possible_agents"):
        from rlkit.envs.pettingzoo import PettingZooEnv

        return PettingZooEnv(env)
    raise UsageError(
        f"the environment's maker returned {type(env).__name__}, expected a gymnasium.Env, a MultiAgentEnv "
        "or a PettingZoo environment"
    )


def _make_gymnasium(name: str, kwargs: dict[str, Any]) -> gym.Env:
    import gymnasium
    from gymnasium import error

    name = _newest(name)
    _refuse_make_options(name, kwargs)
    try:
        # Gymnasium's own checker warns once per process and costs a call per step; contract.py raises instead
        make = functools.partial(gymnasium.make, name, disable_env_checker=True)
        return _call(make, kwargs, name, _gymnasium_options)
    except error.DependencyNotInstalled as missing:
        place = str(gymnasium.spec(name).entry_point)
        extra = next((known for known in EXTRAS if f".{known}" in place), None)
        fix = f"run: pip install 'rlkit-rllib[{extra}]'" if extra else missing
        raise UsageError(f"{name!r} needs a package that is not installed; {fix}") from None


def _refuse_make_options(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise a `UsageError` for what would change which environment `gymnasium.make` makes."""
    if name.startswith("GymV2"):
        raise UsageError(f"{name!r} makes environments of the retired gym package; port yours to gymnasium")
    for key in MAKE_OPTIONS:
        if key in kwargs:
            raise UsageError(f"env_config.{key}: an option of gymnasium.make, not of {name!r}; remove it")


def _make_pettingzoo(name: str, kwargs: dict[str, Any]) -> MultiAgentEnv:
    from rlkit.envs.pettingzoo import PettingZooEnv

    path = name.partition("/")[2]
    family, _, _ = path.partition(".")
    try:
        module = importlib.import_module(path if family == "mpe2" else f"pettingzoo.{path}")
    except ImportError as missing:
        raise UsageError(
            f"{name!r} needs a package that is not installed ({missing}); run: pip install 'pettingzoo[{family}]'"
        ) from None
    apis: dict[str, Callable[..., Any]] = {}
    if hasattr(module, "parallel_env"):
        apis["parallel"] = module.parallel_env
    apis["aec"] = module.env
    api = kwargs.pop("api", next(iter(apis)))
    if api not in apis:
        raise UsageError(f"env_config.api of {name!r} is {api!r}; expected one of {sorted(apis)}")
    mask_from_info = kwargs.pop("mask_from_info", False)
    raw = getattr(module, "raw_env", None)
    env = _call(apis[api], kwargs, name, lambda name: _parameters(raw))
    if family == "mpe2":
        from rlkit.envs.mpe import world_steps

        env = world_steps(env)
    return PettingZooEnv(env, mask_from_info=mask_from_info)


def _gymnasium_options(name: str) -> list[str]:
    from gymnasium.envs.registration import load_env_creator, registry

    entry_point = registry[name].entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return [*_parameters(creator), "max_episode_steps"]


def _parameters(function: Callable[..., Any] | None) -> list[str]:
    """Name the keyword arguments of a function or class; empty where they cannot be told."""
    try:
        parameters = inspect.signature(function).parameters.values() if function is not None else ()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _call(
    function: Callable[..., Any], kwargs: dict[str, Any], name: str, options: Callable[[str], list[str]]
) -> Any:
    """Call a maker; an unexpected keyword becomes a `UsageError` that names the closest one the maker has."""
    try:
        return function(**kwargs)
    except TypeError as error:
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unexpected is None or unexpected[1] not in kwargs:
            raise
        known = options(name)
        takes = f"; it takes {', '.join(known)}" if known else ""
        raise UsageError(
            f"env_config.{unexpected[1]}: {name!r} has no such argument{did_you_mean(unexpected[1], known)}{takes}"
        ) from error
