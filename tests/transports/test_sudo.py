# SPDX-License-Identifier: Apache-2.0
"""The rules for sudo that we ship let the helper of os-brick be started, and nothing else.

That it suffices is shown by the round trips of the plain user.
"""

from __future__ import annotations

import shlex

import pytest

from tests.transports.guest import USER, Guest

_HELPER = "/opt/osbrick/bin/privsep-helper"
_CONTEXT = ("--privsep_context", "os_brick.privileged.default")
_SOCKET = ("--privsep_sock_path", "/tmp/tmpa1b_2c3d/privsep.sock")


def sudo(guest: Guest, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of sudo as the plain user calls it."""
    line = f"runuser -u {USER} -- sudo -n {shlex.join(words)}"
    status, out, err = guest.call("shell.script", line)
    return status, out, err


def test_the_helper_is_allowed(guest: Guest) -> None:
    status, _, told = sudo(guest, "-l", _HELPER, *_CONTEXT, *_SOCKET)
    assert status == 0, told


@pytest.mark.parametrize(
    "command",
    [
        ["/usr/bin/cat", "/etc/shadow"],
        ["/usr/sbin/iscsiadm", "-m", "session"],
        [_HELPER],
        [_HELPER, *_CONTEXT],
        [_HELPER, "--config-file", "/tmp/mine.conf", *_CONTEXT, *_SOCKET],
        [_HELPER, *_CONTEXT, *_SOCKET, "--config-file", "/tmp/mine.conf"],
        [_HELPER, "--privsep_context", "os.system", *_SOCKET],
        [_HELPER, *_CONTEXT, "--privsep_sock_path", "/tmp/tmpa1b_2c3d/../../etc/privsep.sock"],
        [_HELPER, *_CONTEXT, "--privsep_sock_path", "/run/privsep.sock"],
        ["/usr/bin/privsep-helper", *_CONTEXT, *_SOCKET],
    ],
    ids=lambda command: " ".join(command)[:70],
)
def test_anything_else_is_refused(guest: Guest, command: list[str]) -> None:
    status, _, told = sudo(guest, *command)
    assert status == 1
    assert "password is required" in told or "not allowed" in told
