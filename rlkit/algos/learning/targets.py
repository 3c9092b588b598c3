"""Target networks: how the tensors of a module move those of its targets."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Targets:
    """A module's tensors and those of its targets beside them. `counts`: pairs of whole numbers, which have no mean."""

    mains: list[torch.Tensor] = field(default_factory=list)
    targets: list[torch.Tensor] = field(default_factory=list)
    counts: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, main: torch.Tensor, target: torch.Tensor) -> None:
        if target.is_floating_point():
            self.mains.append(main)
            self.targets.append(target)
        else:
            self.counts.append((main, target))

    def move(self, tau: float) -> None:
        """θ' ← τ θ + (1 - τ) θ'; counts, such as a BatchNorm's of its batches, are copied."""
        with torch.no_grad():
            if tau == 1.0:
                torch._foreach_copy_(self.targets, self.mains)
            else:
                torch._foreach_mul_(self.targets, 1.0 - tau)
                torch._foreach_add_(self.targets, self.mains, alpha=tau)
            for main, target in self.counts:
                target.copy_(main)
