"""What the audit of dependencies makes of the answers that it may get."""

from __future__ import annotations

import json
import sys

import pytest

from tests.audit import audited

HOLE = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        pytest.param(json.dumps(HOLE), 1, "a 1: PYSEC-1, mended in 2", id="a hole"),
        pytest.param(
            json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}), 0, "0 known", id="none"
        ),
        pytest.param("", 0, "skipped", id="no network"),
    ],
)
def test_an_audit_fails_for_holes_and_not_for_want_of_a_network(capsys, answer, code, said):
    """And it says which of the two it was."""
    program = (sys.executable, "-c", f"import sys; sys.stdout.write({answer!r})")

    assert audited("requirements.txt", program=program) == code
    assert said in capsys.readouterr().out
