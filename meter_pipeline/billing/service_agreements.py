"""Who pays for which service on a billing day, on which tariff and in which period."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import polars as pl

from meter_pipeline.billing.conversions import HEAT_SCHEMA, HEAT_ZONE, with_heat
from meter_pipeline.billing.tariffs import Tariff, TariffRefusedError, parse_tariff, says_rider, shares_riders
from meter_pipeline.billing.tariffs.model import Layout
from meter_pipeline.sharding import EVERYTHING, KeyRange, KeySet

#: Why a service was not billed, or was billed with something to look at. A closed list.
EXCEPTIONS: Final[dict[str, str]] = {
    "no_agreement": "usage was validated at a service point that no account pays for",
    "supply_meter": "usage of a zone's supply meter, which no account pays for: the zone's balance counts it",
    "no_tariff": "no version of the agreement's tariff is in force on the day",
    "tariff_refused": "the tariff document can't be priced; detail names the field",
    "no_period": "the billing cycle has no period that holds the day",
    "no_usage": "an agreement is in force and no meter stands there: fixed charges only",
    "usage_missing": "a meter stands there and some or all of the day has no value; the bill waits",
    "overlap": "two agreements, or two values of an attribute, are in force on the day; detail names them",
    "set_aside": "working out the service failed; detail says how. The rest of the city is billed",
    "needs_intervals": "the tariff has time-of-use periods or demand and only a day's total is known",
    "unit_mismatch": "the meter's unit can't be converted to the tariff's",
    "no_heat_content": "gas can't be turned into therms: neither its zone nor the tariff has a heat content in force on the day",
    "demand_interval": "the tariff's demand window can't be made of the meter's intervals; detail names both",
    "not_priced": "the tariff could not be applied to the day's usage; detail says why",
    "needs_reactive": "the tariff counts kVA, kVAr or kVArh, and the day's reactive intervals are not all there",
    "demand_missing": "the period ends without a read of the demand dial",
    "virtual_point": "usage of other service points is billed here, and it is not as it is declared; detail says what",
    "deducts_exceed": "the meters that are deducted counted more than the meter before them in the period",
    "attribute_missing": "the tariff needs an attribute the service does not have; detail names it",
}
EXCEPTION_SCHEMA: Final = pl.Schema(
    {"service_point_id": pl.String, "account_id": pl.String, "reason": pl.String, "detail": pl.String}
)
#: The frame of no exceptions: a day of a correction put it together a dozen times, each at the cost of a join
NO_EXCEPTIONS: Final = pl.DataFrame(schema=EXCEPTION_SCHEMA)

#: A service on a day. ``stretch_start`` is the first billed day of this account, tariff and period.
SERVICE_SCHEMA: Final = pl.Schema(
    {
        "service_point_id": pl.String,
        "account_id": pl.String,
        "tariff_id": pl.String,
        "tariff_version": pl.Int32,
        "cycle_id": pl.String,
        "period_start": pl.Date,
        "period_end": pl.Date,
        "stretch_start": pl.Date,
        "commodity": pl.String,
        "customer_class": pl.String,
        "meter_size": pl.String,
        "jurisdiction": pl.String,
        "rate_code": pl.String,
        "budget_per_day": pl.String,
        "winter_average_per_day": pl.String,
        "dwelling_units": pl.String,
        "stormwater_units": pl.String,
        "lamps": pl.String,
        "solar_kw": pl.String,
        "contract_kw": pl.String,
        "tax_exempt": pl.String,
        "declared": pl.String,
        "heat_content": pl.String,
    }
)
#: Values of an account that differ on a range of days
ACCOUNT_VALUES_SCHEMA: Final = pl.Schema(
    {"account_id": pl.String, "valid_from": pl.Date, "valid_to": pl.Date, "customer_class": pl.String}
)
#: Service points that zones declare as supply meters on a stretch of days
SUPPLY_METER_SCHEMA: Final = pl.Schema({"service_point_id": pl.String, "valid_from": pl.Date, "valid_to": pl.Date})
#: Usage that is billed at another service point: of ``member`` at ``target``, with the sign with which it counts there.
#: ``own``: the member is billed for its usage itself as well (a tenant behind a deduct meter).
PART_SCHEMA: Final = pl.Schema({"member": pl.String, "target": pl.String, "sign": pl.Int64, "own": pl.Boolean})
NO_PARTS: Final = pl.DataFrame(schema=PART_SCHEMA)
#: Numbers of things that a service pays for each of.
COUNTS: Final = ("dwelling_units", "stormwater_units", "lamps", "solar_kw", "contract_kw")
ATTRIBUTES: Final = (
    "meter_size",
    "jurisdiction",
    "rate_code",
    "budget_per_day",
    "winter_average_per_day",
    *COUNTS,
    "tax_exempt",
)
#: Between attributes, and between a name and its value, in the column ``declared``: what the utility declares beyond
#: ATTRIBUTES.
PAIRS, NAMED = "\x1e", "\x1f"
#: Attributes that say where usage and money go, and where gas is from: no charge names them
_LINKS: Final = ("totals_into", "deducts_from", "credits_to", HEAT_ZONE)


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference tables as billing reads them (schemas/reference.py); by (tariff_id, version) the tariff documents,
    their SHA-256, and the SHA-256 of those that something was billed with. ``opening``: the first day that is billed
    here, None where every day is."""

    agreements: pl.DataFrame
    tariffs: pl.DataFrame
    billing_cycles: pl.DataFrame
    accounts: pl.DataFrame
    service_attributes: pl.DataFrame
    holidays: frozenset[date] = frozenset()
    documents: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    hashes: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    frozen: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    opening: date | None = None
    heat_contents: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=HEAT_SCHEMA))
    account_values: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ACCOUNT_VALUES_SCHEMA))
    supply_meters: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SUPPLY_METER_SCHEMA))
    #: What ``services_of_day`` made of these tables last; a copy with other tables begins anew
    last_services: LastServices = field(init=False, default_factory=lambda: LastServices(), compare=False)

    def turns(self) -> list[date]:
        """The days on which anything begins or ends: between two of them every day has the same services."""
        tables = (
            self.agreements,
            self.tariffs,
            self.billing_cycles,
            self.service_attributes,
            self.heat_contents,
            self.account_values,
            self.supply_meters,
        )
        dates = {self.opening}
        for table in tables:
            for column in table.select(pl.selectors.date()):
                dates.update(column.unique().to_list())
        return sorted(day for day in dates if day is not None)

    def classes(self, day: date) -> pl.DataFrame:
        """Class of each account on a day: account_id, customer_class."""
        whole = self.accounts.select("account_id", "customer_class")
        dated = in_force(self.account_values, day).select("account_id", pl.col("customer_class").alias("dated"))
        if not dated.height:
            return whole
        both = whole.join(dated, on="account_id", how="left")
        return both.select("account_id", pl.coalesce("dated", "customer_class").alias("customer_class"))

    def tariff(self, tariff_id: str, version: int) -> Tariff:
        """A version's priced form. Raises TariffRefusedError, also where the document is absent."""
        raw = self.documents.get((tariff_id, version))
        if raw is None:
            raise TariffRefusedError("document", "is not in the store")
        self._check_frozen(tariff_id, version)
        if not shares_riders(raw):
            return parse_tariff(raw)
        shared = sorted(self.riders)
        for key in shared:
            self._check_frozen(*key)
        return parse_tariff(raw, tuple(self.documents[key] for key in shared))

    def _check_frozen(self, tariff_id: str, version: int) -> None:
        key = (tariff_id, version)
        if self.frozen.get(key, self.hashes.get(key)) != self.hashes.get(key):
            why = f"of {tariff_id} version {version} is not the one bills were made with; publish a new version"
            raise TariffRefusedError("document", why)

    @property
    def riders(self) -> list[tuple[str, int]]:
        """Versions of riders that tariffs share, without those whose place a corrected document took."""
        kept = set(self.tariffs.select("tariff_id", "version").iter_rows())
        return [key for key, raw in self.documents.items() if key in kept and says_rider(raw)]

    def in_force(self, tariff_id: str, day: date) -> Tariff | None:
        """The tariff as it is priced on a day; None where no version is in force or it is refused."""
        found = in_force(self.tariffs.filter(pl.col("tariff_id") == tariff_id), day)
        for version in found["version"].to_list():
            with suppress(TariffRefusedError):
                return self.tariff(tariff_id, version)
        return None


