"""Reference data: who is metered, by what, on which tariff. Checked and imported whole; new meters enrolled from a
head-end's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.reference.faults import Fault, ReferenceRefused
    from meter_pipeline.reference.folder import read_folder
    from meter_pipeline.reference.importing import import_folder

__all__ = ["Fault", "ReferenceRefused", "import_folder", "read_folder"]

__getattr__ = attach(
    __name__,
    {
        "faults": ("Fault", "ReferenceRefused"),
        "folder": ("read_folder",),
        "importing": ("import_folder",),
    },
)
