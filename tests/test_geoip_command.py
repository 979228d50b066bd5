"""`accessguard geoip check` as a person meets it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mmdb import city, mmdb

DAY_S = 86_400
MILAN = city("IT", "Milan", 45.46, 9.19, region="Lombardy")
TELECOM = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Telecom"}


def check(folder: Path, files: list[str], *hosts: str) -> subprocess.CompletedProcess[str]:
    """Run it with these files configured."""
    (folder / "accessguard.toml").write_text(f"[geo]\nfiles = {files!r}\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    return subprocess.run(
        [sys.executable, "-m", "accessguard", "geoip", "check", *hosts],
        cwd=folder,
        env=bare
        | {
            "ACCESSGUARD_CONFIG": "accessguard.toml",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "COLUMNS": "300",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A city file and an operator file, built ten days ago."""
    ago = int(time.time()) - 10 * DAY_S
    network = "203.0.113.0/24"
    (tmp_path / "city.mmdb").write_bytes(mmdb({network: MILAN}, built_at_s=ago, kind="Test-City"))
    (tmp_path / "asn.mmdb").write_bytes(mmdb({network: TELECOM}, built_at_s=ago, kind="Test-ASN", version=4))
    return ["city.mmdb", "asn.mmdb"]


def row(output: str, first: str) -> list[str]:
    """The cells of the row of a table that begins with this text."""
    line = next(line for line in output.splitlines() if line.strip("│ ").startswith(first))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_it_tells_what_is_loaded(tmp_path, files):
    """Path, state, type, date of build, age, IP version, nodes, languages."""
    answer = check(tmp_path, files)

    assert answer.returncode == 0, answer.stderr
    path, state, kind, built, age, version, nodes, languages = row(answer.stdout, "city.mmdb")
    assert (path, state, kind, age, version, languages) == (
        "city.mmdb",
        "loaded",
        "Test-City",
        "10 days",
        "4 and 6",
        "en",
    )
    assert built[:10] == time.strftime("%Y-%m-%d", time.gmtime(time.time() - 10 * DAY_S))
    assert int(nodes) > 24
    assert row(answer.stdout, "asn.mmdb")[5] == "4"


def test_it_looks_addresses_up(tmp_path, files):
    """As the service does, whatever form they are written in; what is not known is a dash."""
    answer = check(tmp_path, files, "::ffff:203.0.113.9", "2001:db8::1")

    assert row(answer.stdout, "203.0.113.9")[1:] == [
        "IT",
        "Milan, Lombardy",
        "45.46, 9.19",
        "Europe/Rome",
        "AS64500",
        "Example Telecom",
    ]
    assert row(answer.stdout, "2001:db8::1")[1:] == ["-"] * 6


@pytest.mark.parametrize(
    ("content", "state"),
    [
        pytest.param(None, "missing", id="not there"),
        pytest.param(b"no such format", "damaged", id="something else"),
        pytest.param(mmdb({"203.0.113.0/24": MILAN}, built_at_s=1_700_000_000), "old", id="built in 2023"),
    ],
)
def test_a_file_that_is_not_good_is_told_apart_and_is_exit_code_1(tmp_path, files, content, state):
    """What cron and a deployment look at."""
    if content is not None:
        (tmp_path / "third.mmdb").write_bytes(content)

    answer = check(tmp_path, [*files, "third.mmdb"])

    assert answer.returncode == 1
    assert row(answer.stdout, "third.mmdb")[1] == state
    assert "geo_file" not in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_files_it_says_what_that_means(tmp_path):
    """Places are a choice, so that is no failure."""
    answer = check(tmp_path, [])

    assert answer.returncode == 0
    assert "docs/places.md" in answer.stdout


def test_what_is_no_address_is_said_in_one_sentence(tmp_path, files):
    """And nothing else is."""
    answer = check(tmp_path, files, "example.com")

    assert answer.returncode == 1
    assert "`example.com` is no address." in answer.stderr
    assert "Traceback" not in answer.stderr
