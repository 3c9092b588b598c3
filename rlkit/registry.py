"""Names that a recipe may use, and the Python objects behind them.

Every table is a plain dict of lazy references: listing names imports nothing, using one imports its module.
A recipe can only name what stands here. User code adds entries through `register`, from a module given with
`--import`, or from an installed package's entry point in the group `rlkit.plugins`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.errors import UsageError, did_you_mean

_IMPORTED: dict[str, str] = {}  # module -> how `--import` named it

KINDS = ("algorithms", "envs", "models", "callbacks", "curricula", "explorations")


@dataclass(frozen=True)
class Entry:
    """One registered name. `target` is an object, or a lazy reference `"package.module:attribute"`."""

    name: str
    target: str | Callable[..., Any]
    summary: str = ""

    @property
    def module(self) -> str:
        """The module that defines the target."""
        if isinstance(self.target, str):
            return self.target.partition(":")[0]
        return str(getattr(self.target, "__module__", ""))

    def load(self) -> Any:
        """Import and return the object."""
        if not isinstance(self.target, str):
            return self.target
        return getattr(importlib.import_module(self.module), self.target.partition(":")[2])


def _table(package: str, *rows: tuple[str, str, str]) -> dict[str, Entry]:
    """Rows of (name, target below `package`, summary)."""
    return {name: Entry(name, f"{package}.{target}".lstrip("."), summary) for name, target, summary in rows}


TABLES: dict[str, dict[str, Entry]] = {
    # An algorithm's target is its RLlib AlgorithmConfig class.
    "algorithms": _table(
        "",
        ("PPO", "rlkit.algos.ppo:PPOConfig", "RLlib's PPO on columns"),
        ("DQN", "rlkit.algos.dqn:DQNConfig", "RLlib's DQN on columnar replay"),
        ("SAC", "rlkit.algos.sac:SACConfig", "RLlib's SAC on columnar replay"),
        ("DRON", "rlkit.algos.dron:DRONConfig", "DQN that models its opponents"),
        (
            "MADDPG",
            "rlkit.algos.maddpg:MADDPGConfig",
            "actors that see their own observation, critics that see everybody's",
        ),
        ("MATD3", "rlkit.algos.maddpg:MATD3Config", "MADDPG with TD3's three changes"),
        ("BC", "rlkit.algos.offline:BCConfig", "behaviour cloning from recorded episodes"),
        (
            "MARWIL",
            "rlkit.algos.offline:MARWILConfig",
            "cloning weighted by advantage, from recorded episodes",
        ),
        ("CQL", "rlkit.algos.offline:CQLConfig", "conservative Q-learning from recorded episodes"),
        ("IQL", "rlkit.algos.offline:IQLConfig", "implicit Q-learning from recorded episodes"),
        ("APPO", "ray.rllib.algorithms.appo:APPOConfig", "RLlib's APPO"),
        ("IMPALA", "ray.rllib.algorithms.impala:IMPALAConfig", "RLlib's IMPALA"),
        ("TQC", "ray.rllib.algorithms.tqc:TQCConfig", "RLlib's TQC"),
        ("rllib/DQN", "ray.rllib.algorithms.dqn:DQNConfig", "RLlib's DQN, untouched"),
        ("rllib/PPO", "ray.rllib.algorithms.ppo:PPOConfig", "RLlib's PPO, untouched"),
        ("rllib/SAC", "ray.rllib.algorithms.sac:SACConfig", "RLlib's SAC, untouched"),
    ),
    "envs": _table(
        "rlkit.envs",
        ("grid_world", "gridworld:GridWorld", "one reward in a grid; tasks: distance, goal"),
        (
            "repeat_previous",
            "memory:RepeatPrevious",
            "answer with the symbol of some steps ago; needs memory",
        ),
        ("soccer", "soccer:soccer", "grid soccer of the DRON paper against rule agents"),
        ("soccer_two", "soccer:SoccerParallelEnv", "the same game with two players"),
        (
            "matrix_game",
            "matrix_game:matrix_game",
            "a repeated 2x2 game against strategies of the literature",
        ),
        ("tag_pool", "tag_pool:TagPool", "simple_tag's prey against a pool of frozen hunters"),
    ),
    # A model's target is `build(observation_space, **options) -> torch.nn.Module` (rlkit.models.features).
    "models": _table(
        "rlkit.models",
        ("mlp", "dense:mlp", "Fully connected: hiddens, activation, layer_norm, orthogonal, gain"),
        ("cnn", "conv:cnn", "Convolutions for channel-last images: filters or impala, hidden, …"),
        ("lstm", "recurrent:lstm", "LSTM behind an encoder: cell, hiddens, encoder, …"),
        ("gru", "recurrent:gru", "GRU behind an encoder: cell, hiddens, encoder, …"),
        (
            "attention",
            "transformer:attention",
            "Causal transformer over the last steps: window, size, heads, blocks, …",
        ),
        ("multi_input", "inputs:multi_input", "An encoder per key of a Dict or Tuple: encoders, fuse, …"),
        ("entities", "sets:entities", "A set of entities, some absent: pool, size, heads, hiddens, …"),
    ),
    "callbacks": _table(
        "rlkit",
        ("BestCheckpoint", "callbacks:BestCheckpoint", "save whenever evaluation improves"),
        ("EpisodeGif", "callbacks:EpisodeGif", "a GIF of the current policy every few iterations"),
        ("EpisodeStatistics", "callbacks:EpisodeStatistics", "the classic example of all hooks"),
        ("HindsightRelabel", "callbacks:HindsightRelabel", "hindsight experience replay"),
        ("Histograms", "callbacks:Histograms", "weights and gradients in TensorBoard"),
        ("MergeAgentObservations", "callbacks:MergeAgentObservations", "others' steps as columns"),
        ("MonteCarloReturns", "callbacks:MonteCarloReturns", "discounted returns as a column"),
        ("NumericsGuard", "callbacks:NumericsGuard", "NaN or inf ends the run and is named"),
        ("RewardScale", "callbacks:RewardScale", "scale, shift, clip the learner's rewards"),
        ("RewardShaping", "callbacks:RewardShaping", "potential-based reward shaping"),
        ("StopOnPlateau", "callbacks:StopOnPlateau", "end the run when a metric no longer improves"),
        ("Throughput", "callbacks:Throughput", "steps per second, and where the time goes"),
        ("TimeLimit", "callbacks:TimeLimit", "end the run after so many seconds"),
    ),
    "curricula": _table(
        "rlkit.curriculum",
        ("lessons", "lessons:Lessons", "tasks in an order, each until a measure reaches a threshold"),
        ("random", "randomise:DomainRandomisation", "domain randomisation"),
        ("annealing", "randomise:Annealing", "task values that move with the env steps"),
        ("expanding_box", "randomise:ExpandingBox", "a box of tasks that grows where it is mastered"),
        ("learning_progress", "levels:LearningProgress", "plays what is being learnt or forgotten"),
        ("learnability", "levels:Learnability", "plays what succeeds sometimes"),
        ("plr", "plr:PrioritisedLevelReplay", "prioritised level replay, by the critic's error"),
        ("alp_gmm", "alp_gmm:ALPGMM", "learning progress over a continuous space"),
        ("self_play", "self_play:SelfPlay", "a pool of past policies, with Elo"),
    ),
    "explorations": _table(
        "rlkit.exploration",
        ("CountBased", "intrinsic:CountBased", "bonus for states that were rarely visited"),
        ("Curiosity", "intrinsic:Curiosity", "bonus for steps a model cannot predict (ICM)"),
        ("EpsilonGreedy", "epsilon_greedy:EpsilonGreedy", "a random action with probability ε"),
        ("GaussianNoise", "continuous:GaussianNoise", "Gaussian noise on continuous actions"),
        ("OrnsteinUhlenbeckNoise", "continuous:OrnsteinUhlenbeckNoise", "correlated noise on actions"),
        ("ParameterNoise", "parameter_noise:ParameterNoise", "noise on the weights, adapted to a distance"),
        ("PerWorkerEpsilonGreedy", "epsilon_greedy:PerWorkerEpsilonGreedy", "a constant ε per env runner"),
        ("RND", "intrinsic:RND", "bonus for novel observations (random network distillation)"),
        ("Random", "discrete:Random", "uniform actions for the first steps, or always"),
        ("SoftQ", "discrete:SoftQ", "softmax over Q-values"),
        ("StochasticSampling", "discrete:StochasticSampling", "what the policy itself samples"),
        ("UpperConfidenceBound", "discrete:UpperConfidenceBound", "UCB1 on Q-values"),
    ),
}


def register(kind: str, name: str, target: str | Callable[..., Any], summary: str = "") -> None:
    """Add a name. Registering the same name again replaces it only for the same target (a re-import).

    Raises:
        UsageError: the name is taken by something else, or is not a plain word.
    """
    if not name or any(c in name for c in " \t\n:{}[],&*#?|<>=!%@\\\"'"):
        raise UsageError(
            f"cannot register {name!r} as one of {kind}: use letters, digits, '_', '-', '/' and '.'"
        )
    table = TABLES[kind]
    known = table.get(name)
    if known is not None and not _same(known.target, target):
        raise UsageError(
            f"{name!r} is already registered as one of {kind} ({known.target}); choose another name"
        )
    summary = summary or ((getattr(target, "__doc__", None) or "").strip().splitlines() or [""])[0]
    table[name] = Entry(name, target, summary)


def register_env(name: str, make: Callable[..., Any], summary: str = "") -> None:
    """Make `env: <name>` available: `make(**env_config)` returns a Gymnasium, PettingZoo or RLlib environment."""
    _callable(name, make, "a function or class that makes the environment")
    if name.startswith(("pettingzoo/", "vmas/")) or name in _gymnasium_ids():
        raise UsageError(
            f"{name!r} is the name of a Gymnasium, PettingZoo or VMAS environment; choose another"
        )
    register("envs", name, make, summary)


def register_model(name: str, build: Callable[..., Any], summary: str = "") -> None:
    """Make `model: {name: <name>}` available: `build(observation_space, **options)` returns a torch module.

    The module maps a float batch of observations (B, ...) to features (B, F). See docs/models.md.
    """
    _callable(name, build, "a function build(observation_space, **options)")
    register("models", name, build, summary)


def register_callback(name: str, callback: Callable[..., Any], summary: str = "") -> None:
    """Make `callbacks: [{name: <name>, ...}]` available: `callback(**options)` returns an RLlibCallback."""
    _callable(name, callback, "an RLlibCallback class, or a function that returns a callback")
    if isinstance(callback, type):
        _subclass(name, callback, "RLlibCallback")
    register("callbacks", name, callback, summary)


def register_algorithm(name: str, config: type, summary: str = "") -> None:
    """Make `algorithm: <name>` available: `config` is an AlgorithmConfig class that needs no arguments."""
    _subclass(name, config, "AlgorithmConfig")
    register("algorithms", name, config, summary)


def register_exploration(name: str, exploration: type, summary: str = "") -> None:
    """Make `exploration: {type: <name>, ...}` available: `exploration` is an `rlkit.exploration` class."""
    _subclass(name, exploration, "Exploration")
    register("explorations", name, exploration, summary)


def _callable(name: str, target: object, expected: str) -> None:
    if not callable(target):
        raise UsageError(f"cannot register {name!r}: got {target!r}, expected {expected}")


def _subclass(name: str, target: object, base: str) -> None:
    """Check a class by the names of its bases: the registry imports neither RLlib nor the rooms above it."""
    bases = [cls.__name__ for cls in target.__mro__] if isinstance(target, type) else []
    if base not in bases:
        raise UsageError(f"cannot register {name!r}: got {target!r}, expected a subclass of {base}")


def _gymnasium_ids() -> Iterable[str]:
    from gymnasium.envs import registration  # where a user makes an environment it is imported already

    return registration.registry


def _same(a: object, b: object) -> bool:
    def where(x: object) -> object:
        return (
            x if isinstance(x, str) else (getattr(x, "__module__", None), getattr(x, "__qualname__", repr(x)))
        )

    return where(a) == where(b)


def resolve(kind: str, name: str) -> Any:
    """Return the object registered under `name`.

    Raises:
        UsageError: no such name; the message lists the closest one.
    """
    entry = TABLES[kind].get(name)
    if entry is None:
        raise UsageError(
            f"unknown {kind[:-1] if kind != 'curricula' else 'curriculum'} {name!r}"
            f"{did_you_mean(name, TABLES[kind])} (`rlkit list {kind}` shows all)"
        )
    return entry.load()


@dataclass(frozen=True)
class Names:
    """What other processes need in order to know the names of this one; picklable.

    Attributes:
        imports: modules given with `--import`, imported there again.
        entries: (kind, entry) of what was registered as an object. What the imported modules registered is left out:
            a process that imports them has it, and one that does not could not unpickle it.
        by_value: classes of imported files go on to further processes as code (`send_by_value`).
    """

    imports: tuple[str, ...] = ()
    entries: tuple[tuple[str, Entry], ...] = ()
    by_value: bool = False

    def load(self) -> None:
        """Make them known in this process."""
        begin([_here(name) for name in self.imports])
        if self.by_value:
            send_by_value()
        for kind, entry in self.entries:
            TABLES[kind].setdefault(entry.name, entry)


def _here(name: str) -> str:
    """Return an imported file by its module's name where the file is not: Ray brought the module to this node."""
    return name if Path(name).is_file() else module_name(name)


