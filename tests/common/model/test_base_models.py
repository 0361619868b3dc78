from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from confide.common.errors import InputError
from confide.common.model.base_models import fetch_model, find_model


@pytest.mark.parametrize(("find", "local_only"), [(find_model, True), (fetch_model, False)])
def test_only_the_owner_of_a_run_downloads_a_model(
    monkeypatch: pytest.MonkeyPatch, find: object, local_only: bool
) -> None:
    """An institution looks for what a server names; it never fetches it."""
    asked = []

    def snapshot(hub_id: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((hub_id, local_files_only))
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match="'some/model' is no folder"):
        find("some/model")  # type: ignore[operator]
    assert asked == [("some/model", local_only)]


@pytest.mark.parametrize("find", [find_model, fetch_model])
def test_a_home_folder_of_nobody_is_refused(find: Callable[[str], Path]) -> None:
    with pytest.raises(
        InputError, match=r"model\.base = '~nobody-at-all/model': nobody's home folder is known by that"
    ):
        find("~nobody-at-all/model")


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="can run code"):
        find_model(str(tmp_path))


def test_an_institution_s_own_folder_of_models_comes_first(base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(base_folder)
    assert find_model("some-lab/tiny", tmp_path / "models") == tmp_path / "models" / "tiny"
    assert find_model(str(base_folder), tmp_path / "models") == base_folder
    with pytest.raises(InputError, match="'tiny' is not an installed package"):
        find_model("tiny", tmp_path)
