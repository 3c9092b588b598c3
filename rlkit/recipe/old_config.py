"""Where each key of RLlib's old flat `config` stands in a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlkit.recipe.signatures import METHODS, Config, table
from rlkit.recipe.spaces import SearchSpace, space_error
from rlkit.recipe.words import AGENTS, BY_HAND, CLOSED_METHODS, GONE, OLD_MODEL_KEYS, RENAMED

ON_POLICY = ("PPO", "IMPALA", "APPO")
CODE = "<code>"  # stands for an argument that is a function or class
BUFFERS = {
    "MultiAgentPrioritizedReplayBuffer": "PrioritizedEpisodeReplayBuffer",
    "PrioritizedReplayBuffer": "PrioritizedEpisodeReplayBuffer",
    "MultiAgentReplayBuffer": "EpisodeReplayBuffer",
    "ReplayBuffer": "EpisodeReplayBuffer",
    "MultiAgentEpisodeReplayBuffer": "EpisodeReplayBuffer",
    "MultiAgentPrioritizedEpisodeReplayBuffer": "PrioritizedEpisodeReplayBuffer",
}
EXPLORATIONS = {
    "PerWorkerGaussianNoise": "GaussianNoise",
    "PerWorkerOrnsteinUhlenbeckNoise": "OrnsteinUhlenbeckNoise",
}
BUFFER_OPTIONS = {
    "prioritized_replay_alpha": "alpha", "prioritized_replay_beta": "beta", "alpha": "alpha", "beta": "beta",
    "capacity": "capacity",
}  # fmt: skip


@dataclass
class Old:
    """An old experiment: its algorithm, environment, limits, flat config, and what stood beside it."""

    name: str
    algorithm: str
    env: Any
    stop: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    around: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Handler = Callable[[str, Any, dict[str, Any], list[str]], None]


def move(old: Old, recipe: dict[str, Any], notes: list[str]) -> None:
    """Put every key of the flat config where a recipe has it; notes say what moved and what has no successor."""
    config = Config(old.algorithm)
    # a schedule overrules a plain value, and what is put into env_config comes after the whole of it; whether a buffer
    # has priorities is known before how much they count
    late = ("prioritized_replay_alpha", "prioritized_replay_beta")
    order = sorted(
        old.config, key=lambda key: (key != "env_config", key.endswith("_schedule") or key in late)
    )
    for key, given in ((key, old.config[key]) for key in order):
        value = _spaces(given, key, notes)
        if key in GONE:
            notes.append(f"{key} left out: {GONE[key]}")
        elif key == "evaluation_duration" and old.config.get("evaluation_duration_unit") == "timesteps":
            notes.append(f"{key} {value} left out: env steps; write evaluation: {{episodes: …}}")
        elif key in BY_HAND and value in (None, False, "NoFilter", "sampler"):
            continue  # it asked for nothing
        elif key in BY_HAND:
            notes.append(f"{key} has to be written by hand: {BY_HAND[key]}")
        elif handler := HANDLERS.get(key):
            handler(key, value, recipe, notes)
        elif target := RENAMED.get(key):
            _renamed(key, target, value, recipe, notes)
        elif config.known and (method := config.method_with(key)):
            _put(recipe, ("config", str(method), key), value)
        elif key in METHODS or key in CLOSED_METHODS:
            notes.append(f"{key}: what it was given is no plain data; left out")
        else:
            notes.append(f"{key} has no successor in {old.algorithm or 'RLlib'} of RLlib 2.60; left out")


def _put(recipe: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    here = recipe
    for part in path[:-1]:
        found = here.setdefault(part, {})
        if not isinstance(found, dict):
            found = here[part] = {}
        here = found
    here[path[-1]] = value


def _renamed(key: str, target: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    path, _, fixed = target.partition(": ")
    parts = tuple(path.split("."))
    where = ("config", *parts) if parts[0] in METHODS else parts
    if fixed and not value:
        notes.append(f"{key}: {value!r} left out")
        return
    _put(recipe, where, fixed or value)
    notes.append(f"{key} → {'.'.join(where)}" + (f": {fixed}" if fixed else ""))


def _spaces(value: Any, key: str, notes: list[str]) -> Any:
    """`{grid_search: […]}` as a search space; what no recipe can hold as text."""
    if isinstance(value, Mapping):
        if set(value) == {"grid_search"}:
            if space_error("grid", value["grid_search"]) is None:
                return SearchSpace("grid", tuple(value["grid_search"]))
            notes.append(f"{key}: an empty grid_search; left out")
            return None
        return {str(k): _spaces(v, key, notes) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_spaces(item, key, notes) for item in value]
    return value


def _train_batch(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    _put(recipe, ("config", "training", "train_batch_size_per_learner"), value)
    notes.append(f"{key} → config.training.train_batch_size_per_learner, which each learner takes")


def _schedule(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    name = key.removesuffix("_schedule")
    if value is not None:
        _put(recipe, ("config", "training", name), value)
        notes.append(f"{key} → config.training.{name}, which takes a schedule")


def _gpus(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    if value and isinstance(value, int | float | SearchSpace):
        _put(recipe, ("config", "learners", "num_gpus_per_learner"), value)
        notes.append(f"{key} → config.learners.num_gpus_per_learner")
    elif value:
        notes.append(f"{key} {value!r} left out: config.learners.num_gpus_per_learner is a number")


def _model(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    rows = table()["model_config"]
    for name, item in value.items() if isinstance(value, Mapping) else ():
        new = str(name).replace("post_fcnet_", "head_fcnet_")
        if new in rows:
            _put(recipe, ("model", new), item)
            if new != name:
                notes.append(f"model.{name} → model.{new}")
        else:
            notes.append(
                f"model.{name} left out: {OLD_MODEL_KEYS.get(name, 'no field of DefaultModelConfig')}"
            )


def _hiddens(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    if value:
        _put(recipe, ("model", "head_fcnet_hiddens"), value)
        notes.append(f"{key} → model.head_fcnet_hiddens")


def _networks(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """SAC's `q_model_config` and `policy_model_config`: one default network serves actor and critics.

    Without an activation it was relu (Ray 1 and 2, sac.py); that of `DefaultModelConfig` is tanh.
    """
    if isinstance(value, Mapping) and "fcnet_hiddens" in value:
        known = recipe.get("model", {})
        both = {
            "fcnet_hiddens": value["fcnet_hiddens"],
            "fcnet_activation": value.get("fcnet_activation", "relu"),
        }
        for name, item in both.items():
            if known.get(name, item) != item:
                notes.append(f"{key}.{name} {item} left out: actor and critics share {known[name]}")
            else:
                _put(recipe, ("model", name), item)
                notes.append(f"{key}.{name} → model.{name}: {item}, of actor and critics")
        _put(recipe, ("model", "head_fcnet_hiddens"), [])
        rest = [str(name) for name in value if name not in both]
        if rest:
            notes.append(f"{key}: {', '.join(rest)} left out: write model: {{…}}, docs/models.md")
    elif isinstance(value, Mapping) and value:
        notes.append(f"{key} left out: write model: {{…}}, docs/models.md")


def _prioritized(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    kind = "PrioritizedEpisodeReplayBuffer" if value else "EpisodeReplayBuffer"
    _put(recipe, ("config", "training", "replay_buffer_config", "type"), kind)
    notes.append(f"{key} → config.training.replay_buffer_config.type: {kind}")


def _priority(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """How much a flat config's priorities count."""
    buffer = recipe.get("config", {}).get("training", {}).get("replay_buffer_config", {})
    if buffer.get("type") == "EpisodeReplayBuffer":
        notes.append(f"{key} left out: the buffer has no priorities")
        return
    name = BUFFER_OPTIONS[key]
    _put(recipe, ("config", "training", "replay_buffer_config", name), value)
    notes.append(f"{key} → config.training.replay_buffer_config.{name}")