_GIVEN: list[str] = []  # what `begin` was given last
_BY_VALUE: list[str] = []  # modules whose classes travel as code


def imports() -> list[str]:
    """Return the modules that a run of this process imports in its other processes."""
    return list(_GIVEN)


def begin(imports: Sequence[str], values: Any = None) -> None:
    """Load plugins; from here on, `imports()` are these.

    Args:
        values: of a recipe; modules imported earlier in this process whose names it uses count as given.
    """
    load_plugins(imports)
    words = set(_words(values))
    using = {entry.module for table in TABLES.values() for entry in table.values() if entry.name in words}
    earlier = [given for module, given in _IMPORTED.items() if module in using]
    _GIVEN[:] = dict.fromkeys([*absolute(imports), *earlier])


def names() -> Names:
    """Return what this process hands to others."""
    known = {module_name(name) for name in (*_GIVEN, *_IMPORTED.values())}
    entries = [
        (kind, entry)
        for kind, table in TABLES.items()
        for entry in table.values()
        if not isinstance(entry.target, str) and entry.module not in known
    ]
    return Names(tuple(_GIVEN), tuple(entries), bool(_BY_VALUE))


def send_by_value() -> None:
    """Let classes of files given with `--import` travel as code.

    Workers of a Ray that was started before them do not find these files: Ray hands on the import path of its start.
    """
    from ray import cloudpickle

    for module, given in _IMPORTED.items():
        if given.endswith(".py") and module in sys.modules and module not in _BY_VALUE:
            cloudpickle.register_pickle_by_value(sys.modules[module])
            _BY_VALUE.append(module)


