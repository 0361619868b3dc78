"""Starts the installed program with injected coins: what no key, flag or variable of it can do.

    launcher.py client SITE.toml FIRST STEP   `confide client start`; reservation n draws coins FIRST + n * STEP
    launcher.py simulate ARGUMENTS ...        `confide simulate`; reservation n draws coins n

An in-process federation asks its institutions in turn, so with FIRST an institution's place and STEP their number both
draw the same.
"""

# ruff: noqa: E402 - Flower's environment comes before its first import

import functools
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from support.coins import TestCoins

from confide.common.flower import prepare

prepare()

from confide.client.service.process import serve
from confide.client.training.shares import ClientProcess
from confide.common.cli.main import main
from confide.simulations.engines import federation


def _coins(first: int, step: int) -> Callable[[], TestCoins]:
    seeds = itertools.count(first, step)
    return lambda: TestCoins(next(seeds))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "client":
        logging.basicConfig(level=logging.INFO)
        serve(Path(rest[0]), ClientProcess(coins=_coins(int(rest[1]), int(rest[2]))))
    else:
        federation.ClientProcess = functools.partial(ClientProcess, coins=_coins(0, 1))  # type: ignore[assignment,misc]
        sys.argv = ["confide", what, *rest]
        main()
