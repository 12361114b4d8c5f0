# SPDX-License-Identifier: Apache-2.0
"""Adapts freezer-web-ui where a tab of its own is not enough. Other engines go its own ways.

What is mended for all: a person works in the project that the page names, a backup's page finds its
record, jobs go to the clients that were chosen, and the page of a restore shows the clients that
there are.
"""

from __future__ import annotations

import datetime
import functools
import logging
import zoneinfo
from typing import Any

from django.conf import settings as django_settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from horizon.utils import functions
from horizon.utils.memoized import memoized

from freezer_osbrick.dashboard import settings

LOG = logging.getLogger(__name__)


def patch() -> None:
    """Adapt the modules of freezer-web-ui. Without it, Horizon goes on without us."""
    try:
        from freezer_ui.actions.workflows import action
        from freezer_ui.api import api
        from freezer_ui.backups import views
        from freezer_ui.backups.workflows import restore

        from freezer_osbrick.dashboard import backups
    except ImportError:
        LOG.exception("freezer-web-ui is missing or of another shape: it is not adapted.")
        return
    _patch_session(api)
    _patch_form(action.ActionConfigurationAction)
    _patch_workflow(action.ActionWorkflow)
    _patch_actions(api.Action)
    _patch_clients(api.Client)
    _patch_records(api.Backup)
    restore.Destination.template_name = "freezer_osbrick/destination.html"
    backups.patch(views)


def _patch_session(api: Any) -> None:
    from freezerclient import client as freezer_client
    from keystoneauth1 import session
    from keystoneauth1.identity import v3

    @memoized
    def client(request: Any) -> Any:
        """freezerclient, given a token, asks for a new one of the person's default project."""
        auth = v3.Token(
            django_settings.OPENSTACK_KEYSTONE_URL,
            request.user.token.id,
            project_id=request.user.project_id,
        )
        insecure = getattr(django_settings, "OPENSTACK_SSL_NO_VERIFY", False)
        authority = getattr(django_settings, "OPENSTACK_SSL_CACERT", None)
        return freezer_client.Client(
            version="2",
            session=session.Session(auth, verify=not insecure and (authority or True)),
            endpoint=api._get_service_url(request),
            project_id=request.user.project_id,
            cacert=authority,
            insecure=insecure,
        )

    api.client = client


def _patch_form(form: Any) -> None:
    """The tab "Action": what it offers, and what it asks for."""
    stock_storages = form.populate_storage_choices

    @functools.wraps(stock_storages)
    def populate_storage_choices(self: Any, request: Any, context: Any) -> list[tuple[str, Any]]:
        offered = list(stock_storages(self, request, context))
        if "s3" not in dict(offered):
            offered.append(("s3", _("S3")))
        return offered

    form.populate_storage_choices = populate_storage_choices
    for name in ("_check_cinder_vol_id", "_check_path_to_backup"):
        setattr(form, name, _unless_ours(getattr(form, name)))
    for name in ("restore_from_date", "remove_from_date"):
        setattr(form, f"clean_{name}", _in_utc(name, getattr(form, f"clean_{name}")))
    form.clean = _with_container(form.clean)


def _unless_ours(check: Any) -> Any:
    """A check of what the other engines need."""

    @functools.wraps(check)
    def unless_ours(self: Any, cleaned_data: dict[str, Any]) -> None:
        if not settings.is_ours(cleaned_data):
            check(self, cleaned_data)

    return unless_ours


def _in_utc(name: str, stock: Any) -> Any:
    """A date is one in the person's time zone; the agent takes one without zone for UTC."""

    @functools.wraps(stock)
    def clean(self: Any) -> Any:
        date = self.cleaned_data.get(name)
        if date and settings.is_ours(self.cleaned_data):
            return settings.iso_date(int(_of_person(date, self.request).timestamp()))
        return stock(self)

    return clean


def _of_person(date: datetime.datetime, request: Any) -> datetime.datetime:
    """Horizon turns to a person's time zone with whole pages only. A dialogue is sent otherwise and
    read in the zone of whoever the same thread served before."""
    if date.tzinfo not in (None, timezone.get_current_timezone()):
        return date  # it was written with its zone
    return date.replace(tzinfo=zoneinfo.ZoneInfo(functions.get_timezone(request)))


def _with_container(stock: Any) -> Any:
    """Also restores and removals need to know where backups are, and a folder is a whole path."""

    @functools.wraps(stock)
    def clean(self: Any) -> dict[str, Any]:
        cleaned: dict[str, Any] = stock(self)
        if not settings.is_ours(cleaned):
            return cleaned
        self._check_backup_name(cleaned)
        self._check_container(cleaned)
        container = cleaned.get("container")
        if container and cleaned.get("storage") in ("local", "ssh") and container[0] != "/":
            self._errors["container"] = self.error_class(
                [_("For this storage it must be the whole path of a folder.")]
            )
        if cleaned.get("action") == "admin" and not _says_what_to_remove(cleaned):
            self._errors["remove_older_than"] = self.error_class(
                [_("Say how old backups must be to be removed.")]
            )
        return cleaned

    return clean


def _says_what_to_remove(cleaned: dict[str, Any]) -> bool:
    return any(cleaned.get(name) for name in ("remove_older_than", "remove_from_date"))


def _patch_workflow(workflow: Any) -> None:
    stock_handle = workflow.handle
    stock_keys = {key for step in workflow.default_steps for key in step.contributes}

    @functools.wraps(stock_handle)
    def handle(self: Any, request: Any, context: Any) -> Any:
        ours = context.pop("osbrick", {})
        if settings.is_ours(context):
            completed = settings.completed(context, ours)
            context.clear()
            context.update(completed)
        else:
            for key in set(settings.KEYS) - stock_keys:
                context.pop(key, None)
        return stock_handle(self, request, context)

    workflow.handle = handle


def _patch_actions(actions: Any) -> None:
    from freezer_ui import utils

    stock_build = actions._build

    @functools.wraps(stock_build)
    def build(self: Any, action: dict[str, Any]) -> Any:
        """A name keeps its blanks: stock replaces them for tar's sake, and a restore would look for
        backups of another name.
        """
        if not settings.is_ours(action):
            return stock_build(self, action)
        rules: dict[str, Any] = {}
        for rule in ("max_retries", "max_retries_interval", "mandatory"):
            utils.assign_and_remove(action, rules, rule)
        action.pop("action_id", None)
        return self.client.actions.create({"freezer_action": utils.create_dict(**action), **rules})

    actions._build = build


def _patch_clients(clients: Any) -> None:
    stock_list = clients.list

    @functools.wraps(stock_list)
    def list_clients(
        self: Any, json: bool = False, limit: int = 500, offset: int = 0, search: Any = None
    ) -> Any:
        """A search for one client's id finds that client; freezer-api's finds all."""
        if search and not json:
            everyone = stock_list(self, limit=limit, offset=offset)
            meant = [client for client in everyone if search in (client.uuid, client.client_id)]
            if meant:
                return meant
        return stock_list(self, json=json, limit=limit, offset=offset, search=search)

    clients.list = list_clients


def _patch_records(backups: Any) -> None:
    def get(self: Any, backup_id: str, json: bool = False) -> Any:
        """The record of that id. A search for it, as stock does, finds none on an SQL database."""
        record = self.client.backups.get(backup_id)
        if record is None:
            raise LookupError(_("There is no such backup."))
        return record if json else self.to_object(record)

    backups.get = get
