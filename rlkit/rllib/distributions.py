"""Action distributions."""

from __future__ import annotations


def squash_greedy_actions() -> None:
    """Let greedy actions of RLlib's squashed Gaussian be squashed, in this process.

    `TorchSquashedGaussian.to_deterministic` (core/distribution/torch/torch_distribution.py, 2.60) returns the mean of
    the Gaussian itself, which connectors then clip: tanh is left out, and a mean of 1 acts at the bound in place of .76
    of the way. The old stack squashed it, and so does the paper (Haarnoja et al. 2018). It concerns SAC, TQC and CQL.
    """
    from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic, TorchSquashedGaussian

    def to_deterministic(self: TorchSquashedGaussian) -> TorchDeterministic:
        return TorchDeterministic(loc=self._squash(self.loc))

    TorchSquashedGaussian.to_deterministic = to_deterministic
