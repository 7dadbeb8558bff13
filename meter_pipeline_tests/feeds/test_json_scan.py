"""The compiled loop over JSON documents makes the same records as Python's json."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from meter_pipeline.feeds import compiled, json_document, json_scan, kernels_json
from meter_pipeline.feeds.json_records import Wanted
from meter_pipeline.feeds.rejects import FeedRefused

WANTED = [
    (0, ("data", "meters", "id")),
    (1, ("data", "meters", "reads", "t")),
    (2, ("data", "meters", "reads", "v")),
    (3, ("data", "unit")),
    (4, ("data", "meters", "place", "site")),
]


@pytest.fixture(autouse=True)
def plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops as plain Python: what they do is the same, and nothing need be compiled."""
    monkeypatch.setattr(compiled, "kernel", lambda name, size: (getattr(kernels_json, name), True))


def _value(rng: random.Random) -> Any:
    return rng.choice(
        [
            "2026-11-10T00:00:00Z",
            "",
            "a b",
            "é",
            'quo"te',
            "tab\there",
            0,
            -1.25,
            1e300,
            12.5,
            True,
            None,
            [],
            {},
            [1],
            "x",
        ]
        if rng.random() < 0.3
        else ["M1", 1.5, 2, "2026-11-10"]
    )


