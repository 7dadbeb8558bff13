"""The closed list of the ledger's kinds of entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry. ``required`` are fields of the body; ``dual`` names the two fields that must hold two
    different people."""

    meaning: str
    required: tuple[str, ...] = ()
    dual: tuple[str, str] | None = None


#: The control totals a file_loaded entry must carry, in reads; the verifier adds them up.
TOTALS: Final = ("received", "accepted", "duplicate", "superseded", "rejected")

KINDS: Final[dict[str, Kind]] = {
    # Received data. Leaves are payload hashes: a meter's channel-day, a register read, a rejected line.
    "received": Kind("a feed file landed: its name, its SHA-256, where its bytes are archived"),
    "ingested": Kind("payloads written to the raw store by one batch; leaves are their hashes"),
    "duplicate": Kind("payloads or a whole file that were already here; nothing was written"),
    "superseded": Kind("payloads kept in history because a better version is current"),
    "rejected": Kind("payloads that could not be read or were refused; they wait as dead letters"),
    "file_loaded": Kind(
        "control totals of a feed file or of its part in a billing day, in reads; they must add up", TOTALS
    ),
    "corrected": Kind(
        "a dead letter's content, or a channel's intervals, were corrected by a person, or that was taken back"
    ),
    "replayed": Kind("a dead letter went through ingestion again"),
    "dismissed": Kind("a dead letter was closed without being loaded, with a reason"),
    # Results.
    "reference_imported": Kind("reference data changed: the hash of each table's new content"),
    "validated": Kind("a billing day was validated; leaves are the hashes of the validated channel-days"),
    "estimated": Kind(
        "intervals were estimated: method, count, total; leaves are the hashes of the estimated channel-days"
    ),
    "baselines_fitted": Kind("baselines were fitted: version, parameters' hash"),
    "flagged": Kind("anomaly flags were raised for a billing day; leaves are the hashes of the flags"),
    "flag_decided": Kind("a person assigned, confirmed or dismissed an anomaly flag"),
    "billed": Kind(
        "determinants and charges of a billing day; leaves are the hashes of the charges, then of the determinants"
    ),
    "bill_issued": Kind("statements were issued; leaves are the hashes of the statements' lines"),
    "reconciled": Kind("a billing day or file was reconciled: totals and named causes"),
    "adjustment_requested": Kind("someone asked to correct a bill", ("requested_by",)),
    "adjustment_approved": Kind(
        "a second person approved it", ("requested_by", "approved_by"), ("requested_by", "approved_by")
    ),
    "adjustment_refused": Kind("a second person refused it", ("requested_by", "refused_by")),
    "adjustment_posted": Kind("the adjustment's lines were posted; leaves are the hashes of the lines"),
    "period_sealed": Kind(
        "a period was closed, or a billing day's partitions went to the archive: counts, sums and hashes of what it holds"
    ),
    # Who steered it.
    "pause_set": Kind("ingestion was paused: scope, reason, evidence"),
    "pause_requested_resume": Kind("someone asked to resume, with what was checked", ("requested_by",)),
    "pause_cleared": Kind(
        "a second person confirmed the resume", ("requested_by", "confirmed_by"), ("requested_by", "confirmed_by")
    ),
    "pause_refused": Kind("a request or confirmation to resume was refused, and why"),
    "flag_flipped": Kind("a feature flag changed: from, to, by whom, why"),
    "traffic_shifted": Kind("dual-write traffic moved between the old and the new side"),
    "comparison": Kind("a comparison with the legacy batch: classes, counts, money"),
    "migration_stage": Kind("the migration moved to another stage, or rolled back"),
    "cutover_signed": Kind(
        "two people signed the cut-over", ("requested_by", "approved_by"), ("requested_by", "approved_by")
    ),
    # Versions and settings in use.
    "tariff_version": Kind("a tariff schedule's version came into use: its content's SHA-256"),
    "rule_version": Kind("a rule set or threshold file came into use: its content's SHA-256"),
    "code_version": Kind(
        "a version of the program ran for the first time here: version, git commit, lock file's SHA-256"
    ),
    "head_end_version": Kind("a head-end declaration came into use: its content's SHA-256"),
    # The ledger about itself.
    "key_rotation": Kind("the signing key changed; signed by the old and the new key", ("old", "new", "signatures")),
    "privileges_checked": Kind("the guards as they stand, vouched for: later checks compare with this"),
    "verified": Kind("the log or its guards were verified: what was looked at, whether it held"),
    "erased": Kind(
        "personal data behind a leaf was erased; the leaf stays", ("payload_hash", "reason", "requested_by")
    ),
}
