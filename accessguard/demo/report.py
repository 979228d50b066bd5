"""What the person at the terminal reads at the end: what was made, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from accessguard.demo.model import Character, Plan
from accessguard.demo.player import Tally

HONEST: Final = (
    "A whole day in {day_s:.0f} s: the order and the mix are those of a day, the times are those of now, because the API"
    " takes no date from its callers. So whatever is counted over half an hour counts the whole day."
)


def show(console: Console, plan: Plan, tally: Tally, cases: Mapping[str, Any], *, day_s: float) -> None:
    """Print what was made."""
    table = Table(title=f"{len(plan.people)} members, seed {plan.seed}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("Rules", ", ".join(f"{rule['kind']} ({rule['mode']})" for rule in plan.rules))
    table.add_row("Logins", _counts(tally.logins))
    table.add_row("Devices", f"{tally.new_devices} new")
    table.add_row("Checks", _counts(tally.checks))
    table.add_row("Refused", _counts(tally.refusals))
    table.add_row("Ended to make room", f"{tally.evicted} sessions")
    table.add_row("Exempt", f"{tally.exempt} logins of staff and of a member whose checks are off")
    table.add_row("Not sent", f"{tally.not_sent} requests of browsers that were signed out by then")
    table.add_row("Cases", _cases(cases))
    console.print(table)
    console.print(HONEST.format(day_s=day_s) if day_s else HONEST.format(day_s=0).replace(" in 0 s", ""))


def where_to_look(console: Console, plan: Plan, *, url: str, token: str, admin_token: str) -> None:
    """Print lines to paste that work as they stand; `token` is a supervisor's."""
    shared, stolen, off = (
        _member(plan, each) for each in (Character.SHARED_ACCOUNT, Character.STOLEN_LAPTOP, Character.CHECKS_OFF)
    )
    lines = (
        ("Cases by code and by member", "/v1/violations/summary", "SUPPORT"),
        ("The newest cases nobody here has read", "/v1/violations?read=false&limit=5", "SUPPORT"),
        ("Members with something to read first", "/v1/members?sort=unread&limit=5", "SUPPORT"),
        ("A shared account: who was refused, and why", f"/v1/members/{shared}/violations", "SUPPORT"),
        ("Its logins", f"/v1/members/{shared}/logins", "SUPPORT"),
        ("A stolen laptop, blocked", f"/v1/members/{stolen}/devices", "SUPPORT"),
        ("Checks switched off: everything recorded", f"/v1/members/{off}/violations", "SUPPORT"),
        ("The rules", "/v1/rules", "ADMIN"),
        ("Who changed what", "/v1/audit?limit=5", "ADMIN"),
    )
    _plain(console, f"\nWhere to look. First two tokens, good for a day:\n\nSUPPORT={token}\nADMIN={admin_token}\n")
    for what, path, bearer in lines:
        _plain(console, f"# {what}\ncurl -sS '{url}{path}' -H \"Authorization: Bearer ${bearer}\"\n")


def _plain(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _member(plan: Plan, character: Character) -> str:
    return next(story.members[0] for story in plan.stories if story.character is character)


def _counts(counted: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{number} {name}" for name, number in sorted(counted.items(), key=lambda each: -each[1])) or "none"
    )


def _cases(cases: Mapping[str, Any]) -> str:
    codes = {each["code"]: each["open"] for each in cases["by_code"]}
    return f"{cases['open']} open ({_counts(codes)}), {cases['unread']} of them unread"
