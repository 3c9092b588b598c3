"""metrics.csv as numbers, whoever wrote it: what is no number is left out, with a note."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from rlkit.errors import CheckpointError, printable
from rlkit.runs.layout import METRICS
from rlkit.runs.reading import LARGEST_TABLE, open_regular
from rlkit.runs.run import Run

if TYPE_CHECKING:
    import pandas

HUGE = 1e300  # sums and squares of what is larger overflow


def read_frame(run: Run) -> tuple[pandas.DataFrame, list[str]]:
    """Return metrics.csv with numbers in every column but `trial`, and notes on what was left out.

    Raises:
        CheckpointError: it is no text, no table, or larger than 512 MB.
    """
    import pandas

    path = run.path / METRICS
    try:
        with open_regular(path, LARGEST_TABLE) as file:
            frame = pandas.read_csv(file, dtype={"trial": str})
        numbers = frame.drop(columns="trial").to_numpy()
        if numbers.dtype == float and not (abs(numbers[~pandas.isna(numbers)]) > HUGE).any():
            return frame.fillna({"trial": ""}), []
    except FileNotFoundError:
        return run.metrics, []
    except (ValueError, KeyError):
        pass  # below, line by line
    bad: list[int] = []
    try:
        with open_regular(path, LARGEST_TABLE) as file:
            frame = pandas.read_csv(
                file,
                dtype=str,
                keep_default_na=False,
                on_bad_lines=lambda line: bad.append(len(line)),
                engine="python",
            )
    except pandas.errors.EmptyDataError:
        return pandas.DataFrame({"trial": pandas.Series(dtype=str)}), []
    except (ValueError, csv.Error, RecursionError) as error:  # pandas' parser and bad UTF-8 raise ValueErrors
        raise CheckpointError(f"{path}: not a table of metrics ({printable(str(error))[:200]})") from None
    if "trial" not in frame:
        raise CheckpointError(f"{path}: not a metrics.csv of rlkit: it has no column 'trial'")
    notes = [f"{path}: {len(bad)} lines with too many cells left out"] if bad else []
    columns = {"trial": frame["trial"].fillna("")}
    for name in frame.columns:
        if name == "trial":
            continue
        text = frame[name].replace("", None)
        numbers = pandas.to_numeric(text, errors="coerce")
        worded = numbers.isna() & text.notna() & ~text.astype(str).str.lower().isin(("nan", "inf", "-inf"))
        huge = numbers.abs() > HUGE
        huge &= numbers.abs() != math.inf
        for what, mask in (("no number", worded), (f"beyond {HUGE:g}", huge)):
            if mask.any():
                notes.append(
                    f"{path}: {int(mask.sum())} values of {printable(name)[:80]!r} left out ({what})"
                )
        columns[name] = numbers.mask(huge).astype(float)
    return pandas.DataFrame(columns), notes
