"""What other rooms refuse with where an operator may meet it on a page; what is not among these is said in English."""

from __future__ import annotations

from typing import Final

from accessguard.words.catalogues import word

REFUSALS: Final = (
    word("A device cannot be merged into itself."),
    word("A member cannot be merged into itself."),
    word("A store takes too long; try again shortly."),
    word("A value is none that can be stored or compared."),
    word("Logins that waited are being written; try again shortly."),
    word("Logins wait to be written; try again when they are."),
    word("The confirmation was refused."),
    word("The database is out of reach; try again shortly."),
    word("The device is part of another one already."),
    word("The form is larger than this page takes."),
    word("The form is larger than this service accepts."),
    word("The form is not what its headers say."),
    word("The history could not be read; try again shortly."),
    word("The job could not be kept; try again shortly."),
    word("The message was refused."),
    word("The period was refused."),
    word("The query is not valid."),
    word("The rule contradicts another one."),
    word("The rule was refused."),
    word("The settings were refused."),
    word("The webhook was refused."),
    word("There are too many webhooks; delete one first."),
    word("There is no such delivery."),
    word("There is no such enrolment."),
    word("There is no such job."),
    word("There is no such member."),
    word("There is no such place in this list."),
    word("There is no such tenant."),
    word("There is no such violation."),
    word("This job leaves no file."),
    word("This took too long; ask again."),
    word("Too much is under way; try again shortly."),
    word("Two reports are written already; try again when one is done."),
    word("Two simulations are going on already; try again when one is done."),
    word("Your role does not allow this action."),
    word("Your role does not see who is restricted."),
)
"""Each as `GuardError` is given it; the page of a refusal translates it."""
