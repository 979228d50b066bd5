"""`accessguard import` and `accessguard export`, as they run on the terminal."""

from __future__ import annotations

import json

import pytest

from accessguard import transfer
from accessguard.errors import GuardError
from tests.service import Service, token

LINES = (
    {
        "kind": "member",
        "member_id": "a/b%2F",
        "name": "\u05d3\u05d5\u05d3 \U0001f393",
        "email": "d@example.com",
        "tags": ["x"],
    },
    {"kind": "member", "member_id": "bea", "name": "Bea", "phone": "12", "locale": "it", "staff": True},
)


def written(path, *lines) -> str:
    """A file of these lines."""
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
    return str(path)


async def test_what_is_exported_can_be_imported(service: Service, tmp_path, capsys):
    """From one tenant to another, and out again the same."""
    one, other = service.tenant().name, service.tenant().name
    file = written(tmp_path / "members.ndjson", *LINES)
    exported, again = tmp_path / "out.ndjson", tmp_path / "again.ndjson"

    good = await transfer.import_files((file,), url=service.url, token=token(one, "platform"), as_csv=False)
    with exported.open("wb") as out:
        await transfer.export(out, url=service.url, token=token(one, "supervisor"), as_csv=False)
    await transfer.import_files((str(exported),), url=service.url, token=token(other, "platform"), as_csv=False)
    with again.open("wb") as out:
        await transfer.export(out, url=service.url, token=token(other, "supervisor"), as_csv=False)

    told = capsys.readouterr().out
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert good
    assert "2 lines, 2 new members, 0 changed, 0 enrolments changed, 0 lines refused" in told
    assert [each["member_id"] for each in lines] == ["bea", "a/b%2F"]
    assert [each | line for each, line in zip(lines, reversed(LINES), strict=True)] == lines
    assert again.read_bytes() == exported.read_bytes()


async def test_refused_lines_are_printed_as_editors_read_them(service: Service, tmp_path, capsys):
    """And the answer is not good, so that the exit code is not 0."""
    tenant = service.tenant().name
    file = written(tmp_path / "m.ndjson", LINES[0], "{", {"kind": "member", "member_id": "x", "staff": "[red]maybe"})

    good = await transfer.import_files((file,), url=service.url, token=token(tenant, "platform"), as_csv=False)

    told = capsys.readouterr().out.splitlines()
    assert not good
    assert told[:2] == [
        f"{file}:2: is not valid JSON in UTF-8",
        f"{file}:3: /staff Expected `bool`, got `str`",
    ]


async def test_what_the_service_refuses_is_a_sentence(service: Service, tmp_path):
    """A token of another role, an empty file, nobody there."""
    tenant, file = service.tenant().name, written(tmp_path / "m.csv", "name", "x")
    empty = written(tmp_path / "empty.ndjson")
    calls = (
        (service.url, "supervisor", file, "Your role does not allow this."),
        (service.url, "platform", file, "names no column `member_id`"),
        (service.url, "platform", empty, "The file has no lines."),
        ("http://127.0.0.1:9", "platform", file, "does not answer"),
    )

    for url, role, path, words in calls:
        with pytest.raises(GuardError, match=words):
            await transfer.import_files((path,), url=url, token=token(tenant, role), as_csv=False)
