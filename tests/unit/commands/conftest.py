# SPDX-License-Identifier: Apache-2.0
"""The command line with operations that only write down what they were asked."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from freezer_osbrick.commands import main
from freezer_osbrick.operations import context
from freezer_osbrick.operations.report import RunReport, VolumeReport
from freezer_osbrick.pipeline.progress import ProgressEvent

VOLUME = "7d2c6a0e-3a55-4f5c-9a0f-0c1f9a2a7b11"
OTHER_VOLUME = "11c0ffee-0000-4000-8000-000000000001"


@dataclasses.dataclass
class Call:
    """One call of a verb, without its context."""

    args: tuple[Any, ...]
    progress: Any
    options: dict[str, Any]


class Operations:
    """What was asked of operations, and what they are to answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Call]] = []
        self.conf: Any = None
        self.answers: dict[str, Any] = {}
        self.events: list[ProgressEvent] = []

    def verb(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, progress: Any = None, **kwargs: Any) -> Any:
            self.calls.append((name, Call(args[1:], progress, kwargs)))
            for event in self.events:
                if progress:
                    progress(event)
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call

    def asked(self, name: str) -> Call:
        """The only call of this verb."""
        (found,) = [call for called, call in self.calls if called == name]
        return found


VERBS = {
    "backup": ("backup",),
    "restore": ("restore",),
    "catalogue": ("list_backups", "show_backup", "remove_backups"),
    "cleanup": ("cleanup",),
}


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    """The verbs of operations are replaced; requests, reports and context are the real ones."""
    fake = Operations()

    def open_context(conf: Any, *, session: Any = None, **_: Any) -> context.Context:
        fake.conf = conf
        return context.Context(conf, session)

    monkeypatch.setattr(context.Context, "open", open_context)
    for part in ("cloud", "host", "ledger"):
        monkeypatch.setattr(context.Context, part, part)
    for module, verbs in VERBS.items():
        for verb in verbs:
            monkeypatch.setattr(f"freezer_osbrick.operations.{module}.{verb}", fake.verb(verb))
    return fake


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclasses.dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error_lines(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture
def run(operations: Operations, command_line: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Run a command line on operations that are replaced."""
    return command_line


@pytest.fixture
def command_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[Callable[..., Outcome]]:
    """Run a command line; no file of this user and no variable plays a part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("FREEZER_OSBRICK_REPOSITORY", "FREEZER_OSBRICK_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run_command(*argv: str) -> Outcome:
        try:
            status = main.main(list(argv))
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        finally:
            for handler in set(root.handlers) - set(handlers):
                root.removeHandler(handler)
                handler.close()
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run_command
    root.setLevel(level)


def volume_report(**changed: Any) -> VolumeReport:
    fields: dict[str, Any] = {
        "volume_id": VOLUME,
        "volume_name": "database",
        "project_id": "p1",
        "volume_type": "fast",
        "size_gib": 2,
        "backup_id": "0a1b2c3d",
        "level": 1,
        "time_stamp": 1795211400,
        "bytes_read": 2 << 30,
        "bytes_zero": 1 << 30,
        "bytes_reused": 1 << 20,
        "bytes_new": 3 << 20,
        "bytes_stored": 5000,
        "seconds": 4.25,
    }
    return VolumeReport(**{**fields, **changed})


def run_report(*volumes: VolumeReport) -> RunReport:
    return RunReport(list(volumes))
