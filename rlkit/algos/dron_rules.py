"""What recipes must know of DRON."""

from __future__ import annotations

from pydantic import BaseModel

from rlkit.algos.fields import number, whole
from rlkit.algos.rules import Rules


class DRONOptions(BaseModel):
    """Options of `DRONConfig.training` that have a range."""

    hidden: whole(ge=1) = 50  # type: ignore[valid-type]
    experts: whole(ge=1) = 3  # type: ignore[valid-type]
    clock_horizon: whole(ge=1) = 100  # type: ignore[valid-type]
    history: whole(ge=0) = 0  # type: ignore[valid-type]
    encoder_size: whole(ge=1) = 32  # type: ignore[valid-type]
    supervise_weight: number(ge=0) = 1 / 64  # type: ignore[valid-type]
    opponent_types: whole(ge=1) = 2  # type: ignore[valid-type]


DRON = Rules(options=DRONOptions)
