"""The stage of the migration as a feature flag: one row, changed on the record, with two people where a step gives the new side more authority."""

from __future__ import annotations

from typing import Final

from meter_pipeline.control.flags import Flag
from meter_pipeline.migration.stages import START, check_step, needs_two

STAGE: Final = Flag("migration_stage", START, check_step, needs_two)
