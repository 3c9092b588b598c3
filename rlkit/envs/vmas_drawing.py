"""A top view of one copy of a VMAS world, drawn with pygame on a surface in memory: no window, no EGL."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pygame
import torch

SIZE = 500  # pixels on the longer side
MARGIN = 0.15  # of the world, around everything that is drawn


def draw(env: Any, index: int) -> np.ndarray:
    """Draw copy `index` of a `vmas` Environment: (SIZE, SIZE, 3) uint8, y upwards, every entity in view."""
    entities = [entity for entity in env.world.entities if entity.state.pos is not None]
    reach = max(
        [env.scenario.viewer_zoom]
        + [
            float(entity.state.pos[index].abs().max()) + entity.shape.circumscribed_radius()
            for entity in entities
            if torch.isfinite(entity.state.pos[index]).all()
        ]
    )
    scale = SIZE / (2 * reach * (1 + MARGIN))
    surface = pygame.Surface((SIZE, SIZE))
    surface.fill((255, 255, 255))
    for entity in entities:
        position = entity.state.pos[index]
        if not bool(torch.isfinite(position).all()):
            continue
        x, y = (float(part) * scale + SIZE / 2 for part in position)
        color = (
            entity.color[index]
            if isinstance(entity.color, torch.Tensor) and entity.color.dim() > 1
            else entity.color
        )
        rgb = [min(255, max(0, int(255 * float(part)))) for part in color[:3]]
        _shape(surface, entity.shape, x, SIZE - y, -float(entity.state.rot[index]), scale, rgb)
    return np.transpose(pygame.surfarray.array3d(surface), (1, 0, 2)).copy()


def _shape(surface: Any, shape: Any, x: float, y: float, angle: float, scale: float, rgb: list[int]) -> None:
    """Draw one circle, box or line, rotated by `angle` radians about its centre."""
    kind = type(shape).__name__
    if kind == "Sphere":
        pygame.draw.circle(surface, rgb, (x, y), max(2.0, shape.radius * scale))
        return
    half_length, half_width = shape.length * scale / 2, (0.0 if kind == "Line" else shape.width * scale / 2)
    cos, sin = math.cos(angle), math.sin(angle)

    def turned(a: float, b: float) -> tuple[float, float]:
        return x + a * cos - b * sin, y + a * sin + b * cos

    if kind == "Line":
        pygame.draw.line(surface, rgb, turned(-half_length, 0), turned(half_length, 0), 3)
        return
    corners = [
        (-half_length, -half_width),
        (half_length, -half_width),
        (half_length, half_width),
        (-half_length, half_width),
    ]
    pygame.draw.polygon(surface, rgb, [turned(*corner) for corner in corners], 2 if shape.hollow else 0)
