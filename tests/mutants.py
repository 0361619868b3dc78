"""Change the audited core in one place at a time and run its tests: a mutant that survives shows what no test looks at.

    python -m tests.mutants [--every N] [--only common/privacy/noise.py] [--jobs 2]

A mutant turns one comparison, operator, truth or number into another, or leaves out one call or `raise`. It is made in
memory, in a child process that inherits the slow libraries, and runs the file's own tests and then all that import the
file, until one fails. Those that `EQUIVALENT` excuses are not run. Survivors are printed, and the exit code is then 1.
"""

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS = 900  # after which a mutant counts as found: it does not end
_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
}
# Changes that no test can tell from the line before: a file, a part of the line, and why.
EQUIVALENT: dict[tuple[str, str], str] = {
    ("client/privacy/account.py", "releases: int = 0"): "of a study without privacy, whose releases nothing compares",
    ("client/privacy/account.py", " steps: int = 0"): "of a study without privacy, whose steps nothing compares",
    ("client/privacy/account.py", "returns: bool = True"): "of a study without privacy, which gives nothing back",
    ("client/privacy/database.py", "timeout=30"): "seconds until a locked database is an error; any long time will do",
    ("client/privacy/database.py", "synchronous=FULL"): "SQLite's default here; named because other builds have others",
    ("client/privacy/ledger.py", "_ORDER_WITHOUT_PLAN = 6"): "nothing private is promised after such a row: any order",
    ("client/privacy/outbox.py", "os.O_CREAT | os.O_RDWR"): "two bits that do not overlap: their sum is the same",
    ("client/privacy/rollback.py", 'row["number"] > anchored'): "the same number is the same row, written once more",
    ("client/privacy/rollback.py", 'failpoint("witness-written")'): "only `make crash-test` stops there",
    ("client/privacy/rollback.py", "<= e.keys()"): "each kept line has more keys than the two",
    ("common/privacy/accounting.py", "neutral = replace(plan"): "one value for all plans in fields of no account",
    ("common/privacy/accounting.py", "_epsilon(replace(plan, declared_units=1"): "the same",
    (
        "common/privacy/accounting.py",
        "orders = range(2, 257)",
    ): "one order more or less of a looser check",
    ("common/privacy/accounting.py", "grid = _COARSE if"): "either grid gives an upper bound; which one is quicker",
    (
        "common/privacy/accounting.py",
        "spends(_MAX_NOISE_MULTIPLIER) >",
    ): "a cost that equals the target to the last digit",
    ("common/privacy/accounting.py", "while spends(high) >"): "a cost that equals the target to the last digit",
    ("common/privacy/accounting.py", "while spends(low) <="): "the same",
    ("common/privacy/accounting.py", "low, high = high, 2 * high"): "how fast a search goes up",
    ("common/privacy/accounting.py", "low, high = low / 2, low"): "how fast it goes down",
    ("common/privacy/accounting.py", "if high > _MAX_NOISE"): "a noise of exactly 10,000",
    ("common/privacy/accounting.py", "tolerance = "): "the loop below adds what a root lacks",
    ("common/privacy/accounting.py", "for index in range(1, 1001)"): "a grid; every grid gives an upper bound",
    ("common/privacy/accounting.py", "zip(grid, deltas, strict=True)"): "a check of our own lists",
    ("common/privacy/accounting.py", "math.log(1e-3), math.log(1e5)"): "where a search begins and ends",
    ("common/privacy/accounting.py", "low = high = 1.0"): "where a search begins; any noise will do",
    ("common/privacy/accounting.py", "_MAX_NOISE_MULTIPLIER = 1e4"): "where a search ends; any large noise will do",
    ("common/privacy/clipping.py", "_ENTRIES = 1024"): "numbers of a lane: the rounding bound holds for a few more",
    ("common/privacy/clipping.py", "_ROUND_UP = "): "the slack of a norm; a test holds that it is enough",
    ("common/privacy/coins.py", "_STREAMS = "): "names of streams: any three different numbers will do",
    ("common/privacy/filter.py", "declared_units=1"): "one key for all sizes; any size will do",
    ("common/privacy/filter.py", "best, copies, total = 2"): "the first pass of the loop overwrites it",
    ("common/privacy/filter.py", "range(2, 257)"): "one order more at the end; no plan was seen to choose it",
    ("common/privacy/filter.py", "best = int(order) if total"): "a cost that equals the cap to the last digit",
    ("common/privacy/filter.py", "copies <= 1024"): "where the search ends for a plan that costs next to nothing",
    ("common/privacy/gradients.py", "rows = 0"): "each call sets it before it is read",
    ("common/privacy/gradients.py", "strict=False)"): "no layer that may be trained has the buffers that it is about",
    ("common/privacy/gradients.py", "Full backward hook is firing"): "a warning",
    ("common/privacy/least.py", "_THRESHOLDS = 128"): "one threshold more: the bound is as good",
    ("common/privacy/least.py", "yield hit, min(0.0"): "a chance above 1 makes this bound smaller, never larger",
    ("common/privacy/least.py", "excess > 0"): "an excess of exactly 0",
    ("common/privacy/least.py", "draws = np.arange("): "draws beyond twelve standard deviations have no chance",
    ("common/privacy/unit_means.py", "open_unit, open_sum_P = -1"): "without open examples neither is read",
    ("common/privacy/unit_means.py", "if len(runs) > 1"): "a matrix of no units adds nothing",
    ("common/privacy/plan.py", "1e-6 <= getattr(self, name) <= 1e6"): "far above any norm that is used, too",
    ("common/privacy/plan.py", "<= 1e6, name"): "far above any noise that is used; any large bound will do",
    ("common/privacy/plan.py", "max(1, min_members - max_colluding)"): "`Sharing` refuses fewer than two a line later",
    ("common/privacy/statement.py", "_INTERVALS, _MIXTURE_INTERVALS ="): "a grid; every grid gives an upper bound",
    ("common/privacy/statement.py", "losses = 10 * largest"): "the same grid",
    ("common/privacy/statement.py", "_accountant(plan, 1, _INTERVALS)"): "the same grid",
    ("common/privacy/statement.py", "range(num_records + 1)"): "one more record than there is has the probability 0",
    ("common/privacy/step.py", "_ROWS = 16"): "rows that are summed at once: a matter of speed",
}