@dataclass(frozen=True, slots=True)
class DayServices:
    """The services of a day, sorted by service point; their tariffs; what can't be billed; how the lists of positions
    under other versions of these tariffs are laid out, where they are laid out otherwise; the usage that is billed at
    another service point (PART_SCHEMA); and the service points that are supply meters of zones on the day."""

    services: pl.DataFrame
    tariffs: dict[tuple[str, int], Tariff]
    exceptions: pl.DataFrame
    layouts: Mapping[tuple[str, int], Layout] = field(default_factory=dict)
    parts: pl.DataFrame = field(default_factory=lambda: NO_PARTS)
    supply_meters: frozenset[str] = frozenset()

    def within(self, span: KeyRange | KeySet) -> DayServices:
        """The part of it in a range of service points. Of some by name it holds no others to begin with."""
        if isinstance(span, KeySet) or span == EVERYTHING:
            return self
        ids, low, high = self.services["service_point_id"], 0, self.services.height
        low = low if span.first is None else int(ids.search_sorted(span.first, "left"))
        high = high if span.past is None else int(ids.search_sorted(span.past, "left"))
        point = pl.col("service_point_id")
        inside = pl.lit(True) if span.first is None else point >= span.first
        return DayServices(
            self.services.slice(low, high - low),
            self.tariffs,
            self.exceptions.filter(inside, pl.lit(True) if span.past is None else point < span.past),
            self.layouts,
            self.parts,
            self.supply_meters,
        )


