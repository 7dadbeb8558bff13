"""Analysts are promised views with a word on every column, a page of questions whose queries run, and a role that
reaches nothing else."""

from __future__ import annotations

import re

import psycopg
import pytest

from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import ROOT

PAGE = ROOT / "docs" / "analysts.md"
QUERIES = re.findall(r"### (\d+\. [^\n]+)\n\n```sql\n(.*?)```", PAGE.read_text("utf-8"), re.S)


def test_every_table_view_and_column_of_the_house_carries_a_comment(database: Database) -> None:
    bare = database.read(
        "SELECT n.nspname || '.' || c.relname || coalesce('.' || a.attname, '') AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition AND n.nspname IN ('ref', 'raw', 'vee', 'anomaly', 'billing', 'control', 'ledger', "
        "'migration', 'analyst') AND (obj_description(c.oid, 'pg_class') IS NULL OR (a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL)) ORDER BY 1"
    )
    assert bare["name"].to_list() == []


def test_there_are_ten_questions_about_ten_views_and_more() -> None:
    assert len(QUERIES) == 25
    assert len(set(re.findall(r"analyst\.(\w+)", " ".join(query for _, query in QUERIES)))) >= 8


@pytest.mark.parametrize(("question", "query"), QUERIES, ids=[question.partition(".")[0] for question, _ in QUERIES])
def test_a_questions_query_runs_as_the_analyst(database: Database, question: str, query: str) -> None:
    privileges.apply(database)
    with database.connect(role="meter_analyst") as connection:
        cursor = connection.execute(query.encode())
        assert cursor.description, question
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT 1 FROM vee.daily_usage")
