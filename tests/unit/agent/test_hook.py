# SPDX-License-Identifier: Apache-2.0
"""The hook in fresh interpreters: what it costs, and that it harms nobody."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.unit.agent.conftest import CREDENTIALS, ROOT, clean_environment

BOOT = "import freezer_osbrick.agent.boot\n"
PRINT_NEW = "new = sorted(set(sys.modules) - before)\nimport json; print(json.dumps(new))"
AGENT = BOOT + "import sys\nfrom freezer.main import main\nsys.exit(main())\n"
TAR = ("--action", "backup", "--storage", "local", "--backup-name", "files")

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def python(tmp_path: pathlib.Path) -> Python:
    """Runs a script in a fresh interpreter that finds our package.

    A bare one knows neither site-packages nor a .pth that may be installed there.
    """

    def run(
        script: str,
        *argv: str,
        env: dict[str, str] | None = None,
        path: str = "",
        bare: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        environment = {**clean_environment(tmp_path), **(env or {})}
        if path:
            environment["PYTHONPATH"] = os.pathsep.join((path, environment["PYTHONPATH"]))
        return subprocess.run(
            [sys.executable, *(["-S"] if bare else []), "-W", "ignore", "-c", script, *argv],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


# -- unrelated programs --------------------------------------------------------------------------


def test_nothing_but_itself_is_imported(python: Python) -> None:
    script = "import sys, os; before = set(sys.modules)\n" + BOOT + PRINT_NEW
    done = python(script, bare=True)
    assert json.loads(done.stdout) == [
        "freezer_osbrick",
        "freezer_osbrick.agent",
        "freezer_osbrick.agent.boot",
    ]


def test_the_line_in_the_pth_is_one_that_site_runs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "freezer-osbrick.pth").write_text((ROOT / "freezer-osbrick.pth").read_text())
    script = "import site, sys; site.addsitedir(sys.argv[1]); print('boot' in str(sys.meta_path))"
    environment = clean_environment(tmp_path)
    for expected in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-S", "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert (done.stdout.strip(), done.stderr) == (expected, "")
        # Without the package, as in the middle of an uninstallation, it says nothing.
        environment["PYTHONPATH"] = str(tmp_path / "nowhere")


def test_the_variable_switches_it_off(python: Python) -> None:
    script = BOOT + "import sys; print(freezer_osbrick.agent.boot.Finder in sys.meta_path)"
    assert python(script).stdout == "True\n"
    assert python(script, env={"FREEZER_OSBRICK_DISABLE": "0"}).stdout == "True\n"
    assert python(script, env={"FREEZER_OSBRICK_DISABLE": "1"}).stdout == "False\n"


def test_other_imports_are_left_alone(python: Python) -> None:
    done = python(BOOT + "import json, sys; print('freezer_osbrick.agent.hooks' in sys.modules)")
    assert done.stdout == "False\n"


def test_the_time_it_takes(python: Python, record_property: Callable[..., None]) -> None:
    """Reports the median cost of a start; the proof is the list of modules above."""
    script = (
        "import sys, time\nbegun = time.perf_counter()\n"
        + BOOT
        + "print(time.perf_counter() - begun)"
    )
    python(script, bare=True)  # writes the byte code
    seconds = [float(python(script, bare=True).stdout) for _ in range(7)]
    milliseconds = 1000 * statistics.median(seconds)
    record_property("hook_milliseconds", round(milliseconds, 3))
    print(f"the hook costs {milliseconds:.3f} ms a start")
    assert milliseconds > 0


# -- Freezer of another shape --------------------------------------------------------------------


def fake_freezer(folder: pathlib.Path, config: str = "", job: str = "") -> str:
    for package in ("freezer", "freezer/common"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    (folder / "freezer" / "common" / "config.py").write_text(config)
    (folder / "freezer" / "job.py").write_text(job)
    return str(folder)


def test_no_freezer_at_all(python: Python) -> None:
    script = BOOT + (
        "import sys; sys.modules['freezer'] = None\n"
        "try:\n import freezer.job\nexcept ImportError: print('as ever')\n"
    )
    done = python(script)
    assert (done.stdout, done.stderr) == ("as ever\n", "")


def test_a_freezer_of_another_shape_gets_a_warning(python: Python, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    path = fake_freezer(folder, config="shape = 'new'\n", job="class Job: pass\n")
    done = python(
        BOOT + "import freezer.common.config as c, freezer.job\nprint(c.shape, freezer.job.Job)",
        path=path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("new ")
    for module in ("freezer.common.config", "freezer.job"):
        assert f"{module} of this Freezer cannot be adapted" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_freezers_own_is_seen(python: Python, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    path = fake_freezer(folder, job="raise ValueError('its own')\n")
    assert "ValueError: its own" in python(BOOT + "import freezer.job", path=path).stderr


# -- the real Freezer ----------------------------------------------------------------------------


def test_freezers_modules_keep_their_loaders(python: Python) -> None:
    pytest.importorskip("freezer")
    done = python(
        BOOT + "import freezer.job, inspect\n"
        "print(type(freezer.job.__loader__).__name__, type(freezer.job.__spec__.loader).__name__)\n"
        "print(inspect.getsource(freezer.job).count('class BackupJob'))"
    )
    assert done.stdout.split() == ["SourceFileLoader", "SourceFileLoader", "1"], done.stderr


def test_the_engine_is_ours_and_freezers_own_is_never_run(python: Python) -> None:
    pytest.importorskip("freezer")
    done = python(
        BOOT + "from freezer.engine.osbrick import osbrick\nimport sys\n"
        "print(osbrick.OsbrickEngine.__module__)\n"
        "print('freezer.engine.osbrick.client' in sys.modules)"
    )
    assert done.stdout.split() == ["freezer_osbrick.agent.engine", "False"], done.stderr


def test_os_brick_loads_beside_freezers_options(python: Python) -> None:
    pytest.importorskip("freezer")
    for script in (
        "from freezer.common import config; config.config([]); import os_brick.opts",
        "import os_brick.opts; from freezer.common import config; config.config([])",
    ):
        done = python(BOOT + script + "; print(config.CONF.os_brick.wait_mpath_device_attempts)")
        assert done.stdout == "4\n", done.stderr


def test_the_generator_lists_our_options(python: Python) -> None:
    pytest.importorskip("freezer")
    done = python(
        BOOT + "from freezer.common import config\n"
        "groups = dict(config.list_opts())\n"
        "print('single_volume_id' in [option.dest for option in groups[None]])"
    )
    assert done.stdout == "True\n", done.stderr


def test_the_engines_jobs_need_the_hook_in_freezers_arguments(python: Python) -> None:
    pytest.importorskip("freezer")
    done = python(
        BOOT + "from freezer.engine.osbrick import osbrick\n"
        "engine = osbrick.OsbrickEngine(None)\n"
        "engine.backup('v1', 'host_name', False, 0, 0, 0)"
    )
    assert "this version of Freezer is not supported" in done.stderr


@pytest.fixture(params=["hooked", "switched off"])
def switch(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"FREEZER_OSBRICK_DISABLE": "1"} if request.param == "switched off" else {}


def test_other_engines_behave_as_stock(
    python: Python, switch: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """A tar job goes through Freezer's own code, hooked or not, and ends where that ends."""
    pytest.importorskip("freezer")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    container = tmp_path / "container"
    argv = (*TAR, "--container", str(container), "--path-to-backup", str(source))
    done = python(AGENT, *argv, env={**CREDENTIALS, **switch})
    # Freezer makes its folder at once, then fails to discover Glance: nothing answers.
    assert container.is_dir()
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr


