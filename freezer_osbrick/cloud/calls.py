# SPDX-License-Identifier: Apache-2.0
"""The one place through which every request to the cloud goes: repeated where that may help, and
its errors told in our own terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import tenacity
from cinderclient import exceptions as cinder_exceptions
from keystoneauth1 import exceptions as auth_exceptions
from oslo_log import log as logging
from oslo_utils import strutils

from freezer_osbrick import errors, interruption

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 16.0


class Calls:
    """Requests to one cloud.

    :param retries: how often a request is repeated; 8 of them take about a minute.
    """

    def __init__(
        self, retries: int, *, sleep: Callable[[float], None] = interruption.sleep
    ) -> None:
        self._retries = retries
        self._sleep = sleep

    def call(self, what: str, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Make one request that may be made twice.

        :param what: completes "could not …", for people: "show volume 5cc1".
        :raises errors.CloudError: one of its kinds, by what went wrong.
        """
        for attempt in self._attempts(what):
            with attempt:
                return _translated(what, function, *args, **kwargs)
        raise AssertionError("unreachable")

    def create(
        self, what: str, make: Callable[[], T], find: Callable[[], T | None]
    ) -> tuple[T, bool]:
        """Make one request that must not be made twice, because it creates something.

        A request without an answer may have done its work: before it is repeated, ``find`` looks
        for what it would have made.

        :param find: the resource that an earlier attempt made, or None.
        :returns: the resource, and whether a request remained without an answer (there may be a
            second resource, made by a request that was answered by nobody).
        """
        ambiguous = False
        for attempt in self._attempts(what):
            with attempt:
                if ambiguous:
                    found = find()
                    if found is not None:
                        return found, True
                try:
                    return _translated(what, make), ambiguous
                except errors.CloudUnavailable:
                    ambiguous = True
                    raise
        raise AssertionError("unreachable")

    def _attempts(self, what: str) -> Iterator[tenacity.AttemptManager]:
        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            LOG.warning("%s Trying again (%s of %s).", error, state.attempt_number, self._retries)

        return iter(
            tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(errors.CloudUnavailable),
                stop=tenacity.stop_after_attempt(self._retries + 1),
                wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)
                + tenacity.wait_random(0, _FIRST_PAUSE / 2),
                sleep=self._sleep,
                before_sleep=tell,
                reraise=True,
            )
        )


def _translated(what: str, function: Callable[..., T], *args: object, **kwargs: object) -> T:
    try:
        return function(*args, **kwargs)
    except cinder_exceptions.ClientException as error:
        raise _by_status(
            what, error.code, _said(error), getattr(error, "retry_after", 0)
        ) from error
    except auth_exceptions.HttpError as error:
        raise _by_status(what, error.http_status, _answered(error), error.retry_after) from error
    except (
        auth_exceptions.ConnectionError,
        auth_exceptions.RetriableConnectionFailure,
        cinder_exceptions.ConnectionError,
    ) as error:
        raise errors.CloudUnavailable(f"Could not {what}: no answer: {_said(error)}") from error
    except (auth_exceptions.EndpointNotFound, cinder_exceptions.EndpointNotFound) as error:
        raise errors.ConfigurationError(
            f"Could not {what}: the cloud's catalogue has no block storage there: {_said(error)}"
        ) from error
    except (
        auth_exceptions.ClientException,
        cinder_exceptions.VersionNotFoundForAPIMethod,
        cinder_exceptions.UnsupportedVersion,
    ) as error:
        raise errors.CloudError(f"Could not {what}: {_said(error)}") from error


def _by_status(what: str, status: int, said: str, retry_after: object) -> errors.CloudError:
    message = f"Could not {what}: {said}"
    if status == 429 or (status == 413 and retry_after):
        return errors.CloudUnavailable(message)  # too many requests in a time
    if status == 413:
        # Cinder's message names the quota.
        return errors.QuotaExceeded(f"Could not {what}: a quota is used up: {said}")
    if status in (401, 403):
        return errors.CloudAccessDenied(message)
    if status == 404:
        return errors.ResourceMissing(message)
    if status >= 500 and status != 501:
        return errors.CloudUnavailable(message)
    return errors.CloudRefused(message)


def _answered(error: auth_exceptions.HttpError) -> str:
    """The service's own words; keystoneauth finds them in some forms of an answer only."""
    if error.response is None:
        return _said(error)
    try:
        (inner,) = error.response.json().values()
        words = f"{inner['message']} (HTTP {error.http_status})"
    except (AttributeError, KeyError, TypeError, ValueError):
        return _said(error)
    return strutils.mask_password(" ".join(words.split()))


def _said(error: Exception) -> str:
    return strutils.mask_password(" ".join(str(error).split())) or type(error).__name__
