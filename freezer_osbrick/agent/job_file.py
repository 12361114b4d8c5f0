# SPDX-License-Identifier: Apache-2.0
"""The file behind ``--config``: an ini file of a person, or a job that the scheduler wrote.

Freezer's own reader crashes on a key that is no option, on a ``%`` that is not doubled, and turns
``False`` into the number 0: a job with ``"remove_older_than": false`` would remove every backup.
"""

from __future__ import annotations

import configparser
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg
from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.agent import options

LOG = log.getLogger(__name__)

_FALSE = ("false", "no", "off", "0")
_TRUE = ("true", "yes", "on", "1")


class _Interpolation(configparser.BasicInterpolation):
    """``%%`` is a percent sign, and so is a ``%`` that begins nothing."""

    def before_get(self, parser: Any, section: Any, option: Any, value: Any, defaults: Any) -> Any:
        try:
            return super().before_get(parser, section, option, value, defaults)
        except configparser.InterpolationError:
            return value


@dataclasses.dataclass(frozen=True)
class JobFile:
    """What a file says.

    :param values: settings by option name, with underscores.
    :param storages: settings of its ``[storage:NAME]`` sections, by the names of these.
    """

    path: str
    values: dict[str, str]
    storages: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def engine(self) -> str | None:
        return self.values.get("engine_name") or self.values.get("engine") or None


def read(path: str) -> JobFile:
    """:raises errors.ConfigurationError: it is no readable ini file."""
    parser = configparser.ConfigParser(interpolation=_Interpolation())
    try:
        with open(path, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (OSError, UnicodeDecodeError, configparser.Error) as exc:
        reason = " ".join(str(exc).split())
        raise errors.ConfigurationError(f"{path} is no readable ini file: {reason}") from exc
    values: dict[str, str] = {}
    storages: dict[str, dict[str, str]] = {}
    for section in parser.sections():
        into = storages.setdefault(section, {}) if section.startswith("storage:") else values
        for key in parser.options(section):
            into[key.replace("-", "_")] = parser.get(section, key).strip()
    listed = values.pop("storages", "")
    if not _means_unset(listed):
        storages.update(_listed(listed, path))
    return JobFile(path, values, storages)


def _listed(text: str, path: str) -> dict[str, dict[str, str]]:
    """Storages of a job, which has no sections: a list of objects, or an object of objects.

    :raises errors.BadRequest: it is neither.
    """
    try:
        found = options.parse_literal(text)
        if isinstance(found, list | tuple):
            found = {f"storage:{number}": one for number, one in enumerate(found, 1)}
        return {
            str(name): {str(key).replace("-", "_"): str(value) for key, value in one.items()}
            for name, one in found.items()
        }
    except (ValueError, AttributeError) as exc:
        raise errors.BadRequest(
            f"{path}: storages must be a list of objects with the options of a storage each."
        ) from exc


def for_storage(settings: Mapping[str, str], name: str, conf: cfg.ConfigOpts) -> dict[str, Any]:
    """The settings of one storage as Freezer's options take them.

    :raises errors.BadRequest: one is no option, or does not take its value.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if _means_unset(value):
            continue
        option = _option(key, conf)
        if option is None:
            raise errors.BadRequest(f"[{name}]: {key} is no option of this Freezer.")
        if not _is_off(key, value, conf):
            found[key] = option.type(value)
    return found


def for_freezer(job: JobFile, conf: cfg.ConfigOpts) -> dict[str, str]:
    """The settings for Freezer to apply: known, well-formed, and not given on the command line.

    :raises errors.BadRequest: a value makes no sense for its option.
    """
    values = {key: value for key, value in job.values.items() if not _means_unset(value)}
    _translate(values)
    return {
        name: value
        for name, value in values.items()
        if _is_wanted(name, value, job.path, conf) and not _is_off(name, value, conf)
    }


def _means_unset(value: str) -> bool:
    return value in ("", "None")


def _translate(values: dict[str, str]) -> None:
    """Keys of the web interface and of older documents, in the words of this Freezer."""
    engine = values.pop("engine", None) or values.get("engine_name")
    if values.get("engine_name") or engine:
        values["engine_name"] = options.ENGINE_NAME
    host = values.pop("restore_from_host", None)
    if host:
        values.setdefault("hostname", host)
    full_only = values.pop("no_incremental", None)
    if full_only is not None and full_only.lower() in _TRUE:
        values["incremental"] = "False"
    elif full_only is not None and (_is_level(values, "max_level", "always_level")):
        values.setdefault("incremental", "True")
    password = values.pop("encryption_password", None)
    if password and password.lower() not in _FALSE:
        raise errors.BadRequest(
            "A job with encryption_password would keep the secret where others read it: put it "
            "into a file on this host and name that file with encrypt_pass_file."
        )


def _is_level(values: dict[str, str], *names: str) -> bool:
    return any(values.get(name, "").lower() not in ("", *_FALSE) for name in names)


def _is_wanted(name: str, value: str, path: str, conf: cfg.ConfigOpts) -> bool:
    """:raises errors.BadRequest: it is none of the options, but almost one of ours."""
    option = _option(name, conf)
    if option is None:
        ours = [option.dest for option in options.OPTIONS]
        meant = difflib.get_close_matches(name, ours, n=1, cutoff=0.85)
        if meant:
            raise errors.BadRequest(f"{path}: {name} is no option; did you mean {meant[0]}?")
        # Jobs have keys of other versions of Freezer and of its web interface.
        LOG.warning("%s: %s is no option of this Freezer; it is left out.", path, name)
        return False
    if options.on_command_line(conf, name):
        LOG.info("%s: %s is given on the command line, which counts.", path, name)
        return False
    return True


def _is_off(name: str, value: str, conf: cfg.ConfigOpts) -> bool:
    """Whether the value is a ``False`` for an option that is not boolean: it says "not set".

    :raises errors.BadRequest: the option does not take the value.
    """
    option = _option(name, conf)
    assert option is not None
    numeric = isinstance(option, cfg.IntOpt | cfg.FloatOpt)
    if not isinstance(option, cfg.BoolOpt) and value in ("False", "false"):
        return True
    if numeric and value in ("True", "true"):
        raise errors.BadRequest(f"{name} must be a number, not {value!r}.")
    try:
        option.type(value)
    except ValueError as exc:
        raise errors.BadRequest(f"{name}: {exc}.") from exc
    return False


def _option(name: str, conf: cfg.ConfigOpts) -> cfg.Opt | None:
    try:
        return conf._get_opt_info(name)["opt"]
    except cfg.NoSuchOptError:
        return None
