"""From which columns a column comes, told from the SQL alone, and not told again without need."""

from __future__ import annotations

from pathlib import Path

from dagster_l2.assets.column_lineage import LineageCache, column_origins

COLUMNS = {
    "main": {"a": {"id": "VARCHAR", "x": "DOUBLE"}, "b": {"id": "VARCHAR", "y": "DOUBLE"}},
    "bronze": {"raw": {"details": "JSON", "seq": "BIGINT"}},
}


def test_through_ctes_joins_filters_and_windows() -> None:
    sql = """
        with a as (select * from "warehouse"."main"."a"),
        joined as (select a.id, a.x + b.y as total, 'text' as said from a left join main.b on a.id = b.id),
        final as (
            select id, total, said, count(*) as number, sum(total) filter (where said = 'x') over () as every
            from joined group by all qualify row_number() over (partition by id order by total) = 1
        )
        select * from final
    """
    assert column_origins(sql, COLUMNS) == {
        "id": [("main", "a", "id")],
        "total": [("main", "a", "x"), ("main", "b", "y")],
        "said": [],
        "number": [],
        "every": [("main", "a", "x"), ("main", "b", "y")],
    }


def test_unions_by_name_whose_branches_differ() -> None:
    sql = (
        "select id, x from main.a union all by name select y, id from main.b union all by name select 1 as x"
    )
    assert column_origins(sql, COLUMNS) == {
        "id": [("main", "a", "id"), ("main", "b", "id")],
        "x": [("main", "a", "x")],
        "y": [("main", "b", "y")],
    }


def test_json_and_other_schemas() -> None:
    sql = "select details ->> 'to' as told, max_by(seq, seq) as last from bronze.raw group by all"
    assert column_origins(sql, COLUMNS) == {
        "told": [("bronze", "raw", "details")],
        "last": [("bronze", "raw", "seq")],
    }


def test_sql_that_cannot_be_read_has_no_lineage_and_stops_nothing() -> None:
    assert column_origins("this is no SQL (", COLUMNS) == {}
    assert column_origins("select nowhere.z from nowhere", COLUMNS) in ({}, {"z": [("main", "nowhere", "z")]})


def test_it_is_told_anew_only_when_sql_or_tables_change(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    sql = "select id, timestamp '2026-01-01' as built_at from main.a"
    cache = LineageCache(path, COLUMNS)
    told = cache.origins("m", sql)
    assert told == {"id": [("main", "a", "id")], "built_at": []}
    cache.save()
    written = path.stat().st_mtime_ns

    again = LineageCache(path, COLUMNS)
    assert again.origins("m", sql.replace("2026-01-01", "2026-01-02")) == told
    again.save()
    assert path.stat().st_mtime_ns == written

    assert LineageCache(path, COLUMNS).origins("m", "select x as id from main.a") == {
        "id": [("main", "a", "x")]
    }
    path.write_text("spoiled")
    assert LineageCache(path, COLUMNS).origins("m", sql) == told