def exceptions(rows: pl.DataFrame, reason: str, detail: pl.Expr | str = "") -> pl.DataFrame:
    """Rows with a service_point_id (and perhaps an account_id) as exceptions of one reason."""
    text = pl.lit(detail) if isinstance(detail, str) else detail
    account = pl.col("account_id") if "account_id" in rows.columns else pl.lit(None, pl.String)
    return rows.select(
        "service_point_id",
        account.alias("account_id"),
        pl.lit(reason).alias("reason"),
        text.cast(pl.String).alias("detail"),
    )


def in_force(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Rows whose [valid_from, valid_to) holds the day."""
    return frame.filter((pl.col("valid_from") <= day) & (pl.col("valid_to").is_null() | (pl.col("valid_to") > day)))


def _stretches(reference: Reference, services: pl.DataFrame, day: date) -> pl.DataFrame:
    """Adds stretch_start: the first day of the unbroken run of the same account and tariff at the service point, within
    the period.

    Agreements that follow each other without a gap (a renewal) are one run, so that a tier's position carries through.
    """
    ordered = reference.agreements.sort("service_point_id", "valid_from")
    same = pl.all_horizontal(
        pl.col(c) == pl.col(c).shift(1) for c in ("service_point_id", "account_id", "tariff_id", "cycle_id")
    )
    follows = same & (pl.col("valid_from") == pl.col("valid_to").shift(1))
    runs = ordered.select(
        "service_point_id",
        "valid_from",
        pl.when(follows.fill_null(False)).then(None).otherwise(pl.col("valid_from")).forward_fill().alias("run_start"),
    )
    begins = [pl.col("run_start"), pl.col("period_start")]
    if reference.opening is not None and reference.opening <= day:
        # Going live inside a period: what was before is billed elsewhere, and this bill's days begin here.
        begins.append(pl.lit(reference.opening))
    return services.join(runs, on=["service_point_id", "valid_from"], how="left").with_columns(
        pl.max_horizontal(begins).alias("stretch_start")
    )


def _alone(services: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Services without those that two rows of reference data claim, and these as exceptions: it is unknown which row is
    right, and both would bill the usage."""
    twice = services.filter(pl.col("service_point_id").is_duplicated())
    if not twice.height:
        return services, NO_EXCEPTIONS
    claim_texts = pl.format(
        "{} from {} on {} version {} in period {}",
        "account_id",
        "valid_from",
        "tariff_id",
        "tariff_version",
        "period_start",
    )
    claims = twice.group_by("service_point_id", maintain_order=True).agg(
        claim_texts.unique(maintain_order=True).str.join("; ").alias("claims")
    )
    named = twice.unique(["service_point_id", "account_id"], maintain_order=True).join(claims, on="service_point_id")
    kept = services.filter(~pl.col("service_point_id").is_duplicated())
    return kept, exceptions(named, "overlap", pl.format("{}: {}", "account_id", "claims"))


def attribute_columns(values: Mapping[str, str]) -> dict[str, str | None]:
    """Attributes of one service as the columns of SERVICE_SCHEMA have them."""
    known = ("customer_class", *ATTRIBUTES)
    others = sorted((name, value) for name, value in values.items() if name not in known)
    declared = PAIRS.join(f"{name}{NAMED}{value}" for name, value in others) or None
    return {name: values.get(name) for name in known} | {"declared": declared, "heat_content": None}


def _declared(attributes: pl.DataFrame) -> pl.DataFrame:
    """What the utility declares of services beyond ATTRIBUTES: service_point_id, declared. A service with two values of
    one attribute has two rows."""
    rows = attributes.filter(~pl.col("attribute").is_in([*ATTRIBUTES, *_LINKS])).sort("service_point_id", "attribute")
    pairs = rows.select(
        "service_point_id",
        "attribute",
        pl.concat_str("attribute", "value", separator=NAMED).alias("pair"),
    )
    one = pairs.group_by("service_point_id", maintain_order=True).agg(pl.col("pair").str.join(PAIRS).alias("declared"))
    twice = pairs.filter(pl.struct("service_point_id", "attribute").is_duplicated())["service_point_id"].unique()
    return pl.concat([one, one.filter(pl.col("service_point_id").is_in(twice.to_list()))])


@dataclass(slots=True)
class LastServices:
    """The services of the day that was asked for last. Who works out bills again asks for each day of months, and most
    have the services of the day before. ``turns`` are looked up for the second day: a city's day asks for one."""

    day: date | None = None
    found: DayServices | None = None
    turns: list[date] | None = None

    def of(self, reference: Reference, day: date) -> DayServices:
        """The services of a day."""
        if self.found is None or not self._alike(reference, day):
            self.day, self.found = day, _services_of_day(reference, day)
        return self.found

    def _alike(self, reference: Reference, day: date) -> bool:
        if self.turns is None:
            self.turns = reference.turns()
        assert self.day is not None  # noqa: S101 - set with what was found
        return bisect_right(self.turns, self.day) == bisect_right(self.turns, day)


def services_of_day(reference: Reference, day: date) -> DayServices:
    """The services billed on a day. Every agreement in force is either a service or an exception."""
    return reference.last_services.of(reference, day)


def _services_of_day(reference: Reference, day: date) -> DayServices:
    agreements = in_force(reference.agreements, day)
    faults: list[pl.DataFrame] = []
    periods = reference.billing_cycles.filter((pl.col("period_start") <= day) & (pl.col("period_end") > day))
    services = agreements.join(periods, on="cycle_id", how="left")
    faults.append(exceptions(services.filter(pl.col("period_start").is_null()), "no_period", pl.col("cycle_id")))
    services = services.filter(pl.col("period_start").is_not_null())
    versions = in_force(reference.tariffs, day).select(
        "tariff_id", pl.col("version").cast(pl.Int32).alias("tariff_version"), "commodity"
    )
    services = services.join(versions, on="tariff_id", how="left")
    faults.append(exceptions(services.filter(pl.col("tariff_version").is_null()), "no_tariff", pl.col("tariff_id")))
    services = services.filter(pl.col("tariff_version").is_not_null())
    tariffs: dict[tuple[str, int], Tariff] = {}
    for tariff_id, version in services.select("tariff_id", "tariff_version").unique().sort(pl.all()).iter_rows():
        try:
            tariffs[tariff_id, version] = reference.tariff(tariff_id, version)
        except TariffRefusedError as error:
            of_tariff = (pl.col("tariff_id") == tariff_id) & (pl.col("tariff_version") == version)
            faults.append(
                exceptions(services.filter(of_tariff), "tariff_refused", f"{tariff_id} version {version}: {error}")
            )
            services = services.filter(~of_tariff)
    services = services.join(reference.classes(day), on="account_id", how="left")
    attributes = in_force(reference.service_attributes, day)
    if not attributes.height:
        # A utility of electricity alone has none; joins with nothing cost a city's day a third of this function.
        services = services.with_columns(pl.lit(None, pl.String).alias(name) for name in (*ATTRIBUTES, "declared"))
    for name in ATTRIBUTES if attributes.height else ():
        values = attributes.filter(pl.col("attribute") == name).select("service_point_id", pl.col("value").alias(name))
        services = services.join(values, on="service_point_id", how="left")
    if attributes.height:
        services = services.join(_declared(attributes), on="service_point_id", how="left")
    services = with_heat(services, reference.heat_contents, attributes, day)
    services, overlapping = _alone(services)
    faults.append(overlapping)
    services = (
        _stretches(reference, services, day).select(SERVICE_SCHEMA.keys()).cast(SERVICE_SCHEMA).sort("service_point_id")
    )
    faulty = pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults]).sort("service_point_id", "reason")
    supplies = frozenset(in_force(reference.supply_meters, day)["service_point_id"].to_list())
    return DayServices(services, tariffs, faulty, _layouts(reference, tariffs), supply_meters=supplies)


def _layouts(reference: Reference, tariffs: Mapping[tuple[str, int], Tariff]) -> dict[tuple[str, int], Layout]:
    """How positions under any version of the day's tariffs are laid out: a bill may have begun under another one, also
    under one whose place a corrected document took since."""
    found: dict[tuple[str, int], Layout] = {key: tariff.layout for key, tariff in tariffs.items()}
    wanted = {tariff_id for tariff_id, _ in tariffs}
    for tariff_id, version in sorted(reference.documents):
        if tariff_id in wanted and (tariff_id, version) not in found:
            with suppress(TariffRefusedError):
                found[tariff_id, version] = reference.tariff(tariff_id, version).layout
    return found
