"""What `confide client check` tells beforehand."""

from collections.abc import Callable
from pathlib import Path

from support.installations import write_site

from confide.client.review import review
from confide.common.models import hash_model
from confide.common.run_config import RunConfig, lock


def test_an_institution_is_told_that_a_server_would_leave_out_its_size(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    site, base = write_site(tmp_path), hash_model(base_folder)
    near, far = (review(lock(make_run(local={"nominal_units": size}), base), site) for size in (400, 401))
    assert "leave you out" not in near.text()
    assert "  the server would leave you out: declared_units = 20 must be within 20 times" in far.text()
    assert near.as_json()["left_out_by_the_server"] is None
    assert (near.exit_code, far.exit_code) == (0, 0), "it is the server that refuses"
