"""Run the notebooks of docs/notebooks, each in a folder and a process of its own.

python -m tests.notebooks [NAME ...]

A cell's last expression is shown as a notebook would show it. `tests/test_notebooks.py` runs them with fewer rounds.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def program(name: str) -> str:
    """The code cells of a notebook as one program, which prints what each cell would show."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join(_shown("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code")


def _shown(source: str) -> str:
    tree = ast.parse(source)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        call = ast.Call(ast.Name("print", ast.Load()), [last.value], [])
        tree.body[-1] = ast.Expr(call)
    return ast.unparse(ast.fix_missing_locations(tree))


def run(text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program in a folder."""
    command = [sys.executable, "-c", text]
    return subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False)


def main() -> int:
    """Run all notebooks as they are, or those that are named."""
    for name in sys.argv[1:] or NAMES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            done = run(program(name), Path(folder))
        print(done.stdout, done.stderr[-3000:] if done.returncode else "", sep="")
        print(f"{name}: {'failed' if done.returncode else 'done'} after {time.monotonic() - began:.0f} s")
        if done.returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
