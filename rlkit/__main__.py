"""`rlkit` and `python -m rlkit`. ^C while modules are imported ends as it does later: with 130, no traceback."""

import os
import sys


def run() -> None:
    """Entry point of the command line."""
    try:
        from rlkit.cli.process import program

        program()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    run()
