"""The contract as a document and as a page."""

from __future__ import annotations

from aiohttp import web


def add_docs(app: web.Application) -> None:
    """The document and its page."""
