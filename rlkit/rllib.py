"""The one place that touches private names of RLlib. Each entry says which version it was checked against and why.

Checked against ray 2.60.0.
"""

from __future__ import annotations

RAY_VERSION = "2.60"
