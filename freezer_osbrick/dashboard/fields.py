# SPDX-License-Identifier: Apache-2.0
"""Fields that several forms have."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from horizon import forms

from freezer_osbrick.dashboard import choices, settings


class Several(forms.MultipleChoiceField):
    """Any number of choices, as a list of boxes to tick."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, widget=forms.CheckboxSelectMultiple(), **options)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to choose."""
        return not self.choices

    def valid_value(self, value: str) -> bool:
        """What Cinder did not list may have been there when the page was made."""
        return True


class KeyFile(forms.CharField):
    """The path of the file with the secret of a sealed repository."""

    def __init__(self, **options: Any) -> None:
        super().__init__(label=_("Key File"), required=False, **options)


class RestoreFields(forms.Form):
    """Where a restore goes, and what becomes of what was there."""

    osbrick_target = forms.ChoiceField(
        label=_("Restore To"),
        required=False,
        choices=[(settings.NEW, _("A new volume")), (settings.IN_PLACE, _("The existing volume"))],
        help_text=_(
            "A new volume beside one that exists is made of its snapshot, and only what differs "
            "is written. The existing volume is overwritten where it is; it must not be attached."
        ),
    )
    osbrick_new_name = forms.CharField(
        label=_("New Name"), required=False, help_text=_("Empty: the name in the backup.")
    )
    osbrick_volume_type = forms.ChoiceField(label=_("Volume Type"), required=False)
    osbrick_availability_zone = forms.ChoiceField(label=_("Availability Zone"), required=False)
    osbrick_meta_override = forms.BooleanField(
        label=_("Restore Properties, Too"),
        required=False,
        help_text=_(
            "A volume that exists gets the name, description and properties that are in the backup."
        ),
    )
    osbrick_verify = forms.BooleanField(
        label=_("Read Back and Compare"),
        required=False,
        help_text=_("Once it is written, the volume is read and compared with the backup."),
    )
    osbrick_recreate_vol_on_error = forms.BooleanField(
        label=_("Try Again With a New Volume"),
        required=False,
        help_text=_("Where the restore fails on its volume; the broken volume is removed."),
    )
    osbrick_remove_old_vol = forms.BooleanField(
        label=_("Delete the Old Volume"),
        required=False,
        help_text=_(
            "Dangerous: once the new volume is read back and proved, the existing one is deleted, "
            "unless it is attached to a server."
        ),
    )
    osbrick_consent = forms.BooleanField(
        label=_("I know that data may be lost"),
        required=False,
        help_text=_("Needed to overwrite or delete a volume that exists."),
    )

    def offer_targets(self, request: Any) -> None:
        """Fill in what a new volume may be."""
        self.fields["osbrick_volume_type"].choices = choices.volume_types(request)
        self.fields["osbrick_availability_zone"].choices = choices.availability_zones(request)

    def check_consent(self, cleaned: dict[str, Any]) -> None:
        """Refuse what destroys data unless the person said so."""
        in_place = cleaned.get("osbrick_target") == settings.IN_PLACE
        if in_place and cleaned.get("osbrick_remove_old_vol"):
            self.add_error(
                "osbrick_remove_old_vol", _("There is no old volume where it is overwritten.")
            )
        dangerous = in_place or cleaned.get("osbrick_remove_old_vol")
        if dangerous and not cleaned.get("osbrick_consent"):
            self.add_error("osbrick_consent", _("Confirm that data may be lost."))
