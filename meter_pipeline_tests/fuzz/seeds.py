"""What fuzzing starts from: an honest file or two of each kind, words its format knows, and the corpus kept from
earlier campaigns.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from meter_pipeline.schemas.reference import TABLES

HERE: Final = Path(__file__).parent
DATA: Final = HERE.parents[1] / "data"

_FEED = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><link rel="self" href="/ReadingType/1"/>
<content><ReadingType><powerOfTenMultiplier>-3</powerOfTenMultiplier><uom>72</uom></ReadingType></content></entry>
<entry><link rel="self" href="/U/1/UsagePoint/2/MeterReading/3"/><link rel="related" href="/ReadingType/1"/><content><MeterReading/></content></entry>
<entry><link rel="self" href="/U/1/UsagePoint/2/MeterReading/3/IntervalBlock/4"/><content><IntervalBlock>
<IntervalReading><timePeriod><duration>900</duration><start>1357016400</start></timePeriod><value>12</value>
<ReadingQuality><quality>14</quality></ReadingQuality></IntervalReading>
<IntervalReading><timePeriod><duration>2592000</duration><start>1357016400</start></timePeriod><value>5</value></IntervalReading>
</IntervalBlock></content></entry></feed>"""

FEEDS: Final[dict[str, list[bytes]]] = {
    "delimited": [
        b"meter,channel,time,value,q,seq,unit\nM-1,E1,2026-11-01 01:15:00,1.5,A,1,kWh\nM-1,E1,2026-11-01 01:15:00,.5,S14:1,2,Wh\n"
    ],
    "jsonl": [
        b'{"meter":"M-1","channel":"E1","time":"2026-03-02T00:15:00Z","value":1.5,"q":"A","seq":1,"unit":"kWh"}\n'
    ],
    "nem12": [
        b"100,NEM12,202603030000,A,B\n200,N1,E1,,E1,,S,kWh,720,\n300,20260302,1.5,2,V,,,20260303010203,\n400,1,1,S14,1,\n400,2,2,A,,\n900\n",
        b"100,NEM12,202603030000,A,B\n200,N1,E1,,E1,,S,kWh,720,\n300,20260302,1,2,A,,,20260303010203,\n200,N2,E1,,E1,,S,MWh,1440,\n300,20260302,1,N,,,,\n900\n",
    ],
    "nem13": [
        b"100,NEM13,202603030000,A,B\n250,N1,11,1,11,11,S,E,1,20260101000000,A,,,5,20260301000000,E64,,,4,kWh,20260601,20260302000000,\n550,N,,E,\n900\n",
    ],
    "espi": [_FEED.encode()],
    "cmep": [
        b"MEPMD01,19970819,U,C,U,,202603030800,M-1,OK,E,KWH,1.0,00000015,2,202603020015,R0,1.5,,E,2\n",
        b"MEPMD01,19970819,U,C,U,,202603030800,M-1,OK,W,CFREG,,00000000,1,202603020015,,7\n",
    ],
    "marks": [
        b"m;n;d;t;s;v;u;f;i;c\nX-1;2;2026-11-01;01:30 - 02:00;S;1.234,5;kW;2;30;in\nX0;2;2026-11-01;01:30 - 02:00;W;,5;leistung;1,5;30;out\nend\n",
        b'sep=;\nm;n;d;t;s;v;u;f;i;c\n"X 1";"a\nb";2026-03-08;02:30 - 03:00;;1;kW;1;15;in;;\nTotal;;;;;9;;;;\n#\n1\n',
    ],
    "day_row": [
        b"m,d,v1,q1,v2,q2,v3,q3,v4,q4,v5,q5\nM-1,2026-11-01,1,A,2,E,3,A,4,A,5,A\nM-1,2026-03-08,1,A,,A,3,A,4,A,,\n",
    ],
    "headings": [
        b"Export\nMeter:A1\nCh;E1\nt;h;v\n2026-11-01;02X;1.5\n2026-11-10;3;2\nTotal;;3\n\nMeter:A2\r\nt;h;v\r\n2026-11-10;HE4;5\r\n",
        b"x\nt;h;v\nMeter:A\nCh;B\n2026-03-08;3;1\n# no read\nMeter:\n2026-11-10;24;1",
    ],
    "meter_columns": [
        b"t,M1,M2\n2026-11-10 00:00,1.5,2\n2026-11-10 01:00,,3\nt,M1,M2\n",
        b"sep=,\nt,M1,\n2026-11-01 01:00,7,\n",
    ],
    "positions": [
        b'[{"m": "J", "s": "2026-11-10T00:30:00-06:00", "v": [0.5, "0.25", null], "q": [1, "A"]}]',
        b'{"m": 7, "s": "2026-11-10T00:30:00Z", "v": [1e2]}\n{"m": 8, "s": "2026-11-10T00:30:00Z", "v": []}\n',
    ],
    "values": [b"m,d,h,a,b,q\nM-1,2026-11-01,25,1.5,,A\nM-1,2026-03-08,3,1,2,E\nM-1,2026-03-08,HE24,1,2,S14\n"],
    "fixed": [
        b"HEADER\nM-1    20261101 0200     1.500 A\nM-1    20261101 0200     2.500 A\nM-1    20260308 0300      NULL E64\n",
        b"M-1    20261101 0200     1.500 A  \nM-1    20261101 0200     2.500 A  \n",
    ],
    "nested": [
        b'{"Time":"2026-03-02T00:15:00.346666858Z","Message":{"ID":37,"Unit":"gal","Body":{"Read":1978208,"x":[1,{}]}},"z":true}\n',
    ],
    "json": [
        b'{"d":{"m":[{"id":"M-1","r":[{"t":"2026-03-02T00:15:00Z","v":1.5},{"t":"2026-03-02T00:30:00Z","v":"2"}]}]}}',
        b'{"d":{"m":{"id":"M-1","r":{"t":["2026-03-02T00:15:00Z"],"v":[3.2269999999999186]}}}}\n',
    ],
    "json_scan": [
        b'{"d":{"m":[{"r":[{"v":1.5,"t":"a"},{"t":"b"}],"id":"M"},{"id":2,"r":[]}],"u":"kWh"}}',
        b'{"d":{"m":{"id":null,"r":[[{"v":-1e3}],[]]},"u":true}}\n{"d":{"x":[1,"\\u00e9"],"u":""}}\n',
        b'{"d":{"m":[{"id":"M-1","t":["a","\\u00e9",1.5],"r":[["2026",2.5],["2027",null]]},{"t":[],"id":3}],"u":"a\\/b"}}',
        b'{"d":{"m":{"r":{"t":[true,"x"],"v":[-1e3,2]},"t":[1],"id":"\\ud83d\\ude00"}}}',
    ],
    "beacon": [
        b"Meter_ID,Estimated_Flag,Flow,Flow_Time,Flow_Unit,Read,Read_Time,Read_Unit\n12,0,5.0,2024-08-01 00:59,Gallons,227.6,2024-08-01 00:59,CCF\n"
    ],
}
_TWO = b"a.csv\nM-1,E1,1\n"
_WEATHER: Final[dict[int, bytes]] = {
    1: b'STATION,DATE,TMAX,TMIN,TMAX_ATTRIBUTES,TMIN_ATTRIBUTES\nUSW00094846,2025-01-01,  22, -38,",,W",",I,W"\nUSW00094846,2025-01-02,-1.5,-38,,\n',
    2: b"USW00094846,20250101,TMAX,22,,,W,2400\nUSW00094846,20250101,TMIN,-38,,,W,2400\nUSW00094846,20250101,TAVG,-8,,,W,\n",
    3: b"0112725300948462025010100004+41960-087932FM-15+0201KORD V0302301N00461220001CN0160931N5+00221-00171101821\n",
    4: b"2025 01 01 00    22   -17 10182   230    46     4     0 -9999\n2025 01 01 01 -9999   -17 10182   230    46     4     0 -9999\n",
    5: b"STN--- WBAN   YEARMODA    TEMP       DEWP      SLP        STP       VISP      WDSP     MXSPD   GUST    MAX     MIN   PRCP   SNDP   FRSHTT\n"
    b"725300 94846  20250101    30.9 24    22.5 24  1018.2 24   993.9 24    9.9 24    9.9 24   15.0   24.1    36.0*   26.1*  0.00G 999.9  000000\n",
    6: b'"STATION","DATE","TEMP","MAX","MIN"\n"72530094846","2025-01-01","  30.9","  36.0*","  26.1*"\n"72530094846","2025-01-02","9999.9","9999.9","26.1"\n',
    7: b'725300,"CHICAGO",IL,-6.0,41.983,-87.917,201\nDate (MM/DD/YYYY),Time (HH:MM),Dry-bulb (C)\n01/01/1996,01:00,-2.2\n01/01/1996,24:00,1.1\n',
    8: b"station_id,time,temperature_c\nK1,2026-03-02T00:00:00Z,1.5\nK1,2026-03-02T01:00:00+01:00,-4\n",
}
_ROWS: Final[dict[str, bytes]] = {
    "text": b"x",
    "id": b"A-1",
    "long_id": b"A-1/2.B_3",
    "date": b"2026-03-02",
    "instant": b"2026-03-02T00:00:00Z",
    "decimal": b"1.5",
    "integer": b"7",
}
_LEGACY = (
    b"account_id,level,code,value,estimated,tariff_version\nA-1,total,TOTAL,12.34,false,1\nA-1,line,ENERGY,-1.5,t,\n"
)
_NOTE = (
    "meter-pipeline/test\n2\n"
    + base64.b64encode(bytes(32)).decode()
    + "\n\n— meter-pipeline/test "
    + base64.b64encode(bytes(68)).decode()
    + "\n"
).encode()