def _optimization(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    names = {
        "actor_learning_rate": "actor_lr",
        "critic_learning_rate": "critic_lr",
        "entropy_learning_rate": "alpha_lr",
    }
    for old, new in names.items():
        if isinstance(value, Mapping) and old in value:
            _put(recipe, ("config", "training", new), value[old])
            notes.append(f"{key}.{old} → config.training.{new}")


def _exploration(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    if isinstance(value, Mapping) and value:
        found = {"type": "EpsilonGreedy", **value}
        old = str(found["type"]).rpartition(".")[2]
        found["type"] = EXPLORATIONS.get(old, old)
        fits = recipe["algorithm"] not in table()["misfits"].get(old, {})
        if old == "StochasticSampling" and fits and not found.get("random_timesteps"):
            notes.append(
                "exploration_config StochasticSampling left out: it is what the algorithm does by itself"
            )
            return
        recipe["exploration"] = found
        notes.append(
            "exploration_config → exploration"
            + (f", {old} → {found['type']}" if old != found["type"] else "")
        )


def _epsilon(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """`epsilon: [[0, 1.0], [10000, 0.05]]` of new RLlib, as the exploration that says the same."""
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(p, list) and len(p) == 2 for p in value)
    ):
        recipe["exploration"] = {
            "type": "EpsilonGreedy", "initial_epsilon": value[0][1], "final_epsilon": value[1][1],
            "epsilon_timesteps": value[1][0],
        }  # fmt: skip
        notes.append("epsilon → exploration: {type: EpsilonGreedy, …}")
    else:
        _put(recipe, ("config", "training", key), value)


def _buffer(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    for name, item in value.items() if isinstance(value, Mapping) else ():
        if name == "type":
            new = BUFFERS.get(str(item), str(item))
            _put(recipe, ("config", "training", key, "type"), new)
            if new != item:
                notes.append(f"{key}.type {item} → {new}")
        elif name in BUFFER_OPTIONS:
            _put(recipe, ("config", "training", key, BUFFER_OPTIONS[name]), item)
        elif name == "prioritized_replay" and item is False:
            _prioritized(f"{key}.{name}", item, recipe, notes)
        elif name == "learning_starts":
            _put(recipe, ("config", "training", "num_steps_sampled_before_learning_starts"), item)
            notes.append(f"{key}.{name} → config.training.num_steps_sampled_before_learning_starts")
        else:
            notes.append(f"{key}.{name} has no successor; left out")


def _evaluation(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    name = "every" if key == "evaluation_interval" else "episodes"
    if isinstance(value, int) and value > 0:
        _put(recipe, ("evaluation", name), value)
        notes.append(f"{key} → evaluation.{name}")
    elif value not in (None, 0):
        notes.append(f"{key} {value!r} left out: evaluation.{name} is a whole number")


def _top(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    if key != "env_config" or value:
        recipe[key] = value


def _filter(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """MeanStdFilter, which PPO has as an option."""
    if value == "MeanStdFilter" and recipe["algorithm"] == "PPO":
        _put(recipe, ("config", "training", "normalize_observations"), True)
        notes.append(f"{key} → config.training.normalize_observations")
    elif value not in (None, "NoFilter"):
        notes.append(
            f"{key} has to be written by hand: a connector ({value}), which cannot stand in a recipe"
        )


def _evaluation_config(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    for name, item in value.items() if isinstance(value, Mapping) else ():
        same = name == "explore" and item is False
        notes.append(
            f"{key}.{name} left out: "
            + ("evaluation is greedy" if same or name == "explore" else "evaluation has the training's")
        )


def _multiagent(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """The old flat config's section: policies, the mapping to them, which of them learn, how steps are counted."""
    if not isinstance(value, Mapping):
        notes.append(f"{key} has to be written by hand: {AGENTS}, docs/recipe.md")
        return
    for name, item in value.items():
        where = f"{key}.{name}"
        if name == "policies":
            _policies(where, item, recipe, notes)
        elif name == "count_steps_by":
            _put(recipe, ("config", "multi_agent", str(name)), item)
            notes.append(f"{where} → config.multi_agent.{name}")
        elif name == "policies_to_train":
            _to_train(where, item, recipe, notes)
        elif name in BY_HAND:
            notes.append(f"{where} has to be written by hand: {BY_HAND[name]}")
        else:
            notes.append(f"{where} has no successor; left out")


def _policies(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    """Policies by name, with what each has of its own; which agents each one plays only a run knows."""
    named = (
        value
        if isinstance(value, Mapping)
        else dict.fromkeys(map(str, value if isinstance(value, list) else ()))
    )
    if len(named) == 1 and not any(f" {key}." in note for note in notes):  # none of them is unread
        recipe["policies"] = "shared"
        notes.append(f"{key} {next(iter(named))} → policies: shared, one module for all agents")
    elif value:
        notes.append(f"{key} {', '.join(map(str, named))} to be written by hand: {AGENTS}, docs/recipe.md")
    for name, item in named.items():
        parts = item if isinstance(item, list) else [item]
        own = next((part for part in reversed(parts) if isinstance(part, Mapping) and part), {})
        for word in own.get("config", own) if isinstance(own.get("config", own), Mapping) else ():
            notes.append(
                f"{key}.{name}: {word} of one policy left out: policies share the options of config.training"
            )


def _to_train(key: str, value: Any, recipe: dict[str, Any], notes: list[str]) -> None:
    if isinstance(value, list) and value:
        words = ", ".join(map(str, value))
        notes.append(f"{key} {words} to be written by hand: policies: {{…: {{train: false}}}} for the others")
    elif value is not None:
        notes.append(f"{key} has to be written by hand: policies: {{name: {{train: false}}}}, docs/recipe.md")


HANDLERS: dict[str, Handler] = {
    "env_config": _top, "seed": _top, "train_batch_size": _train_batch, "lr_schedule": _schedule,
    "entropy_coeff_schedule": _schedule, "num_gpus": _gpus, "model": _model, "model_config": _model,
    "hiddens": _hiddens, "prioritized_replay": _prioritized,
    "prioritized_replay_alpha": _priority, "prioritized_replay_beta": _priority,
    "q_model_config": _networks, "policy_model_config": _networks, "Q_model": _networks, "policy_model": _networks,
    "optimization": _optimization, "exploration_config": _exploration, "epsilon": _epsilon,
    "replay_buffer_config": _buffer, "evaluation_interval": _evaluation, "evaluation_duration": _evaluation,
    "evaluation_num_episodes": _evaluation, "observation_filter": _filter,
    "evaluation_config": _evaluation_config, "multiagent": _multiagent, "policies": _policies,
    "policies_to_train": _to_train,
}  # fmt: skip
