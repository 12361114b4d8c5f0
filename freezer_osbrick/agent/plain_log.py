# SPDX-License-Identifier: Apache-2.0
"""Freezer logs whatever ends the agent with its traceback; of ours the message says it all."""

from __future__ import annotations

import logging

from freezer_osbrick import errors

_LOGGER = "freezer.main"


class _Plain(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        failure = record.exc_info[1] if record.exc_info else None
        wanted = logging.getLogger(_LOGGER).isEnabledFor(logging.DEBUG)
        if isinstance(failure, errors.OsbrickError) and not wanted:
            record.exc_info = None
        return True


def leave_out_tracebacks() -> None:
    """From now on, where the log is not one for debugging."""
    logging.getLogger(_LOGGER).addFilter(_Plain())
