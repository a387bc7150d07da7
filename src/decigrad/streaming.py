"""Decisions for tables larger than memory: Parquet or CSV in, batch by batch, Parquet or CSV out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.deciding import taken
from decigrad.errors import ModelError, SolveError
from decigrad.files import replacing
from decigrad.program import Status
from decigrad.sources import check_there, reading, shown, text_layout

if TYPE_CHECKING:
    from decigrad.policy import Policy

_SUFFIXES = (".parquet", ".pq", ".csv", ".tsv")


@dataclass(frozen=True)
class FileDecisions:
    """What `Policy.decide_file` did.

    Attributes:
        target: the file of decisions.
        rows: decisions in it.
        failed: rows whose solve did not end optimal.
        fallback: rows among them that got the fallback decision.
        seconds: time in all.
    """

    target: Path
    rows: int
    failed: int
    fallback: int
    seconds: float


def decide_file(
    policy: Policy,
    source: Path,
    target: Path,
    *,
    batch: int,
    keep: Sequence[str],
    throw: bool,
    progress: Callable[[int], None] | None,
    **options: Any,
) -> FileDecisions:
    """See `Policy.decide_file`; `options` are those of `Policy.decide`."""
    if policy.feature_names is None:
        raise ModelError("the policy does not know its columns: Policy(..., feature_names=[...])")
    if batch < 1:
        raise ModelError(f"batch must be at least 1, got {batch}")
    for path in (source, target):
        if path.suffix.lower() not in _SUFFIXES:
            raise ModelError(
                f"{path}: a table is {', '.join(_SUFFIXES)}, not {path.suffix or 'without suffix'}"
            )
    check_there(source)
    if target.exists() and source.samefile(target):
        raise ModelError(f"{target} is the table of features itself: write the decisions to another file")
    keep = list(dict.fromkeys(keep))
    start, rows, failed, replaced = time.perf_counter(), 0, 0, 0
    with replacing(target) as beside, ExitStack() as stack:
        write: Callable[[Any], None] | None = None
        for part in _batches(source, policy.table_columns, keep, batch):
            features, known = _inputs(policy, part, source, rows)
            try:
                found = policy.decide(features, known, throw=False, **options)
            except ModelError as error:
                error.add_note(f"in the batch of rows from {rows} on of {source}")
                raise
            lost = (found.status != Status.OPTIMAL) & ~found.fallback
            if throw and lost.any():
                i = int(np.flatnonzero(lost)[0])
                params = taken({**found.predicted, **known}, i)
                reason = _reason(policy, params, Status(int(found.status[i])))
                raise SolveError(
                    f"{source}, row {rows + i}: {reason}. State a fallback decision, or allow failures"
                )
            table = _with_decisions(part.select(keep), found.table())
            write = write or _writer(stack, beside, target.suffix.lower(), table.schema)
            write(table)
            rows += len(found)
            failed += int((found.status != Status.OPTIMAL).sum())
            replaced += int(found.fallback.sum())
            if progress is not None:
                progress(rows)
        if rows == 0:
            raise ModelError(f"{source} has no rows")
    return FileDecisions(target, rows, failed, replaced, time.perf_counter() - start)


def _reason(policy: Policy, params: dict[str, np.ndarray], status: Status) -> str:
    """Why a row has no decision; the solver is asked again, for the constraints that clash."""
    if status not in (Status.TIME_LIMIT, Status.INVALID_DATA):
        try:
            policy.layer.exact.solve(params, throw=True)
        except SolveError as error:
            return f"{status.name}: {error}"
    return f"{status.name} ({status.advice})"


def _batches(source: Path, needed: list[str], keep: list[str], batch: int) -> Iterator[Any]:
    """Arrow tables of at most `batch` rows, with the columns that are asked for."""
    import pyarrow
    from pyarrow import csv, parquet

    columns = list(dict.fromkeys([*needed, *keep]))
    suffix = source.suffix.lower()
    with reading(source):
        if suffix in (".parquet", ".pq"):
            with parquet.ParquetFile(source) as file:
                _check_names(source, columns, file.schema_arrow.names)
                for part in file.iter_batches(batch_size=batch, columns=columns):
                    yield pyarrow.Table.from_batches([part])
            return
        parse = text_layout(source)
        read = csv.ReadOptions(use_threads=False)
        with csv.open_csv(source, parse_options=parse, read_options=read) as head:
            _check_names(source, columns, head.schema.names)
        # As text: a type inferred from the first rows would refuse later ones, and would not say which.
        convert = csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pyarrow.string()),
            strings_can_be_null=True,
        )
        with csv.open_csv(source, parse_options=parse, read_options=read, convert_options=convert) as stream:
            for chunk in stream:
                for start in range(0, chunk.num_rows, batch):
                    yield pyarrow.Table.from_batches([chunk.slice(start, batch)])


def _check_names(source: Path, columns: list[str], names: list[str]) -> None:
    if missing := [n for n in columns if n not in names]:
        raise ModelError(f"{source} lacks the columns {shown(missing)}; it has {shown(names)}")
    if twice := [n for n in columns if names.count(n) > 1]:
        raise ModelError(f"{source} has several columns named {shown(twice)}")


def _inputs(policy: Policy, part: Any, source: Path, first: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features and known parameters of a batch whose first row is row `first` of the table."""
    columns = {}
    for name in policy.table_columns:
        values = _floats(part.column(name), f"{source}, column {name!r}", first)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            row = first + int(bad[0])
            raise ModelError(f"{source}, row {row}, column {name!r}: the value is missing or not finite")
        columns[name] = values
    return policy.from_columns(columns)


def _floats(column: Any, where: str, first: int) -> np.ndarray:
    """A column as float64, NaN where there is no value."""
    import pyarrow

    kind = column.type
    allowed = "integer floating boolean decimal string large_string null".split()
    if not any(getattr(pyarrow.types, f"is_{name}")(kind) for name in allowed):
        raise ModelError(f"{where} holds {kind}, not numbers")
    try:
        return np.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy())
    except pyarrow.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            try:
                float(value if value is not None else 0.0)
            except ValueError:
                raise ModelError(f"{where}, row {first + row}: {value!r} is not a number") from None
        raise ModelError(f"{where}: not numbers") from None


def _with_decisions(kept: Any, columns: dict[str, np.ndarray]) -> Any:
    import pyarrow

    if twice := [n for n in kept.column_names if n in columns]:
        raise ModelError(f"the column {twice[0]!r} that is kept has the name of a column of decisions")
    for name, values in columns.items():
        kept = kept.append_column(name, pyarrow.array(np.ascontiguousarray(values)))
    return kept


def _writer(stack: ExitStack, path: Path, suffix: str, schema: Any) -> Callable[[Any], None]:
    from pyarrow import csv, parquet

    if suffix in (".parquet", ".pq"):
        writer: Any = stack.enter_context(parquet.ParquetWriter(path, schema))
    else:
        options = csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        writer = stack.enter_context(csv.CSVWriter(path, schema, write_options=options))
    return lambda table: writer.write_table(table)
