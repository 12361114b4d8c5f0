#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare freezer-osbrick with its peers: all in one run, on the same data, on this machine.

Each program makes a full backup of a volume, one after a change, one of the unchanged volume, and
restores the last; every restored volume is compared with its source. The exit status is 1 where a
program failed or restored something else.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import contenders
import images
import measure
import results

MIB = 1 << 20


class Comparison:
    """One run of the benchmark."""

    def __init__(self, folder: pathlib.Path, runners: Sequence[contenders.Contender]) -> None:
        self._folder = folder
        self._runners = list(runners)
        self.results = results.Results()
        self.problems: list[str] = []

    def measure(self, pair: images.Pair, runs: int) -> None:
        """Measure all programs in turn, phase by phase, so that what else happens on the machine
        meets all of them."""
        digests = {path: images.digest(path) for path in (pair.before, pair.after)}
        for number in range(1, runs + 1):
            running = {runner.name: runner for runner in self._runners}
            for runner in self._runners:
                self._try(running, runner, "begin", pair, number)
            for phase in ("full", "change", "unchanged", "restore"):
                for runner in list(running.values()):
                    if runner.incremental or phase in ("full", "restore"):
                        self._try(running, runner, phase, pair, number, digests)
            shutil.rmtree(self._folder / "runs", ignore_errors=True)

    def _try(
        self,
        running: dict[str, contenders.Contender],
        runner: contenders.Contender,
        phase: str,
        pair: images.Pair,
        number: int,
        digests: dict[pathlib.Path, str] | None = None,
    ) -> None:
        """One phase of one program. A program that fails is left out of the rest of this run."""
        try:
            if phase == "begin":
                runner.begin(self._folder / "runs" / runner.name.replace(" ", "-"))
            elif phase == "restore":
                source = pair.after if runner.incremental else pair.before
                self._restore(runner, pair, (digests or {})[source])
            else:
                self._backup(runner, phase, pair)
        except (measure.Failed, contenders.Unavailable, OSError, ValueError) as error:
            del running[runner.name]
            self._problem(f"{runner.name} failed: {pair.name}, {phase}, run {number}: {error}")

    def _backup(self, runner: contenders.Contender, phase: str, pair: images.Pair) -> None:
        image = pair.before if phase == "full" else pair.after
        measure.warm(image)
        before = measure.stored(runner.repository)
        cost = runner.backup(image)
        added = measure.stored(runner.repository) - before
        self._add(runner, phase, pair, cost, added)

    def _restore(self, runner: contenders.Contender, pair: images.Pair, wanted: str) -> None:
        cost, restored = runner.restore(pair.size)
        self._add(runner, "restore", pair, cost, None)
        if images.digest(restored) != wanted:
            self._problem(f"WRONG DATA: what {runner.name} restored is not the source: {pair.name}")
        shutil.rmtree(runner.folder / "restored")

    def _add(
        self,
        runner: contenders.Contender,
        phase: str,
        pair: images.Pair,
        cost: measure.Cost,
        added: int | None,
    ) -> None:
        self.results.add(pair.name, phase, runner.name, pair.size, cost, added)
        _say(
            f"{pair.name}, {phase}, {runner.name}: {cost.wall:.2f} s, CPU {cost.cpu:.2f} s,"
            f" {cost.memory / MIB:.0f} MiB"
        )

    def _problem(self, told: str) -> None:
        self.problems.append(told)
        _say(told)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    folder = pathlib.Path(args.folder).resolve()
    runners = _installed(args, folder)
    work = pathlib.Path(tempfile.mkdtemp(prefix="compare-", dir=folder))
    try:
        comparison = Comparison(work, [runner for runner, _ in runners])
        pairs = []
        for pair in _pairs(args, folder):
            pairs.append(pair)
            _say(f"{pair.name}: {pair.made_of}")
            comparison.measure(pair, args.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    machine = _machine()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB,")
    print(f"load {machine['load']}, median of {args.runs}; {time.strftime('%Y-%m-%d')}")
    for pair in pairs:
        print(f"{pair.name}: {pair.size / MIB:.0f} MiB, {pair.made_of}")
    for runner, version in runners:
        print(f"{runner.name} {version}: {runner.about}")
    print()
    print(comparison.results.table())
    print()
    for line in [*comparison.results.summary(), *comparison.problems]:
        print(line)
    if args.json:
        _write_json(args.json, args, machine, runners, pairs, comparison)
    return 1 if comparison.problems else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder",
        default=".",
        help="for images, environments and repositories:"
        " about ten times the size of a volume (default: where you are)",
    )
    parser.add_argument("--size", type=float, default=4, help="of a volume, in GiB (default: 4)")
    parser.add_argument("--runs", type=int, default=3, help="of each program (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one run with volumes of 1 GiB")
    parser.add_argument(
        "--threads",
        type=int,
        default=4,
        help="of ours and of benji (default: 4, as freezer-osbrick has it)",
    )
    parser.add_argument(
        "--data",
        default=",".join(images.KINDS),
        metavar="KIND[,KIND...]",
        help=f"kinds of volumes (default and all: {','.join(images.KINDS)})",
    )
    parser.add_argument(
        "--only", metavar="NAME[,NAME...]", help="programs whose name begins so, and ours"
    )
    parser.add_argument(
        "--image",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        type=pathlib.Path,
        help="two images of your own instead of the generated ones",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    args = parser.parse_args(argv)
    if args.quick:
        args.size, args.runs = 1, 1
    args.kinds = args.data.split(",")
    if unknown := [kind for kind in args.kinds if kind not in images.KINDS]:
        parser.error(f"there is no kind {unknown[0]!r}; there are {', '.join(images.KINDS)}")
    if args.size < 0.5:
        parser.error("a volume needs half a GiB at least")
    if args.runs < 1 or args.threads < 1:
        parser.error("--runs and --threads must be 1 at least")
    if args.image:
        try:
            images.given(*args.image)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    return args


def _installed(
    args: argparse.Namespace, folder: pathlib.Path
) -> list[tuple[contenders.Contender, str]]:
    """All programs that can be had, with their versions."""
    installs = folder / "environments"
    installs.mkdir(parents=True, exist_ok=True)
    found = []
    for kind in contenders.ALL:
        chosen = not args.only or any(kind.name.startswith(name) for name in args.only.split(","))
        if not chosen and kind is not contenders.Ours:
            continue
        runner = kind(installs, args.threads)
        try:
            found.append((runner, runner.install()))
        except (contenders.Unavailable, OSError) as error:
            _say(f"Without {runner.name}: {error}")
    return found


def _pairs(args: argparse.Namespace, folder: pathlib.Path) -> Any:
    if args.image:
        yield images.given(*args.image)
        return
    size = int(args.size * 1024) // 64 * 64 * MIB
    for kind in args.kinds:
        yield images.make(kind, folder / "images", size)


def _machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": memory >> 30,
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def _write_json(
    path: str,
    args: argparse.Namespace,
    machine: dict[str, Any],
    runners: Sequence[tuple[contenders.Contender, str]],
    pairs: Sequence[images.Pair],
    comparison: Comparison,
) -> None:
    document = {
        "machine": machine,
        "runs": args.runs,
        "threads": args.threads,
        "programs": [
            {"name": runner.name, "version": version, "about": runner.about}
            for runner, version in runners
        ],
        "data": [
            {"name": pair.name, "bytes": pair.size, "made_of": pair.made_of} for pair in pairs
        ],
        "results": comparison.results.to_list(),
        "problems": comparison.problems,
    }
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def _say(told: str) -> None:
    print(told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
