"""Data sets of Minari (https://minari.farama.org) as `Episodes`.

`data: minari/<id>` names one by its public id: what is on this machine is read (`MINARI_DATASETS_PATH`, else
~/.minari), what is not is fetched once by Minari. `data: <folder>` reads a data set where it lies, by its
`data/metadata.json` or `metadata.json`. Minari's files are HDF5, Arrow and JSON (0.5); nothing in them is unpickled.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.errors import UsageError
from rlkit.replay.dataset import ACTIONS, OBSERVATIONS, Episodes

PREFIX = "minari/"
PIP = "pip install 'rlkit-rllib[offline]'"
NEEDS = f"reading Minari data sets needs the packages minari and h5py: {PIP}"


def installed() -> bool:
    """Whether Minari and its reader of HDF5 can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("minari", "h5py"))


def is_folder(path: str | Path) -> bool:
    """Whether a folder holds one of Minari's data sets."""
    return _data(Path(path)) is not None


def _data(folder: Path) -> Path | None:
    return next((f for f in (folder, folder / "data") if (f / "metadata.json").is_file()), None)


def read_minari(source: str) -> Episodes:
    """Read a data set by `minari/<id>` or folder.

    Raises:
        UsageError: Minari is not installed, or it can neither find nor fetch the data set; says why.
    """
    if not installed():
        raise UsageError(f"data {source}: {NEEDS}")
    import minari

    folder = _data(Path(source))
    try:
        if folder is not None:
            dataset = minari.MinariDataset(folder)
        else:
            dataset = minari.load_dataset(source.removeprefix(PREFIX), download=True)
        return _episodes(source, dataset)
    except UsageError:
        raise
    except Exception as error:  # Minari passes on what its store, HDF5 and the network raise
        raise UsageError(
            f"data {source}: Minari can neither find it on this machine nor fetch it ({type(error).__name__}: {error})"
        ) from error


def _episodes(source: str, dataset: Any) -> Episodes:
    columns: dict[str, list[np.ndarray]] = {}
    lengths, ends, rewards = [], [], []
    for episode in dataset.iterate_episodes():
        steps = len(episode.rewards)
        if not steps:
            continue
        lengths.append(steps)
        terminated = bool(episode.terminations[-1])
        # The last episode of a collection may have been left in the middle.
        ends.append((terminated, bool(episode.truncations[-1]) or not terminated))
        rewards.append(np.asarray(episode.rewards, np.float64))
        for name, values in ((OBSERVATIONS, episode.observations), (ACTIONS, episode.actions)):
            _collect(name, values, columns)
    if not lengths:
        raise UsageError(f"data {source} has no episodes")
    ended = np.asarray(ends, bool)
    return Episodes(
        source,
        np.asarray(lengths),
        ended[:, 0],
        ended[:, 1],
        np.concatenate(rewards),
        {name: np.concatenate(parts) for name, parts in columns.items()},
        {"env": getattr(dataset.env_spec, "id", None)},
    )


def _collect(name: str, values: Any, columns: dict[str, list[np.ndarray]]) -> None:
    if isinstance(values, Mapping):
        for key, part in values.items():
            _collect(f"{name}/{key}", part, columns)
    elif isinstance(values, tuple):
        for k, part in enumerate(values):
            _collect(f"{name}/{k}", part, columns)
    else:
        columns.setdefault(name, []).append(np.asarray(values))
