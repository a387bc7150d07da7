"""Where columns come from: a Parquet, CSV or NPZ file, a frame, a dict of arrays; one reader for all of them.

A column is refused by its name where it is not what its role needs: numbers, times, true and false.
"""

from __future__ import annotations

import codecs
import difflib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError


@dataclass(frozen=True)
class Table:
    """Columns by name, read when they are asked for, and refused where they are not what is asked."""

    where: str
    names: list[str]
    read: Callable[[str], np.ndarray]
    rows: np.ndarray | None = None
    """Positions in the source, where some rows are left out; None: all."""

    @staticmethod
    def open(source: Any) -> Table:
        """The table in a file, a frame or a dict of arrays."""
        if isinstance(source, Table):
            return source
        if isinstance(source, str | Path):
            return _opened(Path(source))
        if isinstance(source, Mapping):
            arrays = {str(n): np.asarray(a) for n, a in source.items()}
            return _of_arrays("the dict", arrays)
        if hasattr(source, "columns"):
            return _of_frame(source)
        raise ModelError(
            f"a table is a path, a pandas or polars frame or a dict, got {type(source).__name__}"
        )

    def __len__(self) -> int:
        return len(self.column(self.names[0])) if self.rows is None else len(self.rows)

    def take(self, rows: np.ndarray) -> Table:
        """The rows at these positions."""
        return Table(self.where, self.names, self.read, rows if self.rows is None else self.rows[rows])

    def column(self, name: str) -> np.ndarray:
        """A column as it is stored, [N, ...]."""
        values = self.read(name)
        return values if self.rows is None else values[self.rows]

    def absent(self, name: str) -> np.ndarray:
        """Where a column has no value, bool [N]."""
        values = self.column(name)
        if values.dtype.kind in "fc":
            return np.isnan(values).reshape(len(values), -1).any(axis=1)
        if values.dtype.kind in "mM":
            return np.isnat(values)
        if values.dtype.kind == "O":
            return np.array([v is None or v != v for v in values], bool)
        return np.zeros(len(values), bool)

    def complete(self, role: str, name: str) -> np.ndarray:
        """A column without missing values."""
        gone = self.absent(name)
        if gone.any():
            fix = "drop these rows or fill them in, the same way at decision time"
            if role.startswith("parameter"):
                fix = "fill them in, or leave these rows out (for targets: missing='drop')"
            raise ModelError(
                f"{role}: column {name!r} of {self.where} has {int(gone.sum())} missing values of "
                f"{len(gone)} (first rows: {self._rows(gone)}); {fix}"
            )
        return self.column(name)

    def numbers(self, role: str, name: str) -> np.ndarray:
        """A column as finite float64 [N, ...]."""
        values = self.complete(role, name)
        kind, where = values.dtype.kind, f"{role}: column {name!r} of {self.where}"
        if kind in "mM":
            raise ModelError(f"{where} holds dates; derive numbers from them (hour, weekday, days since …)")
        if kind not in "biuf":
            self._refuse_text(where, values.reshape(len(values), -1)[:, 0])
        numbers = values.astype(np.float64)
        infinite = np.asarray(~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1))
        if infinite.any():
            raise ModelError(
                f"{where} has {int(infinite.sum())} infinite values (first rows: {self._rows(infinite)})"
            )
        return numbers

    def _refuse_text(self, where: str, values: np.ndarray) -> None:
        """Raise for a column that holds something else than numbers, naming what is none."""
        if all(_is_number(v) for v in values):
            return
        bad = np.array([not _reads_as_number(v) for v in values], bool)
        if not bad.any():
            raise ModelError(f"{where} holds numbers as text (such as {values[0]!r}): convert it to numbers")
        raise ModelError(
            f"{where} is not numeric: {int(bad.sum())} of {len(values)} values are no numbers (first rows: "
            f"{self._rows(bad)}; {values[bad][0]!r}); encode it as numbers, or correct it"
        )

    def array(self, role: str, names: Sequence[str]) -> np.ndarray:
        """Columns side by side as float64 [N, p]; a single one of more than two axes as it is."""
        parts = [self.numbers(role, name) for name in names]
        if len(parts) == 1 and parts[0].ndim > 2:
            return parts[0]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def times(self, name: str) -> np.ndarray:
        """A column of times: datetime64, or numbers."""
        values = self.complete("time", name)
        if values.dtype.kind == "M":
            return values
        if values.dtype.kind in "OU" and not all(_is_number(v) for v in values):
            import pyarrow

            try:
                return np.asarray(pyarrow.array(values.tolist()).cast(pyarrow.timestamp("ns")).to_numpy())
            except pyarrow.ArrowException:
                bad = np.array([not _is_time(v) for v in values], bool)
                raise ModelError(
                    f"time: column {name!r} of {self.where} must hold ISO dates (2024-05-01 or "
                    f"2024-05-01T13:00) or numbers; {int(bad.sum())} of {len(bad)} values are no dates "
                    f"(first rows: {self._rows(bad)}; {values[bad][0]!r})"
                ) from None
        return self.numbers("time", name)

    def labels(self, name: str) -> np.ndarray:
        """A column of group labels: text where it is no number."""
        values = self.complete("group", name)
        return values.astype(str) if values.dtype.kind == "O" else values

    def flags(self, name: str | None) -> np.ndarray:
        """A column of true and false, bool [N]; all false where there is none."""
        if name is None:
            return np.zeros(len(self), bool)
        values = self.numbers("censored", name)
        if not np.isin(values, (0.0, 1.0)).all():
            raise ModelError(
                f"censored: column {name!r} of {self.where} must hold true and false, or 1 and 0"
            )
        return values.astype(bool)

    def _rows(self, mask: np.ndarray) -> str:
        """The first rows of a mask, counted from 0 in the source."""
        first = np.flatnonzero(mask)
        rows = first if self.rows is None else self.rows[first]
        return ", ".join(str(int(i)) for i in rows[:5]) + (", …" if len(rows) > 5 else "")


