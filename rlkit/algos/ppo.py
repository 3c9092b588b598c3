"""PPO: RLlib's algorithm, module, loss and configuration, on a training step of whole arrays.

Paper: Schulman et al., Proximal Policy Optimization Algorithms, arXiv 1707.06347; advantages: arXiv 1506.02438.
Reference code: ray/rllib/algorithms/ppo (2.60). Every option of RLlib's PPO keeps its name, meaning and default.

    fragments of all env runners -> values of all rows -> advantages -> epochs of shuffled minibatches -> weights

Given the same batch and weights, one minibatch update equals that of RLlib's `PPOTorchLearner` to 1e-6, and
advantages and value targets equal those of its GAE connector (tests/test_ppo.py). Deviations:

1. The batch holds steps. RLlib's also holds one artificial row per fragment, masked out of the loss, so that its
   minibatches have a few rows less than `minibatch_size`, and standardises advantages over these rows too.
2. Every epoch is shuffled; RLlib's first one goes through the episodes in their order. `shuffle_batch_per_epoch:
   false` shuffles none.
3. Values are logged for the last minibatch of a call. From its KL divergence `kl_coeff` is adapted, as in RLlib. It is
   logged without `use_kl_loss` too, where RLlib logs 0.
4. `kl_coeff` is in the checkpoint; RLlib starts from the configured one again. Schedules are evaluated when a call
   begins, so the first one after a resume has its right values too.
5. NaN or inf in rewards, values, advantages, losses or gradients stops the run before a weight changes and is named.
6. Discrete and Gaussian policies compute log-probabilities without `torch.distributions`. Terms of the loss whose
   coefficient is 0 are computed for the log only. A KL divergence from an action of probability exactly 0 is a large
   number, not inf.

New words of `training`, each off by default: `clip_param` as a schedule, `standardize_advantages`, `stop_kl`,
`vf_clip_range`, `normalize_observations`, `normalize_rewards` (see `PPOConfig.training`).

Legend: B rows of a minibatch, A action numbers; ratio is π(a|s) / π_old(a|s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.schedules.scheduler import Scheduler
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from rlkit.algos.centralised.options import CENTRALIZED
from rlkit.algos.onpolicy.distributions import distribution
from rlkit.algos.onpolicy.learner import VALUES, EnoughUpdates, OnPolicyLearner
from rlkit.algos.onpolicy.step import Fragments, OnPolicy
from rlkit.algos.onpolicy.team_config import TeamCritics
from rlkit.algos.onpolicy.team_learner import TeamLearner
from rlkit.algos.onpolicy.team_module import Team
from rlkit.algos.ppo_rules import OF_ALL, ON_COLUMNS
from rlkit.algos.rules import refuse_overrides
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.algos.sampling.episode_runner import default_runner
from rlkit.algos.sampling.normalise import NormalizeObservations
from rlkit.algos.sampling.team_fragment import TeamFragment, of_episodes
from rlkit.algos.sampling.team_runner import TeamEnvRunner
from rlkit.errors import RunFailed, UsageError
from rlkit.replay.episodes import joint_columns

STANDARDIZED_OVER = ("batch", "minibatch")
CLIP_PARAM = "curr_clip_param"


# The loss ------------------------------------------------------------------------------------------------


def surrogate(logp: Tensor, old_logp: Tensor, advantages: Tensor, clip_param: float) -> Tensor:
    """Return min(ratio A, clip(ratio, 1 - ε, 1 + ε) A), to be maximised, (B,): equation 7 of the paper."""
    ratio = torch.exp(logp - old_logp)
    return torch.min(advantages * ratio, advantages * torch.clamp(ratio, 1 - clip_param, 1 + clip_param))


def value_loss(
    values: Tensor, targets: Tensor, vf_clip_param: float, old: Tensor | None = None, clip_range: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the squared error limited to `vf_clip_param` (RLlib's), and as it is, (B,) each.

    Args:
        values, targets: (B,).
        vf_clip_param: largest squared error; where it is larger, a row has no gradient.
        old: (B,), V before the updates. If given, the error is the larger one of V's and of V's kept within
            `clip_range` of `old` (OpenAI baselines' ppo2; detail 9 of Huang et al., The 37 Implementation Details of
            PPO, 2022).
    """
    error = torch.pow(values - targets, 2.0)
    if old is not None:
        near = old + torch.clamp(values - old, -clip_range, clip_range)
        error = torch.max(error, torch.pow(near - targets, 2.0))
    return torch.clamp(error, max=vf_clip_param), error


