# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib
import time

import pytest

from freezer_osbrick.cloud.ledger import Ledger
from tests.unit.cloud.fake_cinder import FakeCloud


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def ledger(tmp_path: pathlib.Path) -> Ledger:
    return Ledger(str(tmp_path / "ledger"), "here")


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, and the clock goes on by them, without anybody waiting."""
    noted: list[float] = []
    now = time.monotonic()
    monkeypatch.setattr(time, "sleep", noted.append)
    monkeypatch.setattr(time, "monotonic", lambda: now + sum(noted))
    return noted
