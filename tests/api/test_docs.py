"""The contract's page: whole, safe, readable for everybody."""

import gzip
import hashlib
import json
import re
import shlex
from base64 import b64encode
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web
from markupsafe import Markup

from accessguard.api.docs import add_docs, coloured, page, prose
from accessguard.api.docs_view import chapters, curl
from accessguard.api.openapi import contract, document, methods
from accessguard.api.routes import ROUTES
from accessguard.policies.params import PARAMS

VOID = {"meta", "link", "wbr", "br", "hr", "img"}
STYLE = (Path(__file__).parents[2] / "accessguard" / "api" / "templates" / "docs.css").read_text()
CALLS = [call for chapter in chapters(contract()) for call in chapter.operations]


class Page(HTMLParser):
    """The page as its elements, in order: (tag, attributes); refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        """An element begins."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """An element has no content."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        """An element ends: the last one that began."""
        assert self._open.pop() == tag

    def every(self, *tags):
        """The attributes of every such element."""
        return [attributes for tag, attributes in self.elements if tag in tags]


TEXT = page().plain.decode()
PAGE = Page(TEXT)


@pytest.fixture
async def client(aiohttp_client):
    """An application with nothing but the document and its page."""
    app = web.Application()
    add_docs(app)
    return await aiohttp_client(app)


async def test_the_document_is_served_as_it_was_made(client):
    """`/openapi.json` is the document, byte for byte."""
    response = await client.get("/openapi.json")

    assert response.status == 200
    assert response.content_type == "application/json"
    assert await response.read() == document()


async def test_the_page_is_served_as_html(client):
    """`/docs` needs no token."""
    response = await client.get("/docs")

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1" in await response.text()


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_what_a_browser_has_is_not_sent_again(client, path):
    """The same ETag answers 304 without a body; another one the whole."""
    first = await client.get(path)

    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    other = await client.get(path, headers={"If-None-Match": '"another"'})

    assert (again.status, await again.read()) == (304, b"")
    assert other.status == 200


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [pytest.param("gzip, br", True, id="gzip is known"), pytest.param("identity", False, id="gzip is not known")],
)
async def test_the_page_is_compressed_for_whoever_can_read_that(client, accepted, packed):
    """A tenth of the bytes, for the same page."""
    response = await client.get("/docs", headers={"Accept-Encoding": accepted}, auto_decompress=False)
    body = await response.read()

    assert (response.headers.get("Content-Encoding") == "gzip") is packed
    assert (gzip.decompress(body) if packed else body) == page().plain
    assert response.headers["Vary"] == "Accept-Encoding"


async def test_the_policy_allows_the_style_of_the_page_and_nothing_else(client):
    """The hash in the policy is that of the one style; scripts, frames and requests are excluded."""
    policy = (await client.get("/docs")).headers["Content-Security-Policy"]
    style = TEXT.partition("<style>")[2].partition("</style>")[0]
    source = "sha256-" + b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"style-src '{source}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_the_page_asks_nobody_for_anything():
    """No script, no handler, no inline style, and every address is on the page or beside it."""
    addresses = [value for _, each in PAGE.elements for name, value in each.items() if name in {"href", "src"}]

    assert PAGE.every("script", "iframe", "form", "img") == []
    assert [name for _, each in PAGE.elements for name in each if name == "style" or name.startswith("on")] == []
    assert {address for address in addresses if not address.startswith(("#", "data:image/"))} == {"openapi.json"}
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_operation_is_on_the_page():
    """Each has its place, its method, its path and its roles."""
    identifiers = {each.get("id") for each in PAGE.every("article")}

    assert identifiers == {call.id for call in CALLS}
    assert {(method, route.path) for route in ROUTES for method in methods(route)} <= {
        (call.method, call.path) for call in CALLS
    }
    assert all(call.roles for call in CALLS if call.path.startswith("/v1"))


def test_every_link_on_the_page_leads_somewhere():
    """The contents list and the anchors name elements that are there, and each name once."""
    names = [each["id"] for _, each in PAGE.elements if "id" in each]
    targets = {each["href"][1:] for each in PAGE.every("a") if each["href"].startswith("#")}
    labels = {name for _, each in PAGE.elements for name in each.get("aria-labelledby", "").split()}

    assert len(set(names)) == len(names)
    assert targets | labels <= set(names)


def test_the_page_has_a_language_a_title_and_landmarks():
    """WCAG 2.2: 1.3.1, 2.4.1, 2.4.2, 3.1.1."""
    assert PAGE.every("html") == [{"lang": "en"}]
    assert len(PAGE.every("title")) == 1
    assert [len(PAGE.every(tag)) for tag in ("header", "nav", "main", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert PAGE.every("a")[0] == {"class": "skip", "href": "#content"}


def test_headings_go_down_one_level_at_a_time():
    """WCAG 2.2: 1.3.1; a reader's list of headings is the page's outline."""
    levels = [int(tag[1]) for tag, _ in PAGE.elements if re.fullmatch("h[1-6]", tag)]

    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name():
    """WCAG 2.2: 2.1.1 and 4.1.2."""
    assert all(each.get("tabindex") == "0" and each.get("aria-label") for each in PAGE.every("pre"))
    assert ":focus-visible" in STYLE


def fields_of(shape):
    """The fields of a body; none without one."""
    return () if shape is None else shape.fields


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def themes():
    """The colours by name, of the light and of the dark theme."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root {(.*?)}", STYLE, re.DOTALL)
    )
    return light, light | dark


