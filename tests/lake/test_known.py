"""What a table is known to hold: the same answers as a dictionary, whatever came in whatever order."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.lake.known import Known

KEYS = st.sampled_from(["A", "B", "AB", "é", "\U0001f600", "", "z" * 40]) | st.text("AB", max_size=3)
VERSIONS = st.dictionaries(KEYS, st.sampled_from(["h1", "h2", "h3"]), max_size=6)


def columns(versions: dict[str, str]) -> tuple[pl.Series, pl.Series]:
    return pl.Series(list(versions), dtype=pl.String), pl.Series(list(versions.values()), dtype=pl.String)


@given(VERSIONS, st.lists(st.tuples(st.booleans(), VERSIONS), max_size=12))
def test_it_answers_as_a_dictionary_does(
    first: dict[str, str], steps: list[tuple[bool, dict[str, str]]]
) -> None:
    keys, hashes = columns(first)
    known = Known(keys, hashes.hash(), pl.repeat(0, len(keys), dtype=pl.UInt32, eager=True))
    model = {key: (text, 0) for key, text in first.items()}
    seen: set[str] = set()
    same: set[str] = set()
    for number, (is_added, versions) in enumerate(steps, 1):
        keys, hashes = columns(versions)
        files, is_same = known.look_up(keys, hashes)
        assert files.to_list() == [model.get(key, ("", None))[1] for key in versions]
        assert is_same.to_list() == [model.get(key, ("", 0))[0] == text for key, text in versions.items()]
        seen |= versions.keys() & model.keys()
        same |= {key for key in versions if model.get(key, ("", 0))[0] == versions[key]}
        if is_added:
            known.add(keys, hashes, number)
            model |= {key: (text, number) for key, text in versions.items()}
            seen |= versions.keys()
            same |= versions.keys()
    assert sorted(known.keys()) == sorted(model)
    assert sorted(known.unseen()) == sorted(model.keys() - seen)
    everything = pl.Series(list(model), dtype=pl.String)
    assert known.files(everything).to_list() == [file for _, file in model.values()]
    asked = pl.Series(["A", "B", "nobody"])
    assert set(known.current(asked)) == {"A", "B"} & same
