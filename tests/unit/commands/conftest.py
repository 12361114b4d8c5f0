# SPDX-License-Identifier: Apache-2.0
"""The command line with operations that only write down what they were asked."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from freezer_osbrick.commands import main

VOLUME = "7d2c6a0e-3a55-4f5c-9a0f-0c1f9a2a7b11"
OTHER_VOLUME = "11c0ffee-0000-4000-8000-000000000001"


class Record:
    """A result of operations: fields, and the same as a dict."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


class Operations:
    """What was asked of operations, and what they are to answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.conf: Any = None
        self.answers: dict[str, Any] = {}
        self.events: list[Record] = []

    def verb(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, progress: Any = None, **kwargs: Any) -> Any:
            self.calls.append((name, Record(args=args[1:], progress=progress, **kwargs)))
            for event in self.events:
                if progress:
                    progress(event)
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call

    def asked(self, name: str) -> Any:
        """The only call of this verb."""
        (found,) = [call for called, call in self.calls if called == name]
        return found


def request_class(name: str, fields: list[str]) -> type:
    return dataclasses.make_dataclass(name, [(field, Any) for field in fields], frozen=True)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    fake = Operations()

    class Context:
        cloud, host, ledger = "cloud", "host", "ledger"

        @classmethod
        def open(cls, conf: Any, *, session: Any = None) -> Context:
            fake.conf = conf
            context = cls()
            context.conf = conf  # type: ignore[attr-defined]
            return context

    modules: dict[str, dict[str, Any]] = {
        "context": {"Context": Context},
        "backup": {
            "backup": fake.verb("backup"),
            "BackupRequest": request_class(
                "BackupRequest",
                [
                    "volume_ids",
                    "backup_name",
                    "hostname",
                    "incremental",
                    "max_level",
                    "always_level",
                    "restart_always_level",
                ],
            ),
        },
        "restore": {
            "restore": fake.verb("restore"),
            "RestoreRequest": request_class(
                "RestoreRequest",
                [
                    "volume_ids",
                    "backup_id",
                    "backup_name",
                    "hostname",
                    "before",
                    "volume_type",
                    "availability_zone",
                    "new_name",
                ],
            ),
        },
        "catalogue": {
            name: fake.verb(name) for name in ("list_backups", "show_backup", "remove_backups")
        },
        "cleanup": {"cleanup": fake.verb("cleanup")},
    }
    for name, members in modules.items():
        full = f"freezer_osbrick.operations.{name}"
        module = types.ModuleType(full)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, full, module)
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
def run(
    operations: Operations,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[Callable[..., Outcome]]:
    """Run a command line; no file of this user and no variable plays a part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FREEZER_OSBRICK_REPOSITORY", raising=False)
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


def volume_report(**changed: Any) -> Record:
    fields: dict[str, Any] = {
        "volume_id": VOLUME,
        "volume_name": "database",
        "project_id": "p1",
        "volume_type": "fast",
        "size_gib": 2,
        "state": "success",
        "reason": None,
        "backup_id": "0a1b2c3d",
        "level": 1,
        "time_stamp": 1795211400,
        "bytes_read": 2 << 30,
        "bytes_zero": 1 << 30,
        "bytes_reused": 1 << 20,
        "bytes_new": 3 << 20,
        "bytes_stored": 5000,
        "bytes_written": 0,
        "seconds": 4.25,
        "restored_volume_id": None,
        "target": None,
        "notes": [],
    }
    return Record(**{**fields, **changed})


def run_report(*volumes: Record) -> Record:
    return Record(volumes=list(volumes), ok=all(item.state == "success" for item in volumes))
