# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import types
from collections.abc import Callable

import pytest
from cinderclient import exceptions as cinder
from keystoneauth1 import exceptions as keystone

from freezer_osbrick import errors
from freezer_osbrick.cloud.calls import Calls
from tests.unit.cloud.fake_cinder import server_error


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def calls(pauses: list[float]) -> Calls:
    return Calls(8, sleep=pauses.append)


def failing(*failures: Exception) -> Callable[[], str]:
    left = list(failures)

    def function() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return function


def over_limit(message: str, retry_after: str | None = None) -> cinder.OverLimit:
    error = cinder.OverLimit(413, message)
    error.retry_after = int(retry_after or 0)
    return error


def of_nova(document: object) -> keystone.Forbidden:
    """Nova's answers have forms that keystoneauth does not look into."""
    return keystone.Forbidden(response=types.SimpleNamespace(json=lambda: document))


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (of_nova({"forbidden": {"message": "root  disk"}}), errors.CloudAccessDenied, "root disk"),
        (of_nova(["root disk"]), errors.CloudAccessDenied, "403"),
        (of_nova({"forbidden": "root disk"}), errors.CloudAccessDenied, "403"),
        (cinder.BadRequest(400, "Invalid volume"), errors.CloudRefused, "Invalid volume"),
        (cinder.ClientException(409, "conflict"), errors.CloudRefused, "conflict"),
        (cinder.HTTPNotImplemented(501, "no"), errors.CloudRefused, "no"),
        (cinder.Unauthorized(401, "who"), errors.CloudAccessDenied, "who"),
        (cinder.Forbidden(403, "policy"), errors.CloudAccessDenied, "policy"),
        (keystone.Unauthorized("who"), errors.CloudAccessDenied, "who"),
        (cinder.NotFound(404, "gone"), errors.ResourceMissing, "gone"),
        (over_limit("exceeds gigabytes quota"), errors.QuotaExceeded, "gigabytes quota"),
        (keystone.EndpointNotFound("no"), errors.ConfigurationError, "no block storage"),
        (keystone.MissingRequiredOptions([]), errors.CloudError, "Could not test"),
        (
            cinder.VersionNotFoundForAPIMethod("3.0", "create"),
            errors.CloudError,
            "3.0.*not supported",
        ),
    ],
)
def test_told_in_our_terms_and_not_repeated(
    calls: Calls, pauses: list[float], failure: Exception, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        calls.call("test", failing(failure))
    assert type(caught.value) is kind
    assert caught.value.__cause__ is failure
    assert pauses == []


@pytest.mark.parametrize(
    "failure",
    [
        server_error(500),
        server_error(503),
        server_error(429),
        over_limit("This request was rate-limited.", "3"),
        keystone.ConnectFailure("refused"),
        keystone.ConnectTimeout("slow"),
        keystone.ServiceUnavailable("no keystone"),
    ],
)
def test_repeated_until_it_is_done(calls: Calls, pauses: list[float], failure: Exception) -> None:
    assert calls.call("test", failing(*[failure] * 8)) == "done"
    assert 45 <= sum(pauses) <= 75
    assert pauses == sorted(pauses) or max(pauses) >= 16


def test_the_last_failure_is_raised(calls: Calls, pauses: list[float]) -> None:
    with pytest.raises(errors.CloudUnavailable, match="Could not show it: out of order"):
        calls.call("show it", failing(*[server_error()] * 9))
    assert len(pauses) == 8


def test_arguments_are_passed(calls: Calls) -> None:
    assert calls.call("add", lambda first, second: first + second, 1, second=2) == 3


def test_other_errors_pass_through(calls: Calls) -> None:
    with pytest.raises(ZeroDivisionError):
        calls.call("divide", lambda: 1 / 0)
    with pytest.raises(errors.DeviceError):
        calls.call("attach", failing(errors.DeviceError("no")))


def test_messages_are_one_line_without_secrets(calls: Calls) -> None:
    error = cinder.BadRequest(400, "wrong\n{'password': 'sesame'}")
    with pytest.raises(errors.CloudRefused) as caught:
        calls.call("test", failing(error))
    assert "\n" not in str(caught.value)
    assert "sesame" not in str(caught.value)


# -- creating --------------------------------------------------------------------------------------


def test_created_at_once(calls: Calls) -> None:
    def find() -> None:
        raise AssertionError("nobody asked")

    assert calls.create("make it", lambda: "made", find) == ("made", False)


def test_created_by_the_request_that_was_not_answered(calls: Calls) -> None:
    there: list[str] = []

    def make() -> str:
        there.append(f"number {len(there)}")
        raise server_error()

    assert calls.create("make it", make, lambda: there[0] if there else None) == (
        "number 0",
        True,
    )
    assert len(there) == 1


def test_created_again_when_nothing_is_there(calls: Calls) -> None:
    made, doubtful = calls.create("make it", failing(server_error()), lambda: None)
    assert made == "done"
    assert doubtful  # the first request may yet be at work


def test_looking_for_it_may_fail_too(calls: Calls) -> None:
    def find() -> str:
        return calls.call("look", failing(server_error()))

    assert calls.create("make it", failing(server_error()), find) == ("done", True)


def test_not_created(calls: Calls, pauses: list[float]) -> None:
    with pytest.raises(errors.QuotaExceeded):
        calls.create("make it", failing(over_limit("quota")), lambda: None)
    assert pauses == []
    with pytest.raises(errors.CloudUnavailable):
        calls.create("make it", failing(*[server_error()] * 9), lambda: None)