def _words(value: Any) -> Iterator[str]:
    """Every text in nested values of a recipe."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _words(part)


def absolute(imports: Sequence[str]) -> list[str]:
    """Make the paths of `.py` files absolute: a trial works in a folder of its own."""
    return [str(Path(name).resolve()) if name.endswith(".py") else name for name in imports]


def load_plugins(imports: Sequence[str] = ()) -> None:
    """Import installed `rlkit.plugins` entry points, once per process, then the modules named by `--import`.

    A module is a dotted name or a path to a `.py` file; the working directory is importable.

    Raises:
        UsageError: a module that cannot be imported, with the reason.
    """
    _load_entry_points()
    for name in imports:
        import_module(name)


@functools.cache
def _load_entry_points() -> None:
    from importlib import metadata  # 20 ms that a process without plugins to load can spare

    for point in metadata.entry_points(group="rlkit.plugins"):
        try:
            plugin = point.load()
            if callable(plugin):
                plugin()
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"the plugin {point.name!r} ({point.value}) failed to load: {type(error).__name__}: {error}"
            ) from error


def module_name(given: str) -> str:
    """Return what a module given with `--import` is called in `sys.modules`."""
    return Path(given).stem if given.endswith(".py") else given


def import_module(name: str) -> None:
    """Import a module by dotted name, or by path to a `.py` file (its folder is added to `sys.path`)."""
    folder, module = str(Path.cwd()), module_name(name)
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise UsageError(f"--import {name}: no such file")
        folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # Ray's processes, if they start after this, find the module too: a class of it reaches them by its name.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if folder not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, *paths]))
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"--import {name}: {type(error).__name__}: {error}") from error
    loaded = getattr(sys.modules[module], "__file__", None)
    if name.endswith(".py") and (loaded is None or Path(loaded).resolve() != path):
        raise UsageError(
            f"--import {name}: another module {module!r} is loaded already, from {loaded or 'Python itself'}; "
            "rename the file"
        )
    _IMPORTED[module] = absolute([name])[0]