# ---------------------------------------------------------------------------------------------- sources


def _opened(path: Path) -> Table:
    kind = path.suffix.lower()
    check_there(path)
    if kind == ".npz":
        return _of_npz(path)
    if kind not in (".parquet", ".pq", ".csv", ".tsv"):
        raise ModelError(
            f"{path}: a table is .parquet, .pq, .csv, .tsv or .npz, not {kind or 'without suffix'}"
        )
    from pyarrow import csv, parquet

    with reading(path):
        if kind in (".parquet", ".pq"):
            return _of_arrow(str(path), parquet.read_table(path))
        # Text that stands for "no value" is one, in a column of text too.
        convert = csv.ConvertOptions(strings_can_be_null=True)
        parse = text_layout(path)
        return _of_arrow(str(path), csv.read_csv(path, parse_options=parse, convert_options=convert))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A file that is damaged or of another kind is a `ModelError` that names it, whatever its reader says."""
    import pyarrow

    format_errors = ValueError, EOFError, NotImplementedError, OSError, zipfile.BadZipFile, zlib.error
    try:
        yield
    except (ModelError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (pyarrow.ArrowException, *format_errors) as error:
        said = (str(error).splitlines() or ["it ends early"])[0]
        raise ModelError(f"{path} cannot be read as {path.suffix[1:].lower()}: {said}") from None


def check_there(path: Path) -> None:
    """Refuse a table that does not exist, with the nearest name."""
    if not path.exists():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        raise ModelError(f"there is no table {path}" + (f"; did you mean {near[0]!r}?" if near else ""))


def text_layout(path: Path) -> Any:
    """How Arrow is to part a CSV or TSV file, judged by its first line.

    Raises:
        ModelError: it is not UTF-8, or is separated by semicolons.
    """
    from pyarrow import csv

    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        header = codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not text in UTF-8: save it as such") from None
    delimiter, word = ("\t", "tabs") if path.suffix.lower() == ".tsv" else (",", "commas")
    if delimiter not in header and ";" in header:
        raise ModelError(f"{path} is separated by semicolons: save it with {word}, and with decimal points")
    return csv.ParseOptions(delimiter=delimiter)


def _of_frame(frame: Any) -> Table:
    import pyarrow

    try:
        if type(frame).__module__.startswith("pandas"):
            return _of_arrow("the frame", pyarrow.Table.from_pandas(frame, preserve_index=False))
        return _of_arrow("the frame", pyarrow.table(frame))
    except pyarrow.ArrowException as error:  # a column that mixes text and numbers
        raise ModelError(f"the frame cannot be read: {error}") from None


def _of_npz(path: Path) -> Table:
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return _of_arrays(str(path), {name: archive[name] for name in archive.files})


def _of_arrays(where: str, arrays: dict[str, np.ndarray]) -> Table:
    if not arrays:
        raise ModelError(f"{where} has no columns")
    lengths = {name: len(a) if a.ndim else None for name, a in arrays.items()}
    first = next(iter(lengths))
    for name, length in lengths.items():
        if length is None or length != lengths[first]:
            shape = arrays[name].shape
            raise ModelError(
                f"{where}: array {name!r} of shape {shape} does not have one row for each of {first!r}"
            )
    return _filled(Table(where, list(arrays), arrays.__getitem__))


def _of_arrow(where: str, frame: Any) -> Table:
    names = [str(n) for n in frame.column_names]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ModelError(f"{where} has several columns named {shown(twice)}")
    kept: dict[str, np.ndarray] = {}

    def read(name: str) -> np.ndarray:
        if name not in kept:
            kept[name] = _from_arrow(frame.column(names.index(name)))
        return kept[name]

    return _filled(Table(where, names, read))


def _from_arrow(column: Any) -> np.ndarray:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_decimal(kind):
        column = column.cast(pyarrow.float64())
    elif pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pyarrow.types.is_string_view(kind):
        column = column.cast(pyarrow.string())
    elif pyarrow.types.is_null(kind):
        return np.full(len(column), np.nan)
    return np.asarray(column.to_numpy())


def _filled(table: Table) -> Table:
    if not table.names or len(table) == 0:
        raise ModelError(f"{table.where} has no rows")
    return table


def shown(items: Any, most: int = 8) -> str:
    """Names or positions in a message, not more than a reader takes in."""
    listed = [str(i) if isinstance(i, np.integer) else repr(i) for i in items]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def _is_time(value: Any) -> bool:
    """Whether a value is a text that one would read as a date."""
    import pyarrow

    try:
        pyarrow.array([value], pyarrow.string()).cast(pyarrow.timestamp("ns"))
    except pyarrow.ArrowException:
        return False
    return True


def _reads_as_number(value: Any) -> bool:
    """Whether a value is a number, or a text that one would read as such."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
