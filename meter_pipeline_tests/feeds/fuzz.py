"""Coverage-guided fuzzing of one parser: ``python -m meter_pipeline_tests.feeds.fuzz FORMAT [CORPUS ...] [libFuzzer
options]``.

Needs atheris (an optional tool, not a dependency). Without it, ``--plain SECONDS`` mutates the same seeds at random
from a fixed seed: less clever, but it runs anywhere. A crash is anything but a ParsedFeed, FileGrowing excepted. Seeds:
the given folder's files, and one honest file of each format.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import HeadEnd, parse
from meter_pipeline.feeds.files import Limits
from meter_pipeline.schemas.reads import ParsedFeed

_COLUMNS = {
    "meter_id": "meter",
    "channel": "channel",
    "time": "time",
    "value": "value",
    "quality": "q",
    "sequence": "seq",
    "unit": "unit",
}
HEAD_ENDS = {
    "delimited": HeadEnd("fuzz", "delimited", zone="America/Chicago", interval_minutes=15, columns=_COLUMNS),
    "jsonl": HeadEnd("fuzz", "jsonl", zone="America/Chicago", interval_minutes=15, columns=_COLUMNS),
    "nem12": HeadEnd("fuzz", "nem12"),
    "espi": HeadEnd("fuzz", "espi"),
    "cmep": HeadEnd("fuzz", "cmep", zone="+00:00", stamp="end"),
    "wide_csv": HeadEnd("fuzz", "wide_csv", zone="America/Chicago"),
}
_FEED = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><link rel="self" href="/ReadingType/1"/>
<content><ReadingType><powerOfTenMultiplier>-3</powerOfTenMultiplier><uom>72</uom></ReadingType></content></entry>
<entry><link rel="self" href="/U/1/UsagePoint/2/MeterReading/3"/><link rel="related" href="/ReadingType/1"/><content><MeterReading/></content></entry>
<entry><link rel="self" href="/U/1/UsagePoint/2/MeterReading/3/IntervalBlock/4"/><content><IntervalBlock>
<IntervalReading><timePeriod><duration>900</duration><start>1357016400</start></timePeriod><value>12</value>
<ReadingQuality><quality>14</quality></ReadingQuality></IntervalReading>
<IntervalReading><timePeriod><duration>2592000</duration><start>1357016400</start></timePeriod><value>5</value></IntervalReading>
</IntervalBlock></content></entry></feed>"""
SEEDS: dict[str, list[bytes]] = {
    "delimited": [
        b"meter,channel,time,value,q,seq,unit\nM-1,E1,2026-11-01 01:15:00,1.5,A,1,kWh\nM-1,E1,2026-11-01 01:15:00,.5,S14:1,2,Wh\n"
    ],
    "jsonl": [
        b'{"meter":"M-1","channel":"E1","time":"2026-03-02T00:15:00Z","value":1.5,"q":"A","seq":1,"unit":"kWh"}\n'
    ],
    "nem12": [
        b"100,NEM12,202603030000,A,B\n200,N1,E1,,E1,,S,kWh,720,\n300,20260302,1.5,2,V,,,20260303010203,\n400,1,1,S14,1,\n400,2,2,A,,\n900\n",
        b"100,NEM13,202603030000,A,B\n250,N1,11,1,11,11,S,E,1,20260101000000,A,,,5,20260301000000,E64,,,4,kWh,20260601,20260302000000,\n550,N,,E,\n900\n",
    ],
    "espi": [_FEED.encode()],
    "cmep": [
        b"MEPMD01,19970819,U,C,U,,202603030800,M-1,OK,E,KWH,1.0,00000015,2,202603020015,R0,1.5,,E,2\n",
        b"MEPMD01,19970819,U,C,U,,202603030800,M-1,OK,W,CFREG,,00000000,1,202603020015,,7\n",
    ],
    "wide_csv": [
        b"Meter_ID,Estimated_Flag,Flow,Flow_Time,Flow_Unit,Read,Read_Time,Read_Unit\n12,0,5.0,2024-08-01 00:59,Gallons,227.6,2024-08-01 00:59,CCF\n"
    ],
}
LIMITS = Limits(max_line_bytes=4096, block_bytes=512, max_document_bytes=1 << 20, max_bytes=1 << 20)
UTC = BillingCalendar("UTC")
_WORDS = [
    b",",
    b"\n",
    b"\r",
    b'"',
    b"\0",
    b"\xff",
    b"NaN",
    b"1e99",
    b"-",
    b"0",
    b"9" * 18,
    b"2026-11-01 01:30:00",
    b"300,",
    b"400,",
    b"{",
    b"}",
    b"</",
    b"&a;",
]


def once(form: str, data: bytes, folder: Path) -> ParsedFeed:
    """Parse bytes as a format, and check what must hold of any result."""
    path = folder / "feed"
    path.write_bytes(data)
    feed = parse(path, HEAD_ENDS[form], UTC, LIMITS)
    assert feed.rejects.filter(feed.rejects["reasons"].list.len() == 0).height == 0
    assert feed.intervals["interval_start"].null_count() == 0
    assert feed.registers["read_at"].null_count() == 0
    assert feed.received >= feed.intervals.height + feed.registers.height
    return feed


def mutated(seed: bytes, source: random.Random) -> bytes:
    """A seed with a few cuts, repetitions, flips and insertions."""
    data = bytearray(seed)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(data) + 1)
        match source.randrange(5):
            case 0 if data:
                data[at % len(data)] = source.randrange(256)
            case 1:
                del data[at : at + source.randint(1, 20)]
            case 2:
                data[at:at] = source.choice(_WORDS)
            case 3:
                data[at:at] = data[source.randrange(len(data) + 1) :][: source.randint(1, 80)]
            case _:
                end = at + source.randint(1, 4)
                data[at:end] = source.choice(_WORDS)
    return bytes(data)


def plain(form: str, seeds: list[bytes], seconds: float, seed: int = 1) -> int:
    """Mutate seeds for some seconds; returns the number of executions. The first crash is raised with its input."""
    source = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = mutated(source.choice(seeds), source)
            try:
                once(form, data, Path(folder))
            except Exception as error:
                raise AssertionError(f"{form} failed on {data!r}") from error
            count += 1
    return count


def main(arguments: list[str]) -> None:
    form = arguments[0]
    folders = [Path(each) for each in arguments[1:] if not each.startswith("-") and Path(each).is_dir()]
    seeds = SEEDS[form] + [
        path.read_bytes() for folder in folders for path in sorted(folder.iterdir()) if path.is_file()
    ]
    if "--plain" in arguments:
        print(plain(form, seeds, float(arguments[arguments.index("--plain") + 1])), "executions")
        return
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("atheris is not installed; use --plain SECONDS")
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"{number}").write_bytes(seed)
    atheris.instrument_all()
    options = [each for each in arguments[1:] if each.startswith("-")]
    atheris.Setup(
        [sys.argv[0], *options, *(str(each) for each in folders), str(corpus)],
        lambda data: once(form, data, folder) and None,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
