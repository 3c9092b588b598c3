"""Where the time of an iteration went."""

from __future__ import annotations

from typing import Any

from rlkit.callbacks.base import Callback

# RLlib's timers that do not contain one another (ray/rllib/utils/metrics/__init__.py, 2.60), by what they measure.
PARTS = {
    "sampling": ("env_runner_sampling_timer",),
    "learning": ("learner_update_timer",),
    "replay": (
        "replay_buffer_add_data_timer",
        "replay_buffer_sampling_timer",
        "replay_buffer_update_prios_timer",
    ),
    "weight_sync": ("synch_weights", "synch_env_connectors"),
    "evaluation": ("evaluation_iteration",),
}


class Throughput(Callback):
    """Adds `throughput/…` to every result: steps per second of this iteration, and seconds per training step by part.

    | key | meaning |
    |---|---|
    | `env_steps_per_s` | environment steps sampled in this iteration / its seconds |
    | `iteration_s` | seconds of this iteration |
    | `<part>_s`, `<part>_share` | RLlib's (smoothed) timer, and its share of one training step |
    """

    def __init__(self) -> None:
        self._steps = 0

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        steps = int(result.get("num_env_steps_sampled_lifetime") or 0)
        seconds = float(result.get("time_this_iter_s") or 0.0)
        out: dict[str, float] = {"iteration_s": seconds}
        if seconds > 0 and self._steps:
            out["env_steps_per_s"] = (steps - self._steps) / seconds
        self._steps = steps
        timers = result.get("timers") or {}
        whole = float(timers.get("training_step") or 0.0)
        for part, names in PARTS.items():
            spent = [float(timers[name]) for name in names if name in timers]
            if spent:
                out[f"{part}_s"] = sum(spent)
                if whole > 0 and part != "evaluation":
                    out[f"{part}_share"] = min(sum(spent) / whole, 1.0)
        result["throughput"] = out