# Configuration -------------------------------------------------------------------------------------------


class PPOConfig(TeamCritics, RLlibPPOConfig):
    """RLlib's PPOConfig for the columnar PPO."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or PPO)
        self.standardize_advantages = "batch"
        self.stop_kl: float | None = None
        self.vf_clip_range: float | None = None
        self.normalize_observations = False
        self.normalize_rewards = False
        self.overlap_sampling = False
        self.array_fragments = True  # what `ArrayEnvRunner` and `TeamEnvRunner` return

    def training(
        self,
        *,
        clip_param: float | list[list[float]] = NotProvided,
        standardize_advantages: Literal["batch", "minibatch"] = NotProvided,
        stop_kl: float | None = NotProvided,
        vf_clip_range: float | None = NotProvided,
        normalize_observations: bool = NotProvided,
        normalize_rewards: bool = NotProvided,
        overlap_sampling: bool = NotProvided,
        critic: Literal["centralized", "local"] | dict[str, Literal["centralized", "local"]] = NotProvided,
        critic_input: Literal["observations", "state"] = NotProvided,
        normalize_values: Literal["running", "popart"] | None = NotProvided,
        **kwargs: Any,
    ) -> PPOConfig:
        """Set the training options.

        Args:
            clip_param: The clip range ε of the probability ratio, or a schedule [[0, ε], [env steps, ε], …], linear
                between its points. The paper anneals it on Atari (its table 5).
            standardize_advantages: Over the whole `batch` (RLlib), or over each `minibatch` (Stable-Baselines3,
                CleanRL, OpenAI baselines).
            stop_kl: Ends the updates of a training step before the first minibatch whose KL divergence exceeds it
                (Spinning Up's and Stable-Baselines3's `target_kl`, which both multiply by 1.5).
            vf_clip_range: Keeps new values within this range of the old ones in the value loss (OpenAI baselines).
            normalize_observations: The module sees observations in units of their running mean and deviation, clipped
                to ±10 (`rlkit.algos.sampling.normalise`); one agent, a Box of floats.
            normalize_rewards: The learner sees rewards in units of the running deviation of discounted returns
                (`rlkit.algos.onpolicy.reward_norm`); one agent.
            overlap_sampling: Remote env runners sample the next batch while the learner updates, with weights one
                training step old.
            critic: What value functions see: their own agent's observation (`local`), or the whole team
                (`centralized`, MAPPO); or one word per policy, `"*"` for all others.
            critic_input: A centralised critic reads all agents' `observations`, or the environment's global `state`.
            normalize_values: Centralised critics put out values in units of a `running` mean and deviation of their
                targets, or the same with their last layer kept in step (`popart`); null: as they are.
            **kwargs: Those of RLlib's PPO.
        """
        super().training(**kwargs)
        self.set_critics(critic, critic_input, normalize_values)
        if clip_param is not NotProvided:
            self.clip_param = clip_param
        if standardize_advantages is not NotProvided:
            self.standardize_advantages = standardize_advantages
        if stop_kl is not NotProvided:
            self.stop_kl = stop_kl
        if vf_clip_range is not NotProvided:
            self.vf_clip_range = vf_clip_range
        if overlap_sampling is not NotProvided:
            self.overlap_sampling = overlap_sampling
        if normalize_observations is not NotProvided:
            self.normalize_observations = normalize_observations
        if normalize_rewards is not NotProvided:
            self.normalize_rewards = normalize_rewards
        return self

    def validate(self) -> None:
        """Check what RLlib's own `validate` lets pass.

        Raises:
            ValueError: a setting that cannot work.
        """
        refuse_overrides(self.algorithm_config_overrides_per_module, OF_ALL)
        if getattr(self, "env_runner_cls", None) is None:
            arrays = TeamEnvRunner if self.is_multi_agent else ArrayEnvRunner
            self.env_runner_cls = default_runner(self) if self.is_multi_agent and self.output else arrays
        self.check_critics()
        if self.in_evaluation:
            self.array_fragments = False
        super().validate()
        Scheduler.validate(
            fixed_value_or_schedule=self.clip_param, setting_name="clip_param", description="clip parameter"
        )
        if self.standardize_advantages not in STANDARDIZED_OVER:
            raise ValueError(
                f"standardize_advantages: got {self.standardize_advantages!r}, expected one of "
                f"{', '.join(STANDARDIZED_OVER)}"
            )
        for name in ("stop_kl", "vf_clip_range"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: got {value}, expected a positive number, or null for none")

        if self.overlap_sampling and not self.num_env_runners and not self.in_evaluation:
            raise ValueError(
                "overlap_sampling: got true with num_env_runners: 0, expected remote env runners; write "
                "num_env_runners: 1 or more, or leave it out"
            )
        for name in ("normalize_observations", "normalize_rewards"):
            if getattr(self, name) and self.is_multi_agent:
                raise ValueError(
                    f"{name}: got true for several agents, expected one agent; leave it out, and write "
                    "normalize_values: running for a centralised critic"
                )
        for name in ON_COLUMNS if self.num_learners > 1 else ():
            if value := self.asked(name):
                raise ValueError(
                    f"{name}: got {value} with num_learners: {self.num_learners}, expected one learner, since several "
                    f"learn through RLlib's pipeline; write num_learners: 0 or 1, or leave {name} out"
                )

    def asked(self, name: str) -> Any:
        """Return what a word is set to, for all modules or else for one of them."""
        overrides = self.algorithm_config_overrides_per_module.values()
        return getattr(self, name) or next((own[name] for own in overrides if own.get(name)), None)

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        if self.normalize_observations:
            pipeline.prepend(NormalizeObservations())
        return pipeline

    def get_default_learner_class(self) -> Any:
        return PPOLearner


# Learner -------------------------------------------------------------------------------------------------


class PPOLearner(TeamLearner, OnPolicyLearner, PPOTorchLearner):
    """RLlib's PPO learner, updated from columns."""

    def build(self) -> None:
        super().build()
        self.clip_params: dict[str, Scheduler] = {}

    def compute_loss_for_module(  # type: ignore[override]
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Return RLlib's PPO loss, a scalar; masked rows (`LOSS_MASK`) of RLlib's own batches are left out."""
        module = self.module[module_id].unwrapped()
        wanted = self.logs_this_update
        policy = distribution(module.get_train_action_dist_cls())(fwd_out[Columns.ACTION_DIST_INPUTS])
        advantages, mask = batch[Postprocessing.ADVANTAGES], batch.get(Columns.LOSS_MASK)
        steps = ... if mask is None else mask
        if config.standardize_advantages == "minibatch":
            chosen = advantages if mask is None else advantages[mask]
            if chosen.numel() > 1:  # one row has no deviation
                advantages = (advantages - chosen.mean()) / (chosen.std() + 1e-8)

        def mean(values: Tensor) -> Tensor:
            return values.mean() if mask is None else values[mask].sum() / mask.sum()

        clip_param = self.clip_param(module_id)
        gain = surrogate(
            policy.logp(batch[Columns.ACTIONS]), batch[Columns.ACTION_LOGP], advantages, clip_param
        )
        loss = -gain
        values = vf_loss = vf_error = zero = torch.zeros((), device=gain.device)
        if config.use_critic:
            values = module.compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
            targets = batch[Postprocessing.VALUE_TARGETS]
            old = batch[VALUES] if config.vf_clip_range else None
            vf_loss, vf_error = value_loss(
                values, targets, config.vf_clip_param, old, config.vf_clip_range or 0
            )
            loss = loss + config.vf_loss_coeff * vf_loss
        entropy_coeff = float(self.entropy_coeff_schedulers_per_module[module_id].get_current_value())
        entropy = policy.entropy() if entropy_coeff or wanted else zero
        if entropy_coeff:
            loss = loss - entropy_coeff * entropy
        total, kl = mean(loss), zero
        if self._gate is None and not torch.isfinite(total):  # RLlib's pipeline would make a number of it
            raise RunFailed(
                f"the loss of module {module_id!r} is {total.item()}, expected a finite number. No weight was changed; "
                "lower the learning rate, clip gradients (grad_clip), or scale rewards and observations"
            )
        kl_coeff = float(self.curr_kl_coeffs_per_module[module_id]) if config.use_kl_loss else 0.0
        if kl_coeff or wanted:
            before = distribution(module.get_exploration_action_dist_cls())
            kl = mean(before(batch[Columns.ACTION_DIST_INPUTS]).kl(policy))
        if kl_coeff:
            total = total + kl_coeff * kl
        if wanted:
            self.metrics.log_dict(
                {
                    POLICY_LOSS_KEY: -mean(gain).detach(),
                    VF_LOSS_KEY: mean(vf_loss).detach() if config.use_critic else zero,
                    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: mean(vf_error).detach()
                    if config.use_critic
                    else zero,
                    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained_variance(
                        batch[Postprocessing.VALUE_TARGETS][steps], values.detach().expand_as(gain)[steps]
                    ),
                    ENTROPY_KEY: mean(entropy).detach(),
                    LEARNER_RESULTS_KL_KEY: kl.detach(),
                },
                key=module_id,
                window=1,
            )
        if config.stop_kl is not None and bool(kl > config.stop_kl):
            raise EnoughUpdates
        return total

    def clip_param(self, module_id: str) -> float:
        """Return ε of a module, as its schedule has it at the begin of this call."""
        scheduler = self.clip_params.get(module_id)
        if scheduler is None:
            given = self.config.get_config_for_module(module_id).clip_param
            scheduler = self.clip_params[module_id] = Scheduler(fixed_value_or_schedule=given)
        return float(scheduler.get_current_value())

    def set_schedules(self, timestep: float) -> None:
        """Set clip range and entropy coefficient to what they are after `timestep` env steps."""
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            self.clip_param(module_id)
            self.clip_params[module_id].update(timestep)
            self.entropy_coeff_schedulers_per_module[module_id].update(timestep)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Adapt `kl_coeff` to the KL divergence of the last minibatch, and move the schedules on."""
        PPOTorchLearner.after_gradient_based_update(self, timesteps=timesteps)
        self.count_updates()
        self.set_schedules(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        for module_id in self.module.keys():  # noqa: SIM118
            self.metrics.log_value((module_id, CLIP_PARAM), self.clip_param(module_id), window=1)


# Algorithm -----------------------------------------------------------------------------------------------


class PPO(OnPolicy, RLlibPPO):
    """RLlib's PPO on columns."""

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        return PPOConfig()

    def why_rllib(self) -> str | None:
        reason = super().why_rllib()
        columns = {"critic": CENTRALIZED if self.config.judges_team else None}
        columns |= {name: self.config.asked(name) for name in ON_COLUMNS}
        for word, given in columns.items():
            if reason and given:
                raise UsageError(
                    f"{word}: {str(given).lower()} learns from columns, and RLlib's learner pipeline is needed because "
                    f"{reason}; remove one of them"
                )
        return reason

    def by_module(self, samples: Sequence[Any]) -> Fragments:
        """As `OnPolicy`'s; modules with a centralised critic learn from the team's rows."""
        if not self.config.judges_team:
            return super().by_module(samples)
        team = next(iter(self.learner_group.foreach_learner(_team_of))).get()
        episodes = [sample for sample in samples if not isinstance(sample, TeamFragment)]
        teams = [sample for sample in samples if isinstance(sample, TeamFragment)]
        if episodes:
            seen, done = ({a: pair[i] for a, pair in team.spaces.items()} for i in (0, 1))
            columns = joint_columns(list(team.module_of), seen, done)
            teams.append(of_episodes(episodes, team.module_of, *columns))
        local = super().by_module(samples)
        found = {
            m: [t for t in teams if t.acted[..., t.places(m)].any()]
            if self.config.critic_of(m) == CENTRALIZED
            else local.get(m, [])
            for m in dict.fromkeys(team.module_of.values())
        }
        return {module: parts for module, parts in found.items() if parts}  # somebody it plays has acted


def _team_of(learner: Any) -> Team:
    """Return the team that a learner's centralised critics know."""
    modules = [learner.module[m].unwrapped() for m in learner.module.keys()]  # noqa: SIM118 (no dict)
    return next(module.options["team"] for module in modules if getattr(module, "judges_team", False))
