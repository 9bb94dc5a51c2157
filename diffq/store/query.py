"""Asking about all runs of a store: conditions and orders in SQL, over the index, by DuckDB.

What a user writes is one expression. It is evaluated on a table in memory, by a connection that can open no file,
load no extension and change no setting.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.errors import UserError, did_you_mean
from diffq.store.columns import SHOWN, Names
from diffq.store.index import INNER, Seen, index_file, intact, look, make_table, read_row, read_table
from diffq.store.root import Store
from diffq.store.sweeps import SweepFolder

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Question:
    """What is asked.

    where     an SQL expression over the columns, or None for all
    sort      names of columns, the first one first; `-` in front of a name: the largest first. Runs that have no value
              come last; those that are equal are ordered by their folder
    limit     at most so many, or None
    kinds     the kinds of runs that are meant; empty for all
    """

    where: str | None = None
    sort: tuple[str, ...] = ()
    limit: int | None = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Rows of values, in the order that was asked for, and the columns they belong to.

    columns   the stored columns; `names` says how they are written. Empty where the store holds no run at all
    types     DuckDB's type of each: VARCHAR, BIGINT, DOUBLE, BOOLEAN or TIMESTAMP
    broken    why files of the store could not be read, a sentence each
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    names: Names
    broken: tuple[str, ...] = ()


def ask(
    store: Store, question: Question, columns: Sequence[str] | None = None, folders: Sequence[Path] | None = None
) -> Answer:
    """What a question about the runs of a store finds, each run once.

    A point goes by every name that its sampler was asked for by in a sweep, and by the one it is stored under; the
    column `sampler` says the one that fulfils the condition, the latter where both do.

    columns: names of the columns that are wanted, or None for all, in the order in which they are stored
    folders: runs that are asked about instead of the whole store, wherever they lie

    UserError, in one sentence, for what is no expression, for a column that is not there and for anything else that
    DuckDB says; and where duckdb or pyarrow is missing.
    """
    with _asked(store, folders) as (connection, names, broken):
        if connection.execute("SELECT count(*) FROM stored").fetchall() == [(0,)]:
            return Answer((), (), [], names)
        _check(question, names)
        wanted = tuple(names[name] if name not in SHOWN else name for name in columns or names.written)
        orders = [
            f"{_quoted(names[name.lstrip('-')])} {'DESC' if name.startswith('-') else 'ASC'} NULLS LAST"
            for name in question.sort
        ]
        orders.append("folder")
        found = _filtered(connection, question, names)
        limit = f" LIMIT {question.limit}" if question.limit is not None else ""
        once = "QUALIFY row_number() OVER (PARTITION BY folder ORDER BY _alias, sampler) = 1"
        sql = f"SELECT {', '.join(map(_quoted, wanted))} FROM found {once} ORDER BY {', '.join(orders)}{limit}"
        with _told(question, names):
            relation = found.query("found", sql)
            types, rows = tuple(map(str, relation.types)), relation.fetchall()
    return Answer(wanted, types, rows, names, tuple(broken))


def _check(question: Question, names: Names) -> None:
    for name in question.sort:
        names[name.lstrip("-")]
    if question.where is not None and not question.where.strip():
        raise UserError("--where is empty; it is a condition such as \"sampler='cfg' and bleu > 10\"")


def _filtered(connection: Any, question: Question, names: Names) -> Any:
    """The relation of the runs that are meant."""
    runs = connection.view("runs")
    if question.kinds and not re.search(r"\bkind\b", question.where or "", re.IGNORECASE):
        runs = runs.filter(f"kind IN ({', '.join(map(repr, question.kinds))})")
    if question.where is not None:
        with _told(question, names):
            runs = runs.filter(question.where)
    return runs


@contextlib.contextmanager
def _asked(store: Store, folders: Sequence[Path] | None) -> Iterator[tuple[Any, Names, list[str]]]:
    """A connection that can reach nothing but the table `stored` and the view `runs`, in which columns have their bare
    names too; and why files of the store could not be read."""
    for package in ("duckdb", "pyarrow"):  # the latter writes the index, and a fresh one is asked without loading it
        if importlib.util.find_spec(package) is None:
            raise UserError(f"a question to the store needs the package {package}: pip install {package}")
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    try:
        if folders is not None:
            _fill(connection, make_table([read_row(str(folder), store.relative(folder)) for folder in folders]))
        else:
            seen = look(store)
            if not _read_index(connection, store, seen):
                _fill(connection, read_table(store, seen))
        columns = [row[0] for row in connection.execute("DESCRIBE stored").fetchall()]
        names = Names.of(name for name in columns if name not in INNER)
        renamed = [
            f"{_quoted(stored)} AS {_quoted(name)}" for name, stored in names.stored.items() if name != stored.lower()
        ]
        broken = _name(connection, store)
        own = f"* EXCLUDE ({', '.join(name for name in INNER if name in columns)})"
        connection.execute(f"CREATE VIEW runs AS SELECT {', '.join([own, *renamed])} FROM named")
        for setting in ("python_enable_replacements=false", "enable_external_access=false", "lock_configuration=true"):
            connection.execute(f"SET {setting}")
        yield connection, names, broken
    finally:
        connection.close()


def _read_index(connection: Any, store: Store, seen: Mapping[str, Seen]) -> bool:
    """Reads the index into `stored` and says whether it is what the folders are now."""
    import duckdb

    if not intact(store):
        return False
    try:
        connection.execute(
            "CREATE OR REPLACE TABLE stored AS SELECT * EXCLUDE (_run, _metrics) FROM read_parquet(?)",
            [str(index_file(store))],
        )
    except duckdb.Error:  # replaced or deleted since it was looked at
        return False
    # What is compared is what was read, so that another process may write the file at any time.
    held = connection.execute("SELECT folder, _stamp, _read_at, _newest FROM stored").fetchall()
    now = time.time_ns()
    return len(held) == len(seen) and all(
        folder in seen and seen[folder].confirms(stamp, read_at, newest, now) for folder, stamp, read_at, newest in held
    )


def _name(connection: Any, store: Store) -> list[str]:
    """Makes the view `named`: each run under the name that its sampler is stored by, and once more under each other one
    that it was asked for by (`cfg` is stored as its solver). Gives why files could not be read."""
    broken = [text for (text,) in connection.execute("SELECT _broken FROM stored WHERE _broken != ''").fetchall()]
    folders, samplers = [], []
    for plan in sorted(store.sweeps.glob("*/plan.jsonl")):
        try:
            rows = SweepFolder(plan.parent).read()
        except UserError as error:
            broken.append(str(error))
            continue
        folders += [row.folder for row in rows if row.sampler]
        samplers += [row.sampler for row in rows if row.sampler]
    connection.execute(
        "CREATE TABLE aliases AS SELECT unnest(?::VARCHAR[]) AS folder, unnest(?::VARCHAR[]) AS name"
        " UNION SELECT folder, asked FROM stored WHERE asked IS NOT NULL",
        [folders, samplers],
    )
    connection.execute(
        "CREATE VIEW named AS SELECT *, false AS _alias FROM stored UNION ALL BY NAME"
        " SELECT stored.* REPLACE (name AS sampler), true AS _alias FROM stored JOIN aliases USING (folder)"
        " WHERE name != sampler"
    )
    return broken


def _fill(connection: Any, table: Any) -> None:
    connection.register("made", table.drop_columns(["_run", "_metrics"]))
    connection.execute("CREATE OR REPLACE TABLE stored AS SELECT * FROM made")
    connection.unregister("made")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def _told(question: Question, names: Names) -> Iterator[None]:
    """What DuckDB says about an expression, in one sentence."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise UserError(_sentence(str(error), question.where or "", names)) from None


