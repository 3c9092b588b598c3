"""What recipes must know of DRON."""

from __future__ import annotations

from pydantic import Field

from rlkit.algos.options import Options, Positive
from rlkit.algos.rules import Rules


class DRONOptions(Options):
    """Options of `DRONConfig.training` that have a range."""

    hidden: Positive = 50
    experts: Positive = 3
    clock_horizon: Positive = 100
    history: int = Field(default=0, ge=0)
    encoder_size: Positive = 32
    supervise_weight: float = Field(default=1 / 64, ge=0)
    opponent_types: Positive = 2


DRON = Rules(options=DRONOptions)
