"""Lists of pictures: CSV files, and the metadata.csv and metadata.jsonl of the Hugging Face Hub."""

import codecs
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterator

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_regular
from gsdd_jax.data import parts
from gsdd_jax.data.items import Found, Item, Labels, plain, some

_PATHS = ("path", "file_name")  # a column for each; the second is the Hub's
_LABEL, _PART = "label", "split"
_DELIMITERS = ",;\t"
_LIMIT = 1 << 30  # bytes per file
METADATA = ("metadata.csv", "metadata.jsonl")  # in the folder of the pictures

Rows = Iterator[tuple[str, dict[str, str]]]  # location and columns per row


def read(path: pathlib.Path) -> Found:
    """Returns the pictures of a .csv, .tsv or .jsonl file; paths are relative to it.

    Columns are `path` (or `file_name`), `label` and optionally `split`: train, test or validation.
    Validation is the test split if there is no other. Raises UsageError, naming the line, for
    anything else.
    """
    columns, rows = (_jsonl if path.suffix.lower() == ".jsonl" else _csv)(path)
    file_column = next((name for name in _PATHS if name in columns), None)
    if file_column is None or _LABEL not in columns:
        raise UsageError(
            "expected columns path (or file_name) and label by name in the first line, got "
            f"{','.join(columns) or 'nothing'}"
        )
    labels, lines, by_part = Labels(), {}, {}
    for where, row in rows:
        if not row.get(file_column) or not row.get(_LABEL):
            raise UsageError(f"{where}: expected a path and a label")
        file, name = _file(path.parent, row[file_column])
        if (same := os.path.normpath(file)) in lines:
            raise UsageError(f"{where}: {name} is in {lines[same]} already")
        lines[same] = where
        part = parts.of(row[_PART] or "") if _PART in columns else parts.TRAIN
        if part is None:
            raise UsageError(
                f"{where}: split: expected train, validation or test, got {row[_PART]!r}"
            )
        item = Item(plain(name), labels.name(row[_LABEL], where), file)
        by_part.setdefault(part, []).append(item)
    return _divided(by_part, labels.notes() + _unused(columns, file_column))


def has_pictures(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the metadata file of a folder without class folders, if it has names and labels."""
    for path in (folder / name for name in METADATA):
        if path.is_file():
            try:
                columns, _ = (_jsonl if path.suffix == ".jsonl" else _csv)(path)
            except UsageError:  # a file of another kind
                continue
            if "file_name" in columns and _LABEL in columns:
                return path
    return None


def _divided(by_part: dict[str, list[Item]], notes: list[str]) -> Found:
    chosen = parts.choose(list(by_part))
    if chosen is None and by_part:
        raise UsageError(f"split: expected train among its values, got {some(list(by_part))}")
    found = {part: sorted(items, key=lambda item: item.name) for part, items in by_part.items()}
    if chosen is None:
        return Found([], [], notes)
    if len(found) > 1:
        rest = [f"{part} ({len(found[part])})" for part in chosen.left_out]
        left_out = f"; left out: {', '.join(rest)}" if rest else ""
        test = f"{chosen.test} for testing" if chosen.test else "none for testing"
        notes = [f"column split: {chosen.train} is for training, {test}{left_out}", *notes]
    return Found(found[chosen.train], found.get(chosen.test, []), notes)


def _unused(columns: list[str], file_column: str) -> list[str]:
    rest = [name for name in columns if name and name not in (file_column, _LABEL, _PART)]
    return [f"columns that were not used: {some(rest)}"] if rest else []


def _file(folder: pathlib.Path, written: str) -> tuple[pathlib.Path, str]:
    """Returns a picture's file and its name, independent of the system that wrote its path."""
    if "\\" in written and not os.path.exists(folder / written):
        written = written.replace("\\", "/")
    name = pathlib.PurePath(written).as_posix()
    return folder / name, name


def _csv(path: pathlib.Path) -> tuple[list[str], Rows]:
    """Returns lower-case column names and the rows, by the first delimiter that yields them."""
    text, found = _text(path), []
    for delimiter in _DELIMITERS:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True
        )
        try:
            columns = [name.strip().lower() for name in next(reader, [])]
        except csv.Error as error:
            raise _no_csv(error) from None
        if _LABEL in columns and any(name in columns for name in _PATHS):
            return columns, _rows(reader, columns)
        found.append(columns)
    return max(found, key=len), iter(())


def _rows(reader, columns: list[str]) -> Rows:
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                cells += [""] * (len(columns) - len(cells))
                yield f"line {reader.line_num}", dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise _no_csv(error) from None


def _jsonl(path: pathlib.Path) -> tuple[list[str], Rows]:
    """Returns the fields of all lines, and the rows as text."""
    rows, columns = [], {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number}: expected a JSON object ({error})") from None
        if not isinstance(value, dict):
            raise UsageError(f"line {number}: expected a JSON object, got {type(value).__name__}")
        for name in (*_PATHS, _LABEL, _PART):
            if isinstance(value.get(name), bool | list | dict):
                raise UsageError(f"line {number}: {name}: expected text or a number")
        columns |= dict.fromkeys(value)
        texts = {name: "" if v is None else str(v).strip() for name, v in value.items()}
        rows.append((f"line {number}", texts))
    return list(columns), ((where, dict.fromkeys(columns, "") | row) for where, row in rows)


def _text(path: pathlib.Path) -> str:
    content = read_regular(path, "a list of pictures", _LIMIT)
    try:
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_csv(error) from None


def _no_csv(error: Exception) -> UsageError:
    return UsageError(f"expected text saved as UTF-8, or as UTF-16 with its mark ({error})")
