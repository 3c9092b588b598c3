"""RLlib callbacks with options, saved state, and errors that say where they come from.

`Callback` is an `RLlibCallback`, so it goes into `config.callbacks([...])` of anyone's script:

    class Counter(Callback):
        def __init__(self, every: int = 10): ...
    config = PPOConfig().callbacks([Counter.bind(every=5)])

RLlib 2.60 makes one instance per process: one in the driver, one in each env runner (the local one too), and, for
`on_learn_on_batch`, one in each remote learner. Instances know nothing of each other; see `share` and `call_runners`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback

from rlkit import rllib, state
from rlkit.errors import RunFailed, did_you_mean

State = dict[str, Any]

# RLlib 2.60 still defines these, and never calls them on the new API stack (rllib/callbacks/callbacks.py)
DEAD = {
    "on_postprocess_trajectory": "subclass rlkit.callbacks.TrajectoryPostprocessor",
    "on_create_policy": "use on_algorithm_init and algorithm.get_module()",
    "on_sub_environment_created": "use on_environment_created",
    "on_workers_recreated": "use on_env_runners_recreated",
}
ERRORS = "callback_errors"  # metric: how many hooks failed in remote env runners


class CallbackError(RunFailed):
    """A hook of a callback raised. Names the callback, the hook and the episode."""


class Bound:
    """A callback class with its options: picklable, comparable, and called without arguments, as RLlib does."""

    def __init__(self, cls: type[Callback], options: Mapping[str, Any]):
        self.cls = cls
        self.options = dict(options)

    def __call__(self) -> Callback:
        return self.cls(**self.options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and (self.cls, self.options) == (other.cls, other.options)

    def __hash__(self) -> int:
        return hash(self.cls)

    def __repr__(self) -> str:
        return f"{self.cls.__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


class Callback(RLlibCallback):
    """Base of rlkit's callbacks: keyword options in `__init__`, hooks of RLlib plus `on_learn_on_batch`.

    State: override `get_state` / `set_state` for the driver's instance and `get_runner_state` /
    `set_runner_state` for those in the env runners. Both are saved and restored with every checkpoint of the
    algorithm, in a recipe's run and in a script of your own (`save_to_path`, `from_checkpoint`, Tune).

    A hook that raises ends the run with a `CallbackError`, also when it raised in a remote runner, where
    RLlib would restart the runner up to 1,000 times.
    """

    # hooks it can do without; only `on_learn_on_batch` is missing with some algorithms
    optional_hooks: tuple[str, ...] = ()

    _algorithm: Any = None
    _shared: tuple[State, bool] | None = None  # with whether evaluation runners get it too
    _failure: str | None = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        known = [name for name in dir(Callback) if name.startswith("on_") and name not in DEAD]
        for name, member in list(vars(cls).items()):
            if not name.startswith("on_") or not inspect.isfunction(member):
                continue
            if name in DEAD:
                raise TypeError(f"{cls.__name__}.{name}: RLlib's new API stack never calls it; {DEAD[name]}")
            if name not in known:
                raise TypeError(f"{cls.__name__}.{name}: RLlib has no such hook{did_you_mean(name, known)}")
            setattr(cls, name, _guarded(name, member))

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the options this callback takes."""
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    @classmethod
    def bind(cls, **options: Any) -> Bound:
        """Return what `config.callbacks([...])` takes: this class with these options.

        Raises:
            ValueError: an unknown option, or a value the class refuses; known here, before any process starts.
        """
        known = cls.option_names()
        for option in options:
            if option not in known:
                raise ValueError(
                    f"{cls.__name__} has no option {option!r}{did_you_mean(option, known)}; "
                    f"it takes {', '.join(known) or 'no options'}"
                )
        bound = Bound(cls, options)
        try:
            bound()
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error
        return bound

    # state

    def get_state(self) -> State:
        """State of the driver's instance."""
        return {}

    def set_state(self, state: State) -> None:
        """Put back what `get_state` returned."""

    def get_runner_state(self) -> State:
        """State of an instance in an env runner."""
        return {}

    def set_runner_state(self, state: State) -> None:
        """Take what the driver sent: a saved `get_runner_state`, or what was given to `share`."""

    def borrowed(self, state: State) -> State:
        """Return what a runner takes of another one's state when it has none of its own; here all of it."""
        return state

    def share(self, state: State, *, evaluation: bool = True) -> None:
        """Send `state` to `set_runner_state` of every runner's instance, now and to every runner restarted later."""
        self._shared = state, evaluation
        self.call_runners("set_runner_state", state, evaluation=evaluation)

    def call_runners(
        self, method: str, *args: Any, evaluation: bool = False, indices: Any = None
    ) -> list[Any]:
        """Call `method` of this callback's instance in every env runner; return the results, local runner first.

        Args:
            evaluation: include the evaluation runners.
            indices: remote runners to call; default all.
        """
        if self._algorithm is None:
            raise RuntimeError(
                f"{type(self).__name__}.call_runners works in the driver, from on_algorithm_init on"
            )
        call = self._calling(method, *args)
        groups = [self._algorithm.env_runner_group]
        if evaluation:
            groups.append(self._algorithm.eval_env_runner_group)
        results = []
        for group in groups:
            if group is not None:
                results += group.foreach_env_runner(
                    call, remote_worker_ids=indices, local_env_runner=indices is None
                )
        return results

    def _calling(self, method: str, *args: Any) -> Callable[[Any], Any]:
        """Return what calls `method` of this callback's instance in an env runner."""
        return functools.partial(_call, _position(self._algorithm, self), type(self).__name__, method, args)

    # hooks of every callback

    def on_algorithm_init(self, *, algorithm: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        """Driver, once, after the algorithm is set up and before a checkpoint is restored into it."""
        self._begin(algorithm=algorithm)

    def on_train_result(
        self, *, algorithm: Any, metrics_logger: Any = None, result: dict, **kwargs: Any
    ) -> None:
        """Driver, after every iteration. Change `result` to add to it."""
        self._raise_remote_failure(algorithm=algorithm, result=result)

    def on_env_runners_recreated(self, *args: Any, **kwargs: Any) -> None:
        """Driver, after RLlib restarted env runners that had died."""
        self._resend(**kwargs)

    def on_learn_on_batch(
        self, *, learner: Any, module_id: str, train_batch: Any, metrics_logger: Any, **kwargs: Any
    ) -> None:
        """Learner, for each module's minibatch, after the forward pass and before the loss.

        Args:
            learner: RLlib's Learner; `learner.module[module_id]` is the module.
            train_batch: the minibatch as a dict of tensors, (B, …); what is changed here reaches the loss.
            metrics_logger: the learner's; log under `(module_id, name)`.
        """

    # what happens before a hook of a subclass

    def _begin(self, *, algorithm: Any, **kwargs: Any) -> None:
        if self._algorithm is algorithm:
            return
        self._algorithm = algorithm
        own = type(self)
        if own.get_state is not Callback.get_state or own.get_runner_state is not Callback.get_runner_state:
            state.attach(algorithm, f"callback_{numbered_name(self, algorithm.callbacks)}", _Saved(self))
        if own.on_learn_on_batch is not Callback.on_learn_on_batch:
            self._install_in_learners(algorithm)

    def _install_in_learners(self, algorithm: Any) -> None:
        group = algorithm.learner_group
        if group is None:
            return
        if not getattr(algorithm.config.learner_class, "per_module_losses", True):
            if "on_learn_on_batch" in self.optional_hooks:
                return
            raise ValueError(
                f"{type(self).__name__}.on_learn_on_batch: {type(algorithm).__name__} never calls it, its learner has "
                f"one update for all modules, expected a loss of each; use on_sample_end or on_train_result, or "
                f'write `optional_hooks = ("on_learn_on_batch",)` in the class if it can do without'
            )
        if group.is_local:
            group.foreach_learner(functools.partial(rllib.hook_learner, hook=self.on_learn_on_batch))
        else:
            make = _factories(algorithm.config)[_position(algorithm, self)]
            group.foreach_learner(functools.partial(_hook_remote_learner, make=make))

    def _raise_remote_failure(self, *, algorithm: Any, result: dict, **kwargs: Any) -> None:
        sampled = [result.get("env_runners"), (result.get("evaluation") or {}).get("env_runners")]
        if self._algorithm is None or not any((r or {}).get(ERRORS) for r in sampled):
            return
        for failure in self.call_runners("_get_failure", evaluation=True):
            if failure:
                raise CallbackError(failure)

    def _get_failure(self) -> str | None:
        return self._failure

    def _resend(
        self, *, env_runner_group: Any, env_runner_indices: Sequence[int], is_evaluation: bool, **kwargs: Any
    ) -> None:
        if self._shared is None or self._algorithm is None:
            return
        shared, evaluation = self._shared
        if evaluation or not is_evaluation:
            call, indices = self._calling("set_runner_state", shared), list(env_runner_indices)
            env_runner_group.foreach_env_runner(call, remote_worker_ids=indices, local_env_runner=False)


_BEFORE: dict[str, Callable[..., None]] = {
    "on_algorithm_init": Callback._begin,
    "on_train_result": Callback._raise_remote_failure,
    "on_env_runners_recreated": Callback._resend,
}


class _Saved:
    """The state of a callback in the driver and in its runners, as one component of a checkpoint."""

    def __init__(self, callback: Callback):
        self.callback = callback

    def get_state(self) -> State:
        own = type(self.callback)
        saved: State = {"driver": self.callback.get_state()}
        if own.get_runner_state is not Callback.get_runner_state:
            saved["runners"] = self.callback.call_runners("_numbered_state")
        return saved

    def set_state(self, state: State) -> None:
        self.callback.set_state(state["driver"])
        if state.get("runners"):
            self.callback.call_runners("_take_numbered", dict(state["runners"]))


def _numbered_state(self: Callback, env_runner: Any) -> tuple[int, State]:
    return env_runner.worker_index or 0, self.get_runner_state()


def _take_numbered(self: Callback, states: dict[int, State], env_runner: Any) -> None:
    """Give a runner the state of its own number. One that samples and has none takes one of those that sampled."""
    number = env_runner.worker_index or 0
    # the local runner does not sample beside remote ones
    sampled = {n: kept for n, kept in states.items() if kept and (n or len(states) == 1)}
    samples = number > 0 or not env_runner.config.num_env_runners
    if number in sampled or not (samples and sampled):
        self.set_runner_state(states.get(number, {}))
    else:
        self.set_runner_state(self.borrowed(sampled[sorted(sampled)[number % len(sampled)]]))


_WITH_RUNNER: dict[str, Callable[..., Any]] = {
    "_numbered_state": _numbered_state,
    "_take_numbered": _take_numbered,
}


def _call(position: int, name: str, method: str, args: tuple[Any, ...], env_runner: Any) -> Any:
    """Runs in an env runner: find the instance and call it."""
    instances = rllib.runner_callbacks(env_runner)
    if position >= len(instances) or type(instances[position]).__name__ != name:
        return None  # evaluation runners may have callbacks of their own
    if method in _WITH_RUNNER:
        return _WITH_RUNNER[method](instances[position], *args, env_runner)
    return getattr(instances[position], method)(*args)


def _hook_remote_learner(learner: Any, *, make: Callable[[], Callback]) -> None:
    rllib.hook_learner(learner, hook=make().on_learn_on_batch)


def _factories(config: Any) -> list[Callable[[], Any]]:
    given = config.callbacks_class
    return list(given) if isinstance(given, list | tuple) else [given]


def _position(algorithm: Any, callback: Callback) -> int:
    return next(i for i, known in enumerate(algorithm.callbacks) if known is callback)


def numbered_name(callback: Callback, among: Sequence[Any]) -> str:
    """Return `<Class>`, from the second of its class on `<Class>_2` and so on, in the order of `config.callbacks`."""
    own = type(callback).__name__
    same = [known for known in among if type(known).__name__ == own]
    number = next((i for i, known in enumerate(same, 1) if known is callback), 1)
    return own if number == 1 else f"{own}_{number}"


def _guarded(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a hook so that what it raises says which callback, hook and episode it was."""
    before = _BEFORE.get(hook)

    @functools.wraps(function)
    def guarded(self: Callback, **kwargs: Any) -> Any:  # RLlib calls every hook with keywords only
        if self._failure is not None:
            return
        if before is not None:
            before(self, **kwargs)
        try:
            function(self, **kwargs)
        except Exception as error:
            _report(self, hook, error, kwargs)

    return guarded


def _report(callback: Callback, hook: str, error: Exception, kwargs: Mapping[str, Any]) -> None:
    """Raise, or in a remote runner remember for the driver: raising there kills the actor and RLlib restarts it."""
    if isinstance(error, CallbackError):
        failure = error
    else:
        where = _where(kwargs)
        failure = CallbackError(
            f"callback {type(callback).__name__} failed in {hook}{where}: {type(error).__name__}: {error}"
        )
    env_runner = kwargs.get("env_runner")
    if env_runner is None or not env_runner.worker_index:
        if failure is error:
            raise failure
        raise failure from error
    callback._failure = str(failure)
    env_runner.metrics.log_value(ERRORS, 1, reduce="sum")


def _where(kwargs: Mapping[str, Any]) -> str:
    parts = []
    if "episode" in kwargs:
        parts.append(f"episode {kwargs['episode'].id_}")
    if "env_index" in kwargs:
        parts.append(f"environment {kwargs['env_index']}")
    runner = kwargs.get("env_runner")
    if runner is not None and runner.worker_index:
        parts.append(f"env runner {runner.worker_index}")
    if "module_id" in kwargs:
        parts.append(f"module {kwargs['module_id']}")
    return f" ({', '.join(parts)})" if parts else ""
