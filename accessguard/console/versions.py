"""Every version of a rule, with what changed from each to the next in words; and rules to start from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context, origin
from accessguard.api.read import path_id
from accessguard.console.comparison import Difference, compared
from accessguard.console.door import see_other
from accessguard.console.pen import page, reader_of
from accessguard.console.rules import formed, told
from accessguard.errors import ErrorCode, GuardError
from accessguard.policies.model import RuleBody, normalised
from accessguard.policies.presets import Preset, preset, presets
from accessguard.policies.store import RuleVersion
from accessguard.rules.model import Mode


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A version: what it did in a sentence (None: nothing that is known today), and what changed by it."""

    version: RuleVersion
    sentence: str | None
    changes: tuple[Difference, ...]


async def listed(request: web.Request) -> web.StreamResponse:
    """Every version, the newest first; each can be made the next one, also of a rule that was deleted."""
    language, rule_id = reader_of(request).language, path_id(request, "rule_id")
    found = await context(request).policies.versions(asking(request).tenant, rule_id)
    if not found:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    shown = {"steps": _steps(found, language), "rule_id": rule_id, "gone": found[0].deleted}
    return page(request, "rule_versions.html", shown)


async def again(request: web.Request) -> web.StreamResponse:
    """The form of a new rule with the values of a version, as of a rule that was deleted."""
    found = await context(request).policies.versions(asking(request).tenant, path_id(request, "rule_id"))
    for each in found:
        if str(each.version) == request.match_info["version"]:
            return formed(request, msgspec.structs.replace(each.body, mode=Mode.OBSERVE), None)
    raise GuardError(ErrorCode.NOT_FOUND, "There is no such version.")


async def offered(request: web.Request) -> web.StreamResponse:
    """Sets of rules to start from."""
    return _offered(request, ())


async def one_offered(request: web.Request) -> web.StreamResponse:
    """The form of a new rule as a preset has it, observed first."""
    rules, at = _preset(request).rules, request.match_info["at"]
    if not at.isdecimal() or not at.isascii() or int(at) >= len(rules):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    return formed(request, msgspec.structs.replace(rules[int(at)], mode=Mode.OBSERVE), None)


async def begun(request: web.Request) -> web.StreamResponse:
    """Save all rules of a preset, observed first; what is refused is said, the others are there."""
    ctx, who, refused = context(request), asking(request), list[str]()
    for body in _preset(request).rules:
        try:
            await ctx.tenancy.create_rule(
                who.tenant,
                who.actor,
                ctx.new_id(),
                msgspec.structs.replace(body, mode=Mode.OBSERVE),
                origin=origin(request),
                confirmed=False,
                reason=None,
                now_ms=ctx.now_ms(),
            )
        except GuardError as error:
            if error.code not in (ErrorCode.INVALID, ErrorCode.CONFLICT):
                raise
            refused += [f"{body.name}: {each}" for each in _why(error)]
    return _offered(request, tuple(refused)) if refused else see_other("/console/rules?done=preset")


def _why(error: GuardError) -> Sequence[str]:
    return [each.detail for each in error.problems] or [error.message]


def _offered(request: web.Request, refused: tuple[str, ...]) -> web.Response:
    language = reader_of(request).language
    sets = [(each, [told(body, language) for body in each.rules]) for each in presets()]
    return page(request, "presets.html", {"sets": sets, "refused": refused}, status=400 if refused else 200)


def _preset(request: web.Request) -> Preset:
    found = preset(request.match_info["name"])
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such preset.")
    return found


def _steps(found: Sequence[RuleVersion], language: str) -> tuple[Step, ...]:
    """From the newest on; the first version of all changed nothing."""
    changes = [compared(_whole(older.body), _whole(newer.body)) for newer, older in pairwise(found)]
    return tuple(
        Step(version=each, sentence=_sentence(each.body, language), changes=change)
        for each, change in zip(found, [*changes, ()], strict=True)
    )


def _whole(body: RuleBody) -> RuleBody:
    """With its defaults; as it was stored where an older release took what this one does not."""
    try:
        return normalised(body)
    except GuardError:
        return body


def _sentence(body: RuleBody, language: str) -> str | None:
    try:
        return told(normalised(body), language)
    except GuardError:
        return None
