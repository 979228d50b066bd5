"""`accessguard simulate` as a person meets it, on the database of the service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.service import FIREFOX, Tenant

RULE = {"kind": "session_limit", "action": "deny_new", "params": {"max": 1, "window_s": 1800}}


async def command(tmp_path: Path, database_url: str, tenant: str, rule: object, *more: str) -> tuple[int, str, str]:
    """Run it to its end: exit code, output, errors."""
    (tmp_path / "rule.json").write_text(json.dumps(rule))
    asked = ("--tenant", tenant, "--rule", str(tmp_path / "rule.json"), "--from", "2026-01-01", "--to", "2028-01-01")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "accessguard", "simulate", *asked, *more),
        env={**os.environ, "ACCESSGUARD_DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_it_answers_with_a_table_or_with_json(tmp_path, database_url, tenant: Tenant):
    """The same numbers, for people and for programs."""
    await tenant.login(session_id="first")
    await tenant.login(user_agent=FIREFOX, session_id="second")

    shown = await command(tmp_path, database_url, tenant.name, RULE)
    written = await command(tmp_path, database_url, tenant.name, RULE, "--json")

    assert (shown[0], written[0]) == (0, 0), shown[2] + written[2]
    assert "1 of 1 members would have been stopped" in shown[1]
    assert "2 sessions in use, 1 allowed" in shown[1]
    assert json.loads(written[1])["denials"] == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        pytest.param({"kind": "nonsense"}, "The rule cannot be read", id="no rule"),
        pytest.param(RULE | {"params": {"max": 0}}, "/rule/params/max Expected `int` >= 1", id="a limit of 0"),
        pytest.param(RULE, "There is no such tenant.", id="no tenant"),
    ],
)
async def test_what_cannot_be_played_is_said_in_a_sentence(tmp_path, database_url, service, rule, said):
    """With exit code 1, and without a trace."""
    code, out, err = await command(tmp_path, database_url, "nobody", rule)

    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
