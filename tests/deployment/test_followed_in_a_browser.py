"""The server's page in a real browser, over a real server and real clients: a run followed live to its end."""

from pathlib import Path

from support.browser import Window, require_browser, window
from support.deployment import Deployment
from support.sites import make_records

_RUN = """
[study]
name = "small"
[model]
base = "{base}"
[adapter]
rank = 4
targets = ["query", "value"]
[task]
kind = "text-classification"
labels = ["negative", "positive"]
max_length = 64
[federation]
num_rounds = 4
min_clients = 2
[local]
nominal_units = 20
[privacy]
noise_multiplier = 4.0
"""


def _link(deployment: Deployment) -> str:
    return deployment.confide("server", "page", "--home", "srv").strip()


def _propose(seen: Window, place: str, text: str, choice: str) -> None:
    seen.page.goto(f"{place}propose")
    seen.page.locator("#run").fill(text)
    seen.page.get_by_label(choice).check()
    if choice.startswith("Start it"):
        seen.page.get_by_label("To start it").check()
    seen.page.get_by_role("button", name="Go").click()


def test_a_real_run_is_rehearsed_started_and_followed_to_its_end(
    deployment: Deployment, base_folder: Path, tmp_path: Path
) -> None:
    """A server and two clients as processes; all that the operator does is done in the browser."""
    require_browser()
    deployment.start_server()
    for name in ("anne", "mary"):
        site = deployment.add(name, make_records(20))
        models = site.parent / "models"
        models.mkdir()
        (models / base_folder.name).symlink_to(base_folder)
        deployment.start_client(name)
    with window(tmp_path / "profile") as seen:
        place = seen.open(_link(deployment))
        seen.page.get_by_text("2 of 2 institutions connected.").wait_for()
        text = _RUN.format(base=base_folder)
        _propose(seen, place, text, "Rehearse it")
        seen.page.get_by_text("anne: answered").wait_for()
        seen.page.get_by_text("mary: answered").wait_for()
        _propose(seen, place, text, "Start it: it is offered")
        seen.page.get_by_text("The finished adapter is at").wait_for()
        seen.page.get_by_text("Round 4 of 4").wait_for()
        assert "4 of 4" in seen.page.locator("#institutions").inner_text()
        assert seen.hosts == {f"127.0.0.1:{deployment.admin_port}"}
        token = place.rstrip("/").rpartition("/")[2]
        assert token not in deployment.log("server"), "the way to the page stands in the log"
        assert seen.errors == []
