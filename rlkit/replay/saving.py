"""Replay buffers in a checkpoint: one `.npy` file per array and one JSON file, no pickles of the data.

`SavedReplay` is a component for `rlkit.state.attach`. RLlib writes two small files of its own next to the
arrays (metadata, and the class to build); the arrays are read with `allow_pickle=False`. `attach_episodes` saves the
buffers of RLlib's own algorithms, as RLlib's state of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from pyarrow import fs as arrow
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rlkit import state
from rlkit.errors import CheckpointError
from rlkit.replay.buffer import Replay

COUNTERS = "replay.json"


class SavedReplay(Checkpointable):
    """Named replay buffers as one checkpoint component.

    Args:
        replays: The buffers, by name. May be filled later, before the first save.
        keep: Whether to write the rows. Without them a restored run starts with an empty buffer.
    """

    def __init__(self, replays: dict[str, Replay] | None = None, keep: bool = True):
        self.replays = replays if replays is not None else {}
        self.keep = keep

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return {name: replay.get_state() for name, replay in self.replays.items()} if self.keep else {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, saved in state.items():
            if name not in self.replays:
                raise CheckpointError(
                    f"the checkpoint has a replay buffer for {name!r}, this run only for "
                    f"{sorted(self.replays)}"
                )
            self.replays[name].set_state(saved)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {}

    def save_to_path(
        self,
        path: Any = None,
        *,
        state: Mapping[str, Any] | None = None,
        filesystem: Any = None,
        use_msgpack: bool = False,
    ) -> str:
        saved = self.get_state() if state is None else state
        # RLlib's own files first: it reads the class from them when it rebuilds an algorithm
        written = super().save_to_path(
            path, state={"buffers": sorted(saved)}, filesystem=filesystem, use_msgpack=use_msgpack
        )
        filesystem, folder = _resolve(written, filesystem)
        counters = {}
        for index, (name, buffer) in enumerate(sorted(saved.items())):
            counters[name] = buffer["counters"] | {"folder": str(index)}
            filesystem.create_dir((folder / str(index)).as_posix(), recursive=True)
            for label, array in buffer["arrays"].items():
                # Names may hold "/": infos/label.
                target = folder / str(index) / f"{quote(label, safe='')}.npy"
                with filesystem.open_output_stream(target.as_posix()) as file:
                    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        with filesystem.open_output_stream((folder / COUNTERS).as_posix()) as file:
            file.write(json.dumps(counters).encode())
        return written

    def restore_from_path(
        self, path: Any, *, component: str | None = None, filesystem: Any = None, **kwargs: Any
    ) -> None:
        filesystem, folder = _resolve(path, filesystem)
        try:
            with filesystem.open_input_file((folder / COUNTERS).as_posix()) as file:
                counters = json.loads(file.read())
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder}: {COUNTERS} is missing; the checkpoint is damaged") from error
        found = {}
        for name, saved in counters.items():
            where = folder / saved.pop("folder")
            arrays = {}
            for entry in filesystem.get_file_info(arrow.FileSelector(where.as_posix())):
                with filesystem.open_input_file(entry.path) as file:
                    try:
                        arrays[unquote(entry.base_name.removesuffix(".npy"))] = np.load(
                            file, allow_pickle=False
                        )
                    except (ValueError, EOFError) as error:
                        raise CheckpointError(f"{entry.path}: not a readable array ({error})") from error
            found[name] = {"arrays": arrays, "counters": saved}
        self.set_state(found)


def attach_episodes(algorithm: Any) -> None:
    """Save and restore the replay buffer of RLlib's own DQN, SAC or TQC with every checkpoint of `algorithm`.

    RLlib 2.60 leaves it out, whatever `store_buffer_in_checkpoints` says. Nothing happens without such a buffer, or if
    one is attached already.
    """
    buffer = algorithm.local_replay_buffer
    if not isinstance(buffer, EpisodeReplayBuffer) or "replay" in state.components(algorithm):
        return

    def get() -> dict[str, Any]:
        return {"buffer": buffer.get_state(), "generator": buffer.rng.bit_generator.state}

    def put(saved: Mapping[str, Any]) -> None:
        buffer.episodes.clear()  # a buffer that holds some keeps them, under the indices of the saved ones
        buffer.set_state(saved["buffer"])
        buffer.rng.bit_generator.state = saved["generator"]

    state.attach(algorithm, "replay", state.Values(get, put))


def _resolve(path: Any, filesystem: Any) -> tuple[Any, Path]:
    text = path if isinstance(path, str) else Path(path).as_posix()
    if filesystem is None:
        filesystem, text = arrow.FileSystem.from_uri(
            str(Path(text).absolute()) if "://" not in text else text
        )
    return filesystem, Path(text)