class Mutant(NamedTuple):
    """A file with one change: the number of the line, the line as it was and as it is, and the new tree."""

    path: Path
    line: int
    before: str
    after: str
    tree: ast.Module

    def is_excused(self) -> bool:
        """Return whether `EQUIVALENT` names the line."""
        text, name = self.path.read_text(encoding="utf-8").splitlines()[self.line - 1], str(self.path.relative_to(ROOT))
        return any(name == file and part in text for file, part in EQUIVALENT)


class _Change(ast.NodeTransformer):
    """Makes the change of one number, counting from 0; annotations, texts and what only types need stay."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.line, self.before, self.after = 0, "", ""

    def _turn(self, node: ast.AST, changed: Callable[[], ast.AST]) -> ast.AST:
        self.left -= 1
        if self.left != -1:
            return self.generic_visit(node)
        self.line, self.before = node.lineno, ast.unparse(node)  # type: ignore[attr-defined]
        new = ast.copy_location(changed(), node)
        self.after = ast.unparse(new)
        return new

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        swapped = _SWAPPED[type(node.ops[0])]
        return self._turn(node, lambda: ast.Compare(node.left, [swapped(), *node.ops[1:]], node.comparators))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        swapped = _SWAPPED.get(type(node.op), ast.Add)
        return self._turn(node, lambda: ast.BinOp(node.left, swapped(), node.right))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        return self._turn(node, lambda: ast.BoolOp(_SWAPPED[type(node.op)](), node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        return self._turn(node, lambda: node.operand)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return self._turn(node, lambda: ast.Constant(not node.value))
        return self._turn(node, lambda: ast.Constant(node.value + 1)) if isinstance(node.value, int | float) else node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self._turn(node, ast.Pass)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if isinstance(node.value, ast.Constant) else self._turn(node, ast.Pass)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(part) for part in node.body]  # not its decorators: frozen is for readers
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node  # a message

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.value = self.visit(node.value) if node.value else None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.defaults = [self.visit(value) for value in node.defaults]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args, node.body = self.visit(node.args), [self.visit(part) for part in node.body]
        return node


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    number = 0
    while True:
        change = _Change(number)
        tree = change.visit(ast.parse(path.read_text(encoding="utf-8")))
        if change.left >= 0:
            return
        yield Mutant(path, change.line, change.before, change.after, ast.fix_missing_locations(tree))
        number += 1


def tests_of(path: Path) -> list[Path]:
    """The file's own tests, then all that import it, then the others of its room: in each the quick ones first."""
    module = ".".join(("confide", *path.relative_to(ROOT).with_suffix("").parts))
    package, _, name = module.rpartition(".")
    folders = ("common", "client", "server", "simulations")
    files = [
        *(ROOT / "tests").glob("*.py"),
        *(file for part in folders for file in (ROOT / "tests" / part).rglob("test_*.py")),
    ]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.name.startswith("test_")}
    using = {file for file, text in texts.items() if module in text or f"from {package} import {name}" in text}
    room = {file for file in texts if file.parent == ROOT / "tests" / path.parent.relative_to(ROOT)}

    def order(file: Path) -> tuple[bool, bool, int]:
        return file.stem != f"test_{path.stem}", file not in using, file.stat().st_size

    return sorted(using | room, key=order)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a tree, all others as they are."""

    def __init__(self, module: str, mutant: Mutant) -> None:
        self.module, self.mutant = module, mutant

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.mutant.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.mutant.tree, str(self.mutant.path), "exec"), module.__dict__)  # noqa: S102


def survivors(tried: list[Mutant], jobs: int) -> Iterator[Mutant]:
    """Yield those on which all tests pass. Each is run in a child of this process, which has no threads."""
    waiting, running = tried[::-1], dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            child = os.fork()
            if child == 0:
                _run_tests(mutant)
            running[child] = mutant, time.monotonic() + SECONDS
        time.sleep(0.05)
        for child, (mutant, end) in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                ended, status = os.waitpid(child, 0)
            if ended:
                del running[child]
                print(f"{mutant.path.name}:{mutant.line} is done, {len(waiting)} wait", file=sys.stderr, flush=True)
                if os.waitstatus_to_exitcode(status) == 0:
                    yield mutant


def _run_tests(mutant: Mutant) -> None:
    """Ends this process with what pytest says."""
    import pytest

    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    module = ".".join(("confide", *mutant.path.relative_to(ROOT).with_suffix("").parts))
    sys.meta_path.insert(0, _Mutated(module, mutant))
    code = 2
    try:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += ["-m", "not families and not waits"]  # these take minutes, and repeat what others show
        # pytest reads all files before it runs the first test: 20 s for those that most mutants never reach.
        own, *others = map(str, tests_of(mutant.path))
        code = pytest.main([*options, own])
        if others and not code:
            code = pytest.main([*options, *others])
    finally:
        sys.stdout.flush()
        os._exit(int(code))


def main() -> int:
    """Print survivors; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="run one mutant of so many (all)")
    parser.add_argument("--first", type=int, default=0, help="the first to run (0)")
    parser.add_argument("--only", type=Path, action="append", help="a file of the core (all)")
    parser.add_argument("--jobs", type=int, default=2, help="at once (2)")
    args = parser.parse_args()
    from tests.test_layers import AUDITED

    files = [ROOT / path for path in args.only] if args.only else AUDITED
    every = [mutant for file in files for mutant in mutants(file)][args.first :: args.every]
    chosen = [mutant for mutant in every if not mutant.is_excused()]
    for library in ("torch", "transformers", "opacus", "peft", "dp_accounting", "flwr"):
        importlib.import_module(library)
    importlib.import_module("torch").set_num_threads(1)  # a fork has no threads of OpenMP
    files = sorted({mutant.path for mutant in chosen})
    unchanged = [Mutant(file, 0, "", "", ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    sound = {mutant.path for mutant in survivors(unchanged, args.jobs)}
    for file in set(files) - sound:
        print(f"{file.relative_to(ROOT)}: its tests fail without a change, or take more than {SECONDS} s")
    if set(files) - sound:
        return 2
    survived = 0
    for mutant in survivors(chosen, args.jobs):
        survived += 1
        print(f"{mutant.path.relative_to(ROOT)}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
    print(f"{survived} of {len(chosen)} mutants survived; {len(every) - len(chosen)} are excused and were not run")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
