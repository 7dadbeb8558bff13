"""Blocks that begin again each day: what of a day's usage lies in each block, added up over the days in registers."""

from __future__ import annotations

import numpy as np

from meter_pipeline.billing.bill_position import QUANTITY_SCALE
from meter_pipeline.billing.fixed_point import Whole, shared_quotient, total
from meter_pipeline.billing.tariffs.model import Block, Tariff


def fill_blocks(tariff: Tariff, energy: Whole, peaks: Whole, scale: int = QUANTITY_SCALE) -> None:
    """Writes the block registers of a day: ``peaks`` (n, registers) from the day's ``energy`` (n, periods), both in
    1/``scale`` of the tariff's unit."""
    whole = total([energy[:, p] for p in range(energy.shape[1])])
    for r, register in enumerate(tariff.registers):
        if register.block is not None:
            peaks[:, r] = _inside(register.block, energy[:, register.block.period], whole, scale)


def _inside(block: Block, energy: Whole, whole: Whole, scale: int) -> Whole:
    """Returns the part of one period's usage that lies in a block."""
    fills = energy if block.allocation == "by_period" else whole
    lower = np.minimum(fills, int(block.lower * scale))
    upper = fills if block.upper is None else np.minimum(fills, int(block.upper * scale))
    if block.allocation == "reached":
        last = block.upper is None or fills <= int(block.upper * scale)
        return np.asarray(np.where((fills > int(block.lower * scale)) & last, energy, 0))
    if block.allocation == "by_period":
        return np.asarray(np.maximum(upper - lower, 0))
    # Cumulative shares, so that the blocks of a period add up to its usage.
    ahead, behind = (_share(energy, part, fills) for part in (np.maximum(upper, 0), np.maximum(lower, 0)))
    return np.asarray(ahead - behind)


def _share(energy: Whole, part: Whole, whole: Whole) -> Whole:
    return shared_quotient(np.maximum(energy, 0), part, np.maximum(whole, 1), 1, 1, "half_even")
