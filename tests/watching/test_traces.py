"""Spans of a real service, when they are switched on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from accessguard.config import Tracing
from accessguard.otel import switch_on
from accessguard.tracing import SILENT, TRACING
from tests.service import LAPTOP, Tenant, token

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Kept(InMemorySpanExporter):
    """What was made, also after the end."""

    def all(self, off: object) -> tuple[ReadableSpan, ...]:
        """Every span, once they have been sent."""
        assert callable(off)
        off()
        return self.get_finished_spans()


@pytest.fixture
def made() -> Iterator[Kept]:
    """An exporter, in the place of a collector."""
    exporter = Kept()
    yield exporter
    TRACING.spans = None


@pytest.mark.parametrize("lane", ["url", "plain_url"])
async def test_a_request_is_part_of_its_callers_trace_with_its_stores(tenant: Tenant, made, lane):
    """The entry under the caller's span, PostgreSQL under the entry; and nobody is named in any of them."""
    login = await tenant.login("secret-person", identifier="secret@person.example")
    headers = {
        "Authorization": f"Bearer {token(tenant.name, 'platform')}",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }
    off = switch_on(Tracing(), made)

    body = {"member_id": "secret-person", "outcome": "success", "ip": LAPTOP}
    url = getattr(tenant.service, lane)
    async with tenant.service.http.post(f"{url}/v1/logins", json=body, headers=headers) as answer:
        assert answer.status == 200
    spans = made.all(off)

    mine = [each for each in spans if each.context is not None and f"{each.context.trace_id:032x}" == TRACE]
    (entry,) = [each for each in mine if each.kind is SpanKind.SERVER]
    assert entry.name == "accessguard login"
    assert entry.parent is not None
    assert f"{entry.parent.span_id:016x}" == PARENT
    stores = [each for each in mine if each.kind is SpanKind.CLIENT]
    assert "postgres" in {each.name for each in stores}
    assert entry.context is not None
    assert entry.context.span_id in {each.parent.span_id for each in stores if each.parent is not None}
    told = "".join(each.to_json() for each in spans)
    personal = ["secret", LAPTOP, tenant.name, login["session"]["id"], login["device"]["id"], "Bearer"]
    assert [each for each in personal if each in told] == []


async def test_who_was_not_chosen_is_not_traced(tenant: Tenant, made):
    """A caller that does not sample makes no spans, and an answer of ours that fails is an error."""
    off = switch_on(Tracing(ratio=0.0), made)

    await tenant.see("/v1/members", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await tenant.see("/v1/members")
    await tenant.see("/v1/members/nobody", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (entry,) = [each for each in made.all(off) if each.kind is SpanKind.SERVER]

    assert entry.attributes is not None
    assert entry.attributes["http.response.status_code"] == 404
    assert entry.status.status_code is StatusCode.UNSET


class Broken(SpanExporter):
    """A collector that is not there."""

    def export(self, spans: object) -> SpanExportResult:
        """Take nothing."""
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing to let go of."""


async def test_a_collector_that_is_not_there_holds_up_nobody(tenant: Tenant):
    """Spans are dropped, requests are answered."""
    off = switch_on(Tracing(), Broken())

    answer = await tenant.login()
    off()

    assert answer.status == 200


def test_nothing_of_it_is_there_when_it_is_off():
    """Neither a span nor an import of ours; what other packages look for by themselves is theirs."""
    code = "import sys; from accessguard import app, serving, worker; print('accessguard.otel' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
    assert TRACING.spans is None
    assert TRACING.store("postgres") is SILENT
