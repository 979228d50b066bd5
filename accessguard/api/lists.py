"""The shapes of lists: a page of each, and the lines of reports by day. Single things have theirs in wire.py."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import msgspec

from accessguard.api.wire import RuleReply, RuleVersionReply, TenantReply
from accessguard.devices.model import Device
from accessguard.events.audit import Entry
from accessguard.events.revoked import Revocation
from accessguard.events.webhooks import Delivery, Webhook
from accessguard.members.access import AccessLine
from accessguard.members.comments import Comment
from accessguard.members.model import EnrolmentLine, Member
from accessguard.members.related import Related
from accessguard.members.sharing import Suspicion
from accessguard.sessions.history import ActivityItem, LoginItem, SessionItem
from accessguard.violations.model import Violation


class RevocationsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of what is refused."""

    items: tuple[Revocation, ...]
    next_cursor: str | None


class WebhooksPage(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's webhooks."""

    items: tuple[Webhook, ...]
    next_cursor: str | None = None


class DeliveriesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to one webhook."""

    items: tuple[Delivery, ...]
    next_cursor: str | None = None


class MembersPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of members."""

    items: tuple[Member, ...]
    next_cursor: str | None


class LoginsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the access log, the newest first."""

    items: tuple[LoginItem, ...]
    next_cursor: str | None


class SessionsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of sessions, the newest first."""

    items: tuple[SessionItem, ...]
    next_cursor: str | None


class DevicesPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of devices, the last seen first."""

    items: tuple[Device, ...]
    next_cursor: str | None


class ActivityPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of activity, the newest first."""

    items: tuple[ActivityItem, ...]
    next_cursor: str | None


class ViolationsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of cases, the last hit first."""

    items: tuple[Violation, ...]
    next_cursor: str | None


class RelatedPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of related members, the strongest first."""

    items: tuple[Related, ...]
    next_cursor: str | None


class EnrolmentsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a member's enrolments, by product."""

    items: tuple[EnrolmentLine, ...]
    next_cursor: str | None


class SharingPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of members with evidence of sharing."""

    items: tuple[Suspicion, ...]
    next_cursor: str | None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the audit log, the newest first."""

    items: tuple[Entry, ...]
    next_cursor: str | None


class RulesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Every rule."""

    items: tuple[RuleReply, ...]
    next_cursor: str | None


class RuleVersionsPage(msgspec.Struct, frozen=True, kw_only=True):
    """Every version of a rule, the newest first."""

    items: tuple[RuleVersionReply, ...]
    next_cursor: str | None


class CommentsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of comments, the newest first."""

    items: tuple[Comment, ...]
    next_cursor: str | None


class AccessPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of first and last access, by member and product."""

    items: tuple[AccessLine, ...]
    next_cursor: str | None


class ActivityDay(msgspec.Struct, frozen=True, kw_only=True):
    """How many interactions of one kind a day had."""

    day: date
    kind: str
    count: int


class ActivityDaysPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of counted interactions, by day."""

    items: tuple[ActivityDay, ...]
    next_cursor: str | None


class LoginDay(msgspec.Struct, frozen=True, kw_only=True):
    """How many logins of one outcome a day had."""

    day: date
    outcome: str
    decision: str
    count: int


class LoginDaysPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of counted logins, by day."""

    items: tuple[LoginDay, ...]
    next_cursor: str | None


class DeviceDay(msgspec.Struct, frozen=True, kw_only=True):
    """How many logins came in from one class of device and browser on a day, and how many devices were new."""

    day: date
    device_class: str
    browser: str
    logins: int
    new_devices: int


class DeviceDaysPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of counted devices, by day."""

    items: tuple[DeviceDay, ...]
    next_cursor: str | None


class RefusalDay(msgspec.Struct, frozen=True, kw_only=True):
    """How often one rule found something on a day, and what became of it."""

    day: date
    rule_id: UUID | None
    code: str
    effect: str
    hits: int


class RefusalDaysPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of counted refusals, by day."""

    items: tuple[RefusalDay, ...]
    next_cursor: str | None


class TenantsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of tenants."""

    items: tuple[TenantReply, ...]
    next_cursor: str | None
