"""A rate study as an asset: ``meter-pipeline rates study`` in the UI, its result and its pictures in the metadata."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.contract_check import evaluate
from meter_pipeline.defs.lib.report_metadata import metadata
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.schemas.report import StageReport

_TABLE = "billing.rate_study"
_OWN, _CONTRACT = "bills_are_reproduced", "schema_of_billing_rate_study"


class RateStudyConfig(dg.Config):
    """Launchpad settings of the study."""

    tariff: list[str] = Field(description="Files of the proposed tariffs: native, URDB (JSON) or OWRS (YAML).")
    replaces: list[str] = Field(description="The tariff that each of them replaces, in the same order.")
    from_day: str = Field(description="Periods that end after this day, such as 2026-01-01.")
    to_day: str = Field(description="And by this one.")
    customer_class: str = Field(default="", description="Accounts of one customer class only; empty: all.")
    elasticity: str = Field(default="", description="Assumed elasticity of use to the bill, such as -0.2; empty: none.")
    by: str = Field(description="The person under whose name the study is kept.")
    html: str = Field(default="", description="Write the report page here; empty: no page.")


def _refused(why: str) -> dg.Failure:
    return dg.Failure(description=f"nothing was studied: {why}", allow_retries=False)


def study_report(municipality: Municipality, config: RateStudyConfig) -> tuple[str, date, StageReport]:
    """Answer and keep a study: its id, the day it is kept under (UTC) and its report. Raises dagster's Failure with the
    reason where it is refused."""
    from meter_pipeline.billing.rate_study import figures
    from meter_pipeline.billing.rate_study.keeping import keep_study
    from meter_pipeline.billing.rate_study.page import write_page
    from meter_pipeline.billing.rate_study.positions import Change
    from meter_pipeline.billing.rate_study.report import report
    from meter_pipeline.billing.rate_study.study import Question, StudyRefusedError, study
    from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff

    if len(config.tariff) != len(config.replaces):
        raise _refused("give one tariff in replaces for each file in tariff, in the same order")
    changes = []
    for path, old in zip(config.tariff, config.replaces, strict=True):
        try:
            raw = Path(path).read_bytes()
            changes.append(Change(parse_tariff(raw), raw, old.upper()))
        except (OSError, TariffRefusedError) as error:
            raise _refused(f"{path}: {error}") from error
    try:
        assumed = Decimal(config.elasticity) if config.elasticity else None
        first, past = date.fromisoformat(config.from_day), date.fromisoformat(config.to_day)
    except (InvalidOperation, ValueError) as error:
        raise _refused("from_day and to_day are days such as 2026-01-01, elasticity a number such as -0.2") from error
    database, clock = municipality.database(), municipality.clock()
    question = Question(changes, first, past, config.customer_class or None, assumed)
    try:
        found = study(database, municipality.calendar(), question)
    except StudyRefusedError as error:
        raise _refused(str(error)) from error
    document = figures.document(found)
    kept = clock.now().date()
    study_id = keep_study(database, found, config.by, clock)
    if config.html:
        write_page(Path(config.html), document, municipality.settings().utility().name)
    return study_id, kept, report(document)


@dg.asset(
    name="rate_study",
    group_name=policy.BILLING,
    description=(
        "The bills of some periods priced again under proposed tariffs: first under the tariffs in force, which must come out as billed, then revenue by class, "
        "component and month, and whose bills change. Made when asked for: the launchpad takes the tariff's file, what it replaces and the days."
    ),
    deps=["statements"],
    check_specs=[
        dg.AssetCheckSpec(
            _OWN, asset="rate_study", description="Each bill comes out as billed under the tariffs in force."
        ),
        dg.AssetCheckSpec(_CONTRACT, asset="rate_study", description=f"{_TABLE} keeps its contract."),
    ],
    pool=policy.POOL,
    metadata=table_metadata(_TABLE),
)
def rate_study(
    context: dg.AssetExecutionContext, config: RateStudyConfig, municipality: Municipality
) -> Iterator[dg.MaterializeResult[Any]]:
    """Answer the question of the run's configuration, and keep the study."""
    acting = municipality.acting_as(policy.ROLES[policy.BILLING])
    study_id, kept, found = study_report(acting, config)
    (own,) = found.checks
    kept_rows = evaluate(acting.database(), _TABLE, kept, dated="made_at")
    context.log.info("kept as %s", study_id)
    yield dg.MaterializeResult(
        metadata=metadata(found, partitioned=False) | {"study": study_id},
        check_results=[
            dg.AssetCheckResult(
                check_name=own.name, passed=own.passed, description=own.description, metadata=dict(own.figures)
            ),
            dg.AssetCheckResult(
                check_name=_CONTRACT,
                passed=kept_rows.passed,
                description=kept_rows.description,
                metadata=dict(kept_rows.metadata),
            ),
        ],
    )
