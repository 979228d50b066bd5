"""The published document against the running service, by Schemathesis: all of its checks, with genuine and with hostile tokens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from accessguard.api.openapi import contract
from tests.fuzz import NIGHTLY
from tests.service import Tenant

SHORT = ("--phases=examples,fuzzing", "--max-examples=2", "--seed=1", "--generation-deterministic", "--no-shrink")
LONG = ("--phases=examples,coverage,fuzzing,stateful", "--max-examples=50", "--generation-database=none")
LONG_S = os.environ.get("CONTRACT_S", "600")
AMBIGUOUS = ("/v1/members/bulk", "/v1/members/erase")
"""Also the paths of members of those ids, so that their `Allow` names the methods of members."""

nightly: Final = os.environ.get("HYPOTHESIS_PROFILE") == NIGHTLY
pytestmark = [pytest.mark.slow, pytest.mark.hypothesis]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation of the document: its method, its path, and what is said of it."""
    for path, item in contract()["paths"].items():
        for method, said in item.items():
            yield method.upper(), path, said


def settings() -> Iterator[str]:
    """What Schemathesis is told: where a good call may be refused, as the document says when that is; never more."""
    yield "request-timeout = 30.0"
    for method, path, said in operations():
        if set(said["responses"].get("400", ())) > {"$ref"}:
            yield f"[[operations]]\ninclude-name = {json.dumps(f'{method} {path}')}"
            statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "5xx"]
            yield f"checks.positive_data_acceptance.expected-statuses = {json.dumps(statuses)}"
    for path in AMBIGUOUS:
        yield f"[[operations]]\ninclude-path = {json.dumps(path)}\nchecks.allow_header_conformance.enabled = false"


@pytest.mark.timeout(0 if nightly else 300)
async def test_the_service_keeps_what_its_document_says(tenant: Tenant, tmp_path: Path):
    """No 500, no status and no shape that is not documented, bad input refused, good input taken, no call without its role."""
    config = tmp_path / "schemathesis.toml"
    config.write_text("\n".join(settings()))
    how = (*LONG, f"--max-time={LONG_S}") if nightly else SHORT
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *program,
        *how,
        "--warnings=off",
        f"{tenant.service.url}/openapi.json",
        env={
            **os.environ,
            "CONTRACT_TENANT": tenant.name,
            "SCHEMATHESIS_HOOKS": "tests.api.contract",
            "PYTHONPATH": str(Path.cwd()),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()

    assert process.returncode == 0, told.decode()
    assert f"Selected: {len(list(operations()))}" in told.decode()
