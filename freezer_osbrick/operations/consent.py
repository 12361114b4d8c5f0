# SPDX-License-Identifier: Apache-2.0
"""Asking a person before something is deleted that nobody can bring back."""

from __future__ import annotations

import sys

from freezer_osbrick import errors


def to_remove_old_volumes(*, given: bool) -> None:
    """Return if the person at the terminal agrees, or has agreed beforehand.

    Question and answer go by the standard error stream and the standard input: the standard output
    is for results.

    :param given: ``--yes`` was given: nobody is asked.
    :raises errors.BadRequest: the answer is no, or there is nobody to ask.
    """
    if given:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise errors.BadRequest("--remove-old-vol needs --yes where nobody can be asked.")
    print(
        "Every volume that is restored is deleted, as soon as its restored one was read back and"
        " proved. Go on? [yes/NO] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise errors.BadRequest("Nothing was done.")
