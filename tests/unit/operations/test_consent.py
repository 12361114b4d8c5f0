# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations import consent


class Person(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["yes\n", "Y\n", " YES \n"])
def test_a_person_agrees(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Person(answer))
    consent.to_remove_old_volumes(given=False)
    said = capsys.readouterr()
    assert "is deleted" in said.err
    assert said.out == ""


@pytest.mark.parametrize("answer", ["", "\n", "no\n", "yes, but\n"])
def test_a_person_does_not_agree(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Person(answer))
    with pytest.raises(errors.BadRequest, match="Nothing was done"):
        consent.to_remove_old_volumes(given=False)


@pytest.mark.parametrize("stdin", [io.StringIO("yes\n"), None])
def test_where_nobody_can_be_asked(stdin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(errors.BadRequest, match="--yes"):
        consent.to_remove_old_volumes(given=False)
    consent.to_remove_old_volumes(given=True)