def _object(rng: random.Random, keys: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with some of the keys, in any order, and others that nobody asked for."""
    chosen = [each for each in keys if rng.random() < 0.9]
    chosen += [(f"other{n}", _value(rng)) for n in range(rng.randrange(3))]
    rng.shuffle(chosen)
    return {key: made() if callable(made) else made for key, made in chosen}


def _document(rng: random.Random) -> Any:
    def read() -> dict[str, Any]:
        return _object(rng, [("t", lambda: _value(rng)), ("v", lambda: _value(rng))])

    def reads() -> Any:
        found = [read() for _ in range(rng.randrange(4))]
        return read() if rng.random() < 0.1 else [found, [read()]] if rng.random() < 0.1 else found

    def meter() -> dict[str, Any]:
        place = lambda: _object(rng, [("site", lambda: _value(rng)), ("reads", lambda: 1)])  # noqa: E731
        return _object(rng, [("id", lambda: _value(rng)), ("reads", reads), ("place", place)])

    def meters() -> Any:
        return [meter() for _ in range(rng.randrange(4))] if rng.random() < 0.9 else meter()

    def data() -> dict[str, Any]:
        return _object(rng, [("meters", meters), ("unit", lambda: _value(rng))])

    whole = _object(rng, [("data", data)])
    return [whole, {"data": data()}] if rng.random() < 0.2 else whole


#: paths of documents with lists of plain values, places in lists and numbers of values
LISTS: list[Wanted] = [
    [(0, ("m", "id")), (1, ("m", "t")), (2, ("m", "v"))],
    [(0, ("m", "id")), (1, ("m", "s", "t")), (2, ("m", "s", "v")), (3, ("unit",))],
    [(0, ("m", "id")), (1, ("m", "v")), (2, ("m", "v", "#"))],
    [(0, ("m", "id")), (1, ("m", "t", "#")), (2, ("m", "s", "v"))],
    [(0, ("m", "id")), (1, ("m", "rows", "0")), (2, ("m", "rows", "2"))],
    [(0, ("m", "rows", "1")), (1, ("m", "rows", "v")), (2, ("unit",))],
    [(0, ("0",)), (1, ("3",))],
]


def _plain(rng: random.Random) -> Any:
    return rng.choice([0, -1.25, 12.5, "x", "é", "a/b", True, None, "", 'quo"te', "tab\t", "😀", "\u2028", "\x7f"])


def _with_lists(rng: random.Random) -> Any:
    """A document of the paths in LISTS: lists mostly of one length, now and then with something odd in them."""
    length = rng.randrange(5)

    def values() -> Any:
        if rng.random() < 0.08:
            return rng.choice([[[1, 2]], {"t": [1]}, 5, None, [{"v": 1}], [1, [2]], {"0": 3}])
        return [_plain(rng) for _ in range(length if rng.random() < 0.9 else rng.randrange(4))]

    def rows() -> Any:
        if rng.random() < 0.15:
            return rng.choice([values(), [values(), 3], [values(), {"v": 1}], [[values()]], {"1": 4, "v": "z"}])
        return [values() for _ in range(rng.randrange(4))]

    def series() -> Any:
        made = _object(rng, [("t", values), ("v", values)])
        return [made] if rng.random() < 0.1 else made

    def meter() -> Any:
        keys = [("id", lambda: _plain(rng)), ("t", values), ("v", values), ("s", series), ("rows", rows)]
        return _object(rng, keys)

    if rng.random() < 0.2:
        return rows()
    meters = [meter() for _ in range(rng.randrange(4))]
    return _object(rng, [("m", lambda: meters if rng.random() < 0.9 else meter()), ("unit", lambda: _plain(rng))])


def test_lists_places_and_escapes_make_the_same_records() -> None:
    scanned = 0
    for seed in range(6000):
        rng = random.Random(seed)
        documents = [_with_lists(rng) for _ in range(rng.choice([1, 1, 2]))]
        indent = rng.choice([None, 1]) if len(documents) == 1 else None
        text = "\n".join(json.dumps(each, indent=indent, ensure_ascii=rng.random() < 0.5) for each in documents)
        if rng.random() < 0.3:
            text = text.replace("/", "\\/")
        if rng.random() < 0.1:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(["", ",", "}", '"', "1", "]", "\\", "[", "\\u00", "\\ud800"]) + text[at + 1 :]
        content, wanted, decimal = text.encode("utf-8"), rng.choice(LISTS), rng.choice(".,")
        fast = json_scan.scanned_records(content, wanted, decimal)
        if fast is None:
            continue
        scanned += 1
        assert fast == json_document.slow_records(content, wanted, decimal), (seed, wanted, text)
    assert scanned > 1500, scanned


def test_both_ways_make_the_same_records() -> None:
    scanned = 0
    for seed in range(3000):
        rng = random.Random(seed)
        documents = [_document(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
        indent = rng.choice([None, None, 1]) if len(documents) == 1 else None
        text = "\n".join(json.dumps(each, indent=indent, ensure_ascii=rng.random() < 0.2) for each in documents)
        if rng.random() < 0.2:  # a fault anywhere
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(["", ",", "}", '"', "1", "]", "\\", "[1]"]) + text[at + rng.randrange(2) :]
        content = text.encode("utf-8")
        fast = json_scan.scanned_records(content, WANTED)
        if fast is None:
            continue
        scanned += 1
        assert fast == json_document.slow_records(content, WANTED, "."), (seed, text)
    assert scanned > 700


@pytest.mark.parametrize(
    "text",
    [
        '{"data":{"unit":"a","unit":"b"}}',  # a key that occurs twice
        '{"data":{"other":1,"other":2}}',
        '{"data":{"meters":[],"meters":[]}}',
        '{"data":{"meters":[{"id":"\\u00221"}]}}',  # an escape in a wanted value
        '{"d\\u0022ta":{}}',
        '{"data":{"meters":[1]}}',
        '{"data":{"meters":[{"id":01}]}}',
        '{"data":{"meters":[{"id":1.}]}}',
        '{"data":{"meters":[{"id":NaN}]}}',
        '{"data":{}}{"data":{}}',
        '{"data":\n{}}\n{"data":{}}',
        '{"data":{}}\n{\n"data":{}}\n',
        '{"data":{"unit":"kWh"}',
        '{"data":{"unit":"kWh"}]',
        '{"data":{"unit":"kWh",}}',
        '{"data":{"meters":[{"id":1},]}}',
        "[" * 70 + "]" * 70,
        "5",
        "",
        '{"data":{"unit":"a\nb"}}',
    ],
)
def test_what_the_loop_leaves_to_the_slow_way(text: str) -> None:
    assert json_scan.scanned_records(text.encode(), WANTED) is None


def test_faults_are_refused_by_the_slow_way() -> None:
    for text in ('{"data":{"other":1,"other":2}}', '{"data":{"meters":[{"id":01}]}}', '{"data":{}}{"data":{}}'):
        with pytest.raises(FeedRefused):
            json_document.slow_records(text.encode(), WANTED, ".")
