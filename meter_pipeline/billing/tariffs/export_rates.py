"""What exports earn, and what becomes of credit that is left over."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class ExportRates:
    """What exports earn: a rate per period and, for net metering, what is paid for what is left at the true-up month.

    ``rollover``: what a period's surplus becomes: kwh or money for later periods, or none: paid at ``rates`` at once.
    ``offsets``: what money credits pay: energy, the whole bill, or energy as far as no minimum charge is undercut.
    ``trueup``: what becomes of credit left over at the
    true-up: paid, forfeited or carried on; None: paid where there is a year-end rate, else carried on. ``on_close``:
    what becomes of it on an account's final bill: paid or forfeited; None: as at the true-up. ``on_move``: what becomes
    of it where the account takes service at another service point: move, pay or forfeit; None: as on a final bill.
    """

    rates: tuple[Decimal, ...]
    yearend_rate: Decimal = Decimal(0)
    trueup_month: int = 12
    rollover: str = "kwh"
    offsets: str = "energy"
    trueup: str | None = None
    on_close: str | None = None
    on_move: str | None = None

    @property
    def at_trueup(self) -> str:
        """What becomes of credit at the true-up: pay, forfeit or carry."""
        return self.trueup or ("pay" if self.yearend_rate else "carry")

    @property
    def at_close(self) -> str:
        """What becomes of credit on a final bill of an account that takes no service elsewhere."""
        return self.on_close or self.at_trueup

    def settlement(self, *, year: bool, moves: bool) -> str:
        """What becomes of credit at a bill's end: pay, forfeit, carry or move. ``year``: the bill ends the billing
        year, whose true-up comes first; ``moves``: the account takes service at another service point."""
        if year:
            return self.at_trueup
        return self.on_move if moves and self.on_move else self.at_close

    @property
    def settles(self) -> bool:
        """Whether credit is ever paid out or forfeited."""
        return any(how in ("pay", "forfeit") for how in (self.at_trueup, self.on_close, self.on_move))