@pytest.mark.parametrize(
    "colours", [pytest.param(each, id=name) for name, each in zip(("light", "dark"), themes(), strict=True)]
)
@pytest.mark.parametrize(
    ("front", "back"),
    [
        *(
            pytest.param(front, "page", id=f"{front} on the page")
            for front in ("ink", "soft", "link", "get", "post", "put", "patch", "delete")
        ),
        *(pytest.param(front, "raised", id=f"{front} on a sample") for front in ("ink", "soft", "key", "text", "word")),
        *(
            pytest.param(method, f"{method}-tint", id=f"{method} on its tint")
            for method in ("get", "post", "put", "patch", "delete")
        ),
    ],
)
def test_text_stands_out_from_what_is_behind_it(colours, front, back):
    """WCAG 2.2, 1.4.3: 4.5 to 1, in both themes."""
    lighter, darker = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)

    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


@pytest.mark.parametrize("call", [call for call in CALLS if call.body is not None], ids=lambda call: call.id)
def test_an_example_is_a_line_that_a_shell_understands(call):
    """Quotes inside the body do not end it; what curl sends is the document's example."""
    words = shlex.split(call.curl)
    item = contract()["paths"][call.path][call.method.lower()]

    assert words[:2] == ["curl", "-sS"]
    content = item["requestBody"]["content"]
    if "application/json" in content:
        assert json.loads(words[words.index("-d") + 1]) == content["application/json"]["example"]
    else:
        assert words[words.index("--data-binary") + 1] == content["application/x-ndjson"]["example"]
    assert "{" not in next(word for word in words if word.startswith("$ACCESSGUARD"))


def test_an_apostrophe_in_a_body_stays_inside_it():
    """A shell reads the body as one word."""
    body = {"content": {"application/json": {"example": {"name": "O'Hara"}}}}

    line = curl("PUT", "/v1/members/{member_id}", body, secured=True)

    assert json.loads(shlex.split(line)[-1]) == {"name": "O'Hara"}
    assert line.startswith('curl -sS -X PUT "$ACCESSGUARD/v1/members/stu-1"')


@pytest.mark.parametrize(
    ("text", "html"),
    [
        pytest.param("a `b` c", "a <code>b</code> c", id="code"),
        pytest.param("<b> & `<i>`", "&lt;b&gt; &amp; <code>&lt;i&gt;</code>", id="markup is text"),
    ],
)
def test_prose_is_escaped(text, html):
    """Only code becomes an element."""
    assert prose(text) == Markup(html)


@pytest.mark.parametrize(
    ("code", "html"),
    [
        pytest.param(
            '{"a": "b"}', '{<i class="key">&#34;a&#34;</i>: <i class="text">&#34;b&#34;</i>}', id="keys and texts"
        ),
        pytest.param("[1, null]", '[<i class="word">1</i>, <i class="word">null</i>]', id="numbers and words"),
        pytest.param("http://127.0.0.1:8080", "http://127.0.0.1:8080", id="an address is no number"),
        pytest.param('"</i><script>"', '<i class="text">&#34;&lt;/i&gt;&lt;script&gt;&#34;</i>', id="markup is text"),
    ],
)
def test_code_is_escaped_and_coloured(code, html):
    """Whatever stands in an example stays text."""
    assert coloured(code) == Markup(html)


@pytest.mark.parametrize(
    ("path", "field", "expected"),
    [
        pytest.param("/v1/check", "session_id", ("string", True, ("1 to 128 characters",)), id="a text with bounds"),
        pytest.param("/v1/check", "explain", ("boolean", False, ("default `false`",)), id="a default"),
        pytest.param("/v1/checks", "checks", ("list of Check", True, ("1 to 500 items",)), id="a list"),
        pytest.param("/v1/logins", "client_hints", ("map of string or null", False, ()), id="a map"),
        pytest.param("/v1/logins", "attempt_id", ("uuid or null", False, ()), id="a UUID or null"),
    ],
)
def test_a_field_is_told_in_words(path, field, expected):
    """Type, need and limits, as a person reads them."""
    call = next(call for call in CALLS if call.path == path)
    found = next(each for each in fields_of(call.body) if each.name == field)

    assert (found.type, found.required, found.limits) == expected


def test_a_field_shows_what_is_inside_it():
    """The fields of a rule's parameters stand under the rule."""
    call = next(call for call in CALLS if call.id == "post_rules")
    params = next(each for each in fields_of(call.body) if each.name == "params")

    assert [shape.name for shape in params.inner] == list(dict.fromkeys(each.__name__ for each in PARAMS.values()))
