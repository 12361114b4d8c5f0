# SPDX-License-Identifier: Apache-2.0
"""Dates on the command line: ISO 8601, UTC where no zone is given, as Freezer reads them."""

from __future__ import annotations

import argparse
import datetime
import math


def parse_date(text: str) -> int:
    """Seconds since the epoch of an ISO 8601 date, fractions cut off.

    A date without a time means its first second; ``Z`` and ``+hh:mm`` are understood.

    :raises ValueError: not such a date.
    """
    iso = text.strip()
    if iso[-1:] in ("Z", "z"):  # Python 3.10 does not know this letter
        iso = iso[:-1] + "+00:00"
    moment = datetime.datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return math.floor(moment.timestamp())


def date_argument(text: str) -> int:
    """:func:`parse_date` for argparse."""
    try:
        return parse_date(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date; write it as 2026-11-20T21:30:00Z"
        ) from None


def format_date(epoch: float) -> str:
    """An epoch time in UTC, to the second, for people."""
    moment = datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