def test_stock_behaviour_when_switched_off(python: Python) -> None:
    pytest.importorskip("freezer")
    done = python(
        AGENT, "--single-volume-id", "v1", env={**CREDENTIALS, "FREEZER_OSBRICK_DISABLE": "1"}
    )
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr


def test_a_stock_job_file_is_read_by_freezer(python: Python, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("freezer")
    path = tmp_path / "job.conf"
    path.write_text(
        "[default]\nengine_name = tar\nbackup_name = 100%%\nremove_older_than = False\n"
    )
    done = python(
        BOOT + "import sys; from freezer.common import config\n"
        "config.config(sys.argv[1:]); arguments = config.get_backup_args()\n"
        "print(arguments.backup_name, arguments.remove_older_than, arguments.engine_name, "
        "arguments.backup_media, hasattr(arguments, 'osbrick'))",
        "--config",
        str(path),
    )
    assert done.stdout == "100% 0.0 tar fs False\n", done.stderr
    path.write_text("[default]\nengine_name = tar\nno_such_key = 1\n")
    done = python(
        BOOT + "import sys; from freezer.common import config\n"
        "config.config(sys.argv[1:]); config.get_backup_args()",
        "--config",
        str(path),
    )
    assert "'NoneType' object has no attribute 'replace'" in done.stderr
