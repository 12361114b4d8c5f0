# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations import signals
from tests.unit.commands.conftest import VOLUME


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_operations_in_order(run, operations, number, status) -> None:
    cleaned = []

    def long_work(*_args, **_kwargs):
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("the signal did not end the work")
        finally:
            os.kill(os.getpid(), number)  # an impatient second one must not stop the cleaning up
            cleaned.append("snapshot deleted")

    operations.answers["backup"] = long_work
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert outcome.status == status
    assert cleaned == ["snapshot deleted"]
    assert "taking down what was set up" in outcome.err
    assert "Traceback" not in outcome.err


def test_operations_may_say_themselves_that_they_were_ended(run, operations) -> None:
    operations.answers["backup"] = errors.Interrupted("Ended by SIGTERM.", signal.SIGTERM)
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert (outcome.status, outcome.error_lines) == (143, ["Ended by SIGTERM."])


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.ending_in_order(lambda line: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_third_signal_ends_at_once() -> None:
    program = (
        "import os, signal\n"
        "from freezer_osbrick.operations import signals\n"
        "with signals.ending_in_order(lambda line: None):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('patient', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('never reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.split() == ["patient"]
