"""Print the picture of docs/architecture.md: which room imports which, as Mermaid draws it.

    python -m tests.rooms

An arrow that others already imply is left out, so the picture shows the order and not every import.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_layers import ORDER, SOURCES, _name, _ours, _room


def arrows(folder: str) -> set[tuple[str, str]]:
    """Pairs of rooms of a folder, the importer first; the ground of a folder is left out."""
    rooms = set()
    for path in SOURCES:
        for module in _ours(path):
            (own, room), (other, theirs) = _room(_name(path)), _room(module)
            if own == other == folder and room and theirs and room != theirs:
                rooms.add((room, theirs))
    return rooms


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without the pairs that a longer way through others implies."""

    def reaches(start: str, end: str, without: tuple[str, str]) -> bool:
        later = [other for one, other in pairs if one == start and (one, other) != without]
        return any(other == end or reaches(other, end, without) for other in later)

    return {pair for pair in pairs if not reaches(*pair, without=pair)}


def picture() -> str:
    """Return the rooms of every folder, and which folder uses which."""
    lines = ["flowchart RL"]
    for folder in ORDER:
        lines.append(f"  subgraph {folder}")
        lines += [f"    {folder}_{room}[{room}]" for room in ORDER[folder]]
        lines += [f"    {folder}_{one} --> {folder}_{other}" for one, other in sorted(reduced(arrows(folder)))]
        lines.append("  end")
    return "\n".join([*lines, "  client & server --> common", "  simulations --> client & server"])


if __name__ == "__main__":
    print(picture())