def _sentence(said: str, where: str, names: Names) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = re.sub(r"^\w+( \w+)? Error: ", "", lines[0]) if lines else "it cannot be evaluated"
    if found := re.match(r'Referenced (?:column|table) "(.*?)" not found', first):
        return _unknown(found[1], where, names)
    if "disabled by configuration" in first or "disabled through configuration" in first:
        return f"--where asks about the runs of this store alone; it may open no file ({first.rstrip('.')})"
    if ";" in where and "modifiers" in first:
        first = "it is one expression, with no `;` and nothing after it"
    if re.search(r"LINE \d+", first):
        first = first.partition("LINE")[0].strip()
    if len(lines) > 1 and lines[1].startswith("Did you mean"):
        first += f" ({lines[1][0].lower()}{lines[1][1:]})"
    return f"--where {where!r} is no condition that can be evaluated: {first.rstrip('.!')}{_reserved(where, names)}"


def _unknown(name: str, where: str, names: Names) -> str:
    try:
        names[name]
    except UserError as error:
        told = str(error)
    else:
        return f"--where {where!r} uses '{name}' where there is no such column"
    # sampler=cfg and sampler="cfg" are what people write first
    if re.search(rf"(?:=|<>|\blike|\bin\s*\(|,)\s*\"?{re.escape(name)}\"?(?!\w)", where, re.IGNORECASE):
        near = did_you_mean(name, names.written.values())
        return f"there is no column '{name}'{near}; a text is written in single quotes: '{name}'"
    return told


def _reserved(where: str, names: Names) -> str:
    """A hint where a column's bare name is a word of SQL's own."""
    words = {word.lower() for word in _PLAIN.findall(where)}
    for stored, name in names.written.items():
        if name != stored and name.lower() in words and name.lower() in _keywords():
            return f" ('{name}' is a word of SQL; write {stored})"
    return ""


def _keywords() -> set[str]:
    import duckdb

    with duckdb.connect() as connection:
        found = connection.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category != 'unreserved'")
        return {name for (name,) in found.fetchall()}
