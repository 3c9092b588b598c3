"""The options of MADDPG and MATD3: defaults, ranges, documentation and rules, without ray and torch.

Defaults are those of the paper and its code where these still learn: γ .95, τ .01, batch 1024, gradients clipped at
.5 per variable, logits regularised by 1e-3. Learning rates are 1e-3 (actors) and 2e-3 (critics), an update every 50
env steps, and Box actions get Gaussian noise from .5 down to .05, as in the reimplementations that learn fastest on
today's environments; the paper has .01, 100 and a sampled Gaussian.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rlkit.algos.options import Options, points_in

CENTRALIZED, LOCAL = "centralized", "local"

Critic = Literal["centralized", "local"]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Points = list[list[float]]
# a number, or a schedule [[env step, value], ...]; a learning rate may end at 0
Rate = Above | Annotated[Points, AfterValidator(points_in(least=0))]
Noise = Weight | Annotated[Points, AfterValidator(points_in(least=0))]
Temperature = Above | Annotated[Points, AfterValidator(points_in(above=0))]


class MADDPGOptions(Options):
    """What `MADDPGConfig.training` takes beside the options it hands on to RLlib."""

    # RLlib's own options, here for MADDPG's defaults and rules
    rllibs: ClassVar = {"gamma", "lr", "grad_clip", "grad_clip_by", "train_batch_size_per_learner"}
    # options that `algorithm_config_overrides_per_module` may give to one policy; all others hold for everybody
    overridden: ClassVar = {"actor_lr", "critic_lr", "grad_clip", "grad_clip_by", "tau"}
    # options that take one value, or one per policy
    per_policy: ClassVar = ("critic", "ensemble_size")

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95
    """discount of one step."""
    lr: float | Points | None = None
    """refused; write actor_lr and critic_lr."""
    actor_lr: Rate = 1e-3
    """learning rate of the actors, or a schedule [[env step, value], ...]."""
    critic_lr: Rate = 2e-3
    """learning rate of the critics, or a schedule."""
    grad_clip: Above | None = 0.5
    """bound of gradients, or null."""
    grad_clip_by: Literal["norm", "global_norm", "value"] = "norm"
    """`norm` clips every variable of every network, as the authors' code does, `global_norm` each network, `value` each
    entry."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.01
    """share of the new weights in the targets at each update."""
    train_batch_size_per_learner: Count = 1024
    """rows of an update."""
    n_step: Count | list[Count] = 1
    """steps to the bootstrap, or a range to draw from."""
    training_intensity: Above | None = 20.48
    """rows drawn per env step; 20.48 is a batch of 1024 every 50 env steps."""
    num_steps_sampled_before_learning_starts: Annotated[int, Field(ge=0)] = 2000
    """env steps before the first update."""
    replay_buffer_config: dict = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}  # noqa: RUF012 (pydantic copies)
    """type, capacity (joint rows), alpha, beta."""
    store_buffer_in_checkpoints: bool = True
    """keep the buffer in checkpoints."""
    critic: Critic | dict[str, Critic] = "centralized"
    """what critics see: `centralized`, everybody's observations and actions, or `local`, their own agent's (independent
    DDPG); or one word per policy, `"*"` for all others."""
    twin_q: bool = False
    """two critics, and the smaller value as target (TD3)."""
    policy_delay: Count = 1
    """critic updates per update of actors and targets (TD3: 2)."""
    target_noise: Weight = 0.0
    """standard deviation of noise on the target actors' Box actions, in half ranges (TD3: .2)."""
    target_noise_clip: Weight = 0.5
    """bound of that noise."""
    exploration_noise: Noise = [[0, 0.5], [150_000, 0.05]]  # noqa: RUF012
    """standard deviation of the Gaussian noise on Box actions, in half ranges; a number or a schedule in env steps. An
    `exploration` of its own takes its place."""
    gumbel: Literal["hard", "soft"] = "hard"
    """`hard` gives the critics straight-through one-hot actions of Discrete policies, `soft` relaxed ones."""
    temperature: Temperature = 1.0
    """of the Gumbel-softmax; a number or a schedule in env steps."""
    logit_regularisation: Weight = 1e-3
    """weight of the mean squared logits in the actors' loss."""
    infer_policies: bool = False
    """every agent models the others, and its critic's targets use the models (paper, 4.2)."""
    infer_entropy_coeff: Weight = 1e-3
    """weight of the models' entropy."""
    infer_batch_size: Count = 100
    """latest rows that a model learns from in each update."""
    ensemble_size: Count | dict[str, Count] = 1
    """sub-policies per agent, one of them drawn per team and episode (paper, 4.3); or one number per policy, `"*"` for
    all others."""
    teams: dict[str, list[str]] | None = None
    """{team: [globs of agents]} that draw together; default: agents whose names differ in their number."""
    standardize_rewards: bool = False
    """learn from (reward - mean) / deviation, running statistics of each agent."""
    normalize_observations: bool = False
    """the same for observations; the statistics are part of the policy."""
    burn_in_len: Annotated[int, Field(ge=0)] = 0
    """with a recurrent model, first steps of a sequence that only warm the state up."""
    stack_agents: bool = True
    """compute policies of equal shape as one; false: one after the other."""

    @field_validator("lr")
    @classmethod
    def _no_common_rate(cls, value: Any) -> None:
        if value is not None:
            raise ValueError(f"got {value}; MADDPG has two learning rates, write actor_lr and critic_lr")

    @field_validator("n_step")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if isinstance(value, list) and (len(value) != 2 or value[0] > value[1]):
            raise ValueError(f"got {value}, expected a whole number or a range [least, most]")
        return value

    @model_validator(mode="after")
    def _together(self) -> MADDPGOptions:
        if self.twin_q and self.tau == 1.0:
            raise ValueError(
                "twin_q: got twin_q True with tau 1.0, where targets are the critics themselves and the smaller of two "
                "values means nothing; write a tau below 1, or twin_q: false"
            )
        sizes = self.ensemble_size
        prioritized = "Prioritized" in str(self.replay_buffer_config.get("type"))
        for name, given in (("infer_policies", self.infer_policies), ("prioritized replay", prioritized)):
            if given and max(sizes.values() if isinstance(sizes, dict) else [sizes]) > 1:
                raise ValueError(f"ensemble_size: got {sizes} together with {name}; choose one of them")
        return self
