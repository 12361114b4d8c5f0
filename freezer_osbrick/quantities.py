# SPDX-License-Identifier: Apache-2.0
"""Shares and rates as people write them."""

from __future__ import annotations

import re
from typing import Any

from oslo_config import types

from freezer_osbrick import errors

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?(?:/s)?", re.IGNORECASE)


class Share(types.ConfigType):
    """A share of a whole: 5%, or 0.05; above nothing and at most all."""

    def __init__(self) -> None:
        super().__init__(type_name="share")

    def __call__(self, value: Any) -> float:
        try:
            return parse_share(value)
        except errors.BadRequest as error:
            raise ValueError(str(error)) from error

    def _formatter(self, value: Any) -> str:
        return str(value)

    def __repr__(self) -> str:
        return "Share"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Share)

    __hash__ = None  # type: ignore[assignment]


def parse_share(value: Any) -> float:
    """A share of a whole from ``5%`` or ``0.05``: above 0, and up to 1.

    :raises errors.BadRequest: it is none.
    """
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise errors.BadRequest(f"{text!r} is no share; write it as 5% or 0.05")
    return share


def parse_rate(text: str | int | None) -> int | None:
    """Bytes a second from ``10K``, ``120M``, ``1.5G`` or a number; None means no limit.

    Freezer writes no limit as -1.

    :raises errors.BadRequest: it is no rate, or nothing would get through.
    """
    if text is None or str(text).strip() in ("", "-1"):
        return None
    found = _RATE.fullmatch(str(text).strip())
    if found is None:
        raise errors.BadRequest(f"{text!r} is no bandwidth: give bytes a second, or 10K, 120M, 1G.")
    rate = int(float(found[1]) * _UNITS[found[2].upper()])
    if rate < 1:
        raise errors.BadRequest(f"With a bandwidth of {text!r} nothing would get through.")
    return rate