def _row(kind: str) -> bytes:
    plain = kind.rstrip("?")
    return (
        plain[7:].split("|")[0].encode()
        if plain.startswith("choice:")
        else b"true"
        if plain == "boolean"
        else _ROWS[plain]
    )


def _table(number: int, name: str) -> bytes:
    columns = TABLES[name].columns
    row = b",".join(_row(kind) for kind in columns.values())
    return bytes([number]) + ",".join(columns).encode() + b"\n" + row + b"\n"


def first_seeds(name: str) -> list[bytes]:
    """Honest inputs of one target."""
    match name:
        case "sheet":
            sent = Path(__file__).parents[1] / "end_to_end" / "sent_files" / "a-sheet-for-each-meter" / "feed.xlsx"
            return [sent.read_bytes()]
        case "archive":
            return [
                b"\0" + gzip.compress(_TWO, mtime=0),
                b"\1\xc8" + _TWO,
                b"\2" + _TWO,
                b"\2" + _TWO + b"\xff\xfeb.csv\n1",
                b"\3" + _TWO,
                b"\2../a\n@/etc/passwd",
            ]
        case "tariff":
            urdb = json.dumps(
                {
                    "name": "R",
                    "label": "L",
                    "energyratestructure": [[{"rate": 0.1, "max": 100, "adj": 0.01}, {"rate": 0.2}], [{"rate": 0.3}]],
                    "energyweekdayschedule": [[0] * 12 + [1] * 12] * 12,
                    "energyweekendschedule": [[0] * 24] * 12,
                    "fixedchargefirstmeter": 5,
                    "fixedchargeunits": "$/month",
                    "mincharge": 3,
                    "minchargeunits": "$/day",
                    "dgrules": "Net Metering",
                    "demandwindow": 15,
                    "flatdemandstructure": [[{"rate": 3}]],
                    "flatdemandunit": "kW",
                    "lookbackpercent": 80,
                }
            )
            return [path.read_bytes() for path in sorted((DATA / "tariffs").glob("*.json"))] + [urdb.encode()]
        case "weather":
            return [bytes([number]) + text for number, text in _WEATHER.items()] + [
                b"\0" + text for text in _WEATHER.values()
            ]
        case "reference":
            return [_table(number, table) for number, table in enumerate(TABLES)]
        case "head_end":
            return [path.read_bytes() for path in sorted((DATA / "head_ends").glob("*.toml"))] + [
                b'format = "delimited"\nzone = "UTC"\nunit = "kWh"\ninterval_minutes = 15\n[columns]\nmeter_id = "meter"\ntime = "time"\nvalue = "value"\n'
            ]
        case "guess":
            return [seed for seeds in FEEDS.values() for seed in seeds]
        case "legacy":
            return [_LEGACY]
        case "note":
            return [_NOTE, b"key meter-pipeline/test+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        case _:
            return FEEDS[name]


_NUMBERS = [
    "NaN",
    "inf",
    "1e999",
    "-0",
    "1_0",
    "999999999999999999",
    "0.0000001",
    "+1",
    ".5",
    "5.",
    "9223372036854775807",
    "-9223372036854775808",
]
_TIMES = [
    "2026-11-01 01:30:00",
    "2026-03-08T02:30:00",
    "2026-03-02T00:15:00Z",
    "2026-02-30",
    "1969-12-31",
    "9999-12-31",
    "0001-01-01",
    "+14:00",
    "24:00",
]
WORDS: Final[dict[str, list[str]]] = {
    "delimited": [*_NUMBERS, *_TIMES, ",", "\n", "\r\n", '"', '""', "S14:1", "A", "kWh", "MWh", "M-1", "value", "seq"],
    "jsonl": [
        *_NUMBERS,
        *_TIMES,
        '"meter":',
        '"value":',
        '"q":null',
        "{",
        "}",
        "[",
        "]",
        "\\u0000",
        "\\ud800",
        "true",
        '"',
        "\\",
        "\n",
    ],
    "nem12": [
        *_NUMBERS,
        "100,NEM12,",
        "200,",
        "300,",
        "400,",
        "500,",
        "900",
        "\n",
        ",V,",
        ",S14,",
        ",A,",
        "kWh",
        "MWh",
        "15",
        "30",
        "1440",
        "20260302",
    ],
    "nem13": [*_NUMBERS, "100,NEM13,", "250,", "550,", "900", "\n", "20260101000000", "E64", "kWh", "MWh"],
    "espi": [
        "<IntervalReading>",
        "</IntervalReading>",
        "<value>",
        "</value>",
        "<start>",
        "<duration>",
        "<quality>",
        "<entry>",
        "</entry>",
        "<!DOCTYPE a",
        "<!ENTITY",
        "<![CDATA[",
        "]]>",
        '<?xml version="1.0" encoding="utf-16"?>',
        "&lt;",
        "&#0;",
        "&#xD800;",
        "uom",
        "86400",
        "90000",
        "82800",
        "accumulationBehaviour",
        "/IntervalBlock/",
        "/UsagePoint/",
        "/MeterReading/",
        'rel="up"',
    ],
    "cmep": [
        *_NUMBERS,
        "MEPMD01,19970819,",
        "OK",
        "KWHREG",
        "CFREG",
        "KWH",
        "00000015",
        "00010000",
        "R0",
        "E",
        "N",
        "\n",
        "202603020015",
    ],
    "marks": [
        *_NUMBERS,
        *_TIMES,
        ";",
        "\n",
        '"',
        "1.234,5",
        " - ",
        "S",
        "W",
        "in",
        "out",
        "kW",
        "leistung",
        "Total",
        "#",
        "sep=;",
        "30",
        "X0",
    ],
    "day_row": [*_NUMBERS, *_TIMES, ",", "\n", "2026-11-01", "2026-03-08", "A", "E64", "v1", "q1"],
    "values": [*_NUMBERS, *_TIMES, ",", "\n", "HE25", "2026-11-01", "2026-03-08", "24", "A"],
    "headings": [
        *_NUMBERS,
        "Meter:",
        "Ch;",
        "t;h;v",
        ";",
        "\n",
        "\r\n",
        "02X",
        "2026-11-01",
        "2026-03-08",
        "Total",
        "#",
        "\x02",
        "\x03",
    ],
    "meter_columns": [*_NUMBERS, *_TIMES, "t,", "M1", ",", "\n", "sep=,"],
    "positions": [*_NUMBERS, *_TIMES, '"m":', '"s":', '"v":', '"q":', "{", "}", "[", "]", "null", '"', "\n"],
    "sheet": ["xl/workbook.xml", "m", "t", "v", "PK"],
    "nested": [
        *_NUMBERS,
        *_TIMES,
        '"Message":',
        '"Body":',
        '"Read":',
        "{",
        "}",
        "[",
        "]",
        "null",
        "\\u0000",
        '"',
        "\\",
        "\n",
        "true",
    ],
    "fixed": [*_NUMBERS, "M-1   ", "20261101", "0200", "2500", "NULL", "E64", " ", "\n", "\r\n"],
    "json": [*_NUMBERS, *_TIMES, '"d":', '"m":', '"r":', '"t":', '"v":', "{", "}", "[", "]", "null", '"', "\n"],
    "json_scan": [
        *_NUMBERS,
        *_TIMES,
        '"d":',
        '"m":',
        '"r":',
        '"t":',
        '"v":',
        "{",
        "}",
        "[",
        "]",
        "null",
        '"id":',
        '"u":',
        "true",
        "\\\\u00e9",
        "\\\\/",
        '"',
        "\n",
    ],
    "guess": [
        *_NUMBERS,
        *_TIMES,
        ",",
        ";",
        "\t",
        "\n",
        "meter",
        "kWh",
        "date",
        "time",
        "hour",
        "import",
        "export",
        '"',
        "sep=;",
        "{",
        "100,NEM12",
        "MEPMD01,",
    ],
    "beacon": [*_NUMBERS, *_TIMES, "Gallons", "CCF", "Flow", "Read", "\n", ",", '"'],
    "archive": ["\xff\xfe", "../", "/", "\\", "C:", "\x00", "PK\x03\x04", "\x1f\x8b", "@", "#"],
    "tariff": [
        *_NUMBERS,
        '"schema":"meter_pipeline.tariff/1"',
        '"items":[',
        '"kind":"usage"',
        '"kind":"demand"',
        '"kind":"tax"',
        '"kind":"minimum"',
        '"tiers":[',
        '"rate":',
        '"adj":',
        '"max":',
        '"sell":',
        '"unit":"kWh/kW"',
        '"seasons":{',
        '"months":[',
        '"energyratestructure":',
        "null",
        "[[",
        "]]",
        "{",
        "}",
    ],
    "weather": [
        *_NUMBERS,
        *_TIMES,
        "9999",
        "+9999",
        "-9999",
        "99999.9",
        "STATION",
        "DATE",
        "TMAX",
        "TAVG",
        "\n",
        '"',
        ",",
        "24:00",
        "02/29/1996",
        "temperature_f",
    ],
    "reference": [
        *_NUMBERS,
        *_TIMES,
        "\n",
        ",",
        '"',
        "true",
        "residential",
        "electricity",
        "interval",
        "register",
        "\x00",
        "kWh",
    ],
    "head_end": [
        'format = "',
        "delimited",
        "jsonl",
        "nem12",
        "espi",
        "cmep",
        "wide_csv",
        "[columns]",
        "[options]",
        "[quality_map]",
        "[constants]",
        'zone = "',
        "= 1",
        "= true",
        "time_format",
        "encoding",
        "utf-16",
        "idna",
        "rot13",
        "delimiter",
        'ambiguous = "first"',
        "final_newline",
        "max_line_bytes",
        "%s",
        "%Y",
    ],
    "legacy": [*_NUMBERS, "total", "line", "read", "usage", "account_id", "\n", ",", '"', "true"],
    "note": ["\n\n", "— ", "\n", "key ", "+", "=", "0", "AAAA"],
}


def stored(kind: str, name: str) -> list[bytes]:
    """Inputs kept in ``corpus`` or ``crashes`` for a target."""
    path = HERE / kind / f"{name}.jsonl"
    return (
        [base64.b64decode(json.loads(line)["input"]) for line in path.read_text().splitlines()]
        if path.is_file()
        else []
    )


def keep(kind: str, name: str, inputs: Iterable[bytes]) -> None:
    """Write the inputs kept for a target, in order of size."""
    path = HERE / kind / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "".join(
            json.dumps({"input": base64.b64encode(data).decode()}) + "\n"
            for data in sorted(set(inputs), key=lambda d: (len(d), d))
        )
    )


def seeds(name: str) -> list[bytes]:
    """Everything a campaign on one target starts from."""
    return [*first_seeds(name), *stored("corpus", name), *stored("crashes", name)]
