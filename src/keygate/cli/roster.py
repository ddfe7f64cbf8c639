"""Who gets a key in a bulk order: a CSV, read strictly. What does not fit its header, or can be read in two ways, is refused by its line:
a limit that was guessed is one that nobody set.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keygate.errors import InvalidInput
from keygate.kit.money import parse_usd

MAX_LINES = 5_000  # of one order
COLUMNS = ("developer", "name", "budget", "rpm", "tpm", "models", "expires")
_MAX_DAYS = 3_650  # this and the following: as the API has them
_MAX_COUNT = 2**53
_MAX_MODELS = 200
_MAX_WORD = 200
_MAX_EMAIL = 320
_COUNTS = {"rpm": "rate_limit_rpm", "tpm": "rate_limit_tpm"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_HOW_TO_SAVE = 'save it as UTF-8 (Excel: "CSV UTF-8")'


class NotARoster(ValueError):
    """What is wrong with the file; `mistakes` has a sentence for each, with its line."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Line:
    number: int  # of the file, where the row begins
    developer: str  # as written: id, e-mail address or name
    body: dict[str, Any]  # its terms, as the API takes them


def people(data: bytes) -> list[Line]:
    """The rows of a CSV; empty where it has none below its header. Raises `NotARoster`."""
    rows = _rows(_text(data))
    number, header = next(rows, (1, []))
    columns = _columns(number, header)
    lines: list[Line] = []
    mistakes: list[str] = []
    for count, (number, cells) in enumerate(rows, 1):
        if count > MAX_LINES:
            raise NotARoster(f"more than {MAX_LINES} lines")
        try:
            lines.append(_line(number, _named(columns, cells)))
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        raise NotARoster(*mistakes)
    return lines


def in_days(text: str) -> int:
    """`90d`, `12w`, `90`."""
    found = re.fullmatch(r"([0-9]{1,5})([dw]?)", text)
    if found is None:
        raise ValueError("write a number of days or weeks, such as 90d or 12w")
    return int(found[1]) * (7 if found[2] == "w" else 1)


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise NotARoster(f"this is UTF-16, or no text at all; {_HOW_TO_SAVE}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = len((error.object[: error.start] + b".").splitlines())
        raise NotARoster(f"line {number}: this is not UTF-8; {_HOW_TO_SAVE}") from None


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row and the line that it begins on. Those in which nothing stands are left out, as spreadsheets write them at the end."""
    reader = csv.reader(io.StringIO(text, newline=None), strict=True, skipinitialspace=True)
    begins = 1
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise NotARoster(f"line {begins}: this can't be read as CSV: {error}") from None
        if any(cells):
            yield begins, cells
        begins = reader.line_num + 1


def _columns(number: int, header: Sequence[str]) -> list[str]:
    names = [name.lower() for name in header]
    known = f"columns are developer, and any of {', '.join(COLUMNS[1:])}"
    if not names:
        raise NotARoster(f"the file is empty; its first line names the columns: {known}")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise NotARoster(f"line {number}: columns are separated by commas here, not by semicolons or tabs")
    for position, name in enumerate(names, 1):
        if not name:
            raise NotARoster(f"line {number}: column {position} has no name; {known}")
        if name not in COLUMNS:
            raise NotARoster(f"line {number}: there is no column {name[:40]!r}; {known}")
        if names.count(name) > 1:
            raise NotARoster(f"line {number}: the column {name} stands there twice")
    if "developer" not in names:
        raise NotARoster(f"line {number}: no column is called developer; {known}")
    return names


def _named(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        hint = "put quotes around a cell that holds a comma" if len(cells) > len(columns) else "a cell may be empty, its comma stays"
        raise ValueError(f"{len(cells)} cells, and the header has {len(columns)}; {hint}")
    return dict(zip(columns, cells, strict=True))


def _line(number: int, row: Mapping[str, str]) -> Line:
    developer = row["developer"]
    if not developer:
        raise ValueError("no developer")
    if len(developer) > _MAX_EMAIL or _CONTROLS.search(developer):
        raise ValueError("developer: write an id, an e-mail address or a name")
    if developer.startswith("dev_") and not re.fullmatch(r"[A-Za-z0-9_]{1,40}", developer):
        raise ValueError("developer: this is no id")
    body: dict[str, Any] = {}
    for column, text in row.items():
        if text and column != "developer":
            try:
                body |= _term(column, text)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
    return Line(number, developer, body)


def _term(column: str, text: str) -> dict[str, Any]:
    match column:
        case "budget":
            return {"budget_usd": _dollars(text)}
        case "rpm" | "tpm":
            return {_COUNTS[column]: _count(text)}
        case "models":
            return {"models": _models(text)}
        case "expires":
            return {"expires_in_days": _lifetime(text)}
    if len(text) > _MAX_WORD or _CONTROLS.search(text):
        raise ValueError(f"write one line of at most {_MAX_WORD} characters")
    return {"name": text}


def _dollars(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise ValueError("write dollars such as 1000.00, without a sign and without a comma")
    try:
        parse_usd(text, field="budget")
    except InvalidInput as error:
        raise ValueError(error.detail.removeprefix("budget: ")) from None
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text) or not 1 <= int(text) <= _MAX_COUNT:
        raise ValueError("write a whole number, 1 or more")
    return int(text)


def _models(text: str) -> list[str]:
    """Separated by spaces or, in a cell with quotes around it, by commas."""
    models = [model for model in re.split(r"[\s,;]+", text) if model]
    if not 1 <= len(models) <= _MAX_MODELS or not all(len(model) <= _MAX_WORD and re.fullmatch(r"[!-~]+", model) for model in models):
        raise ValueError("write the vendor's model ids, with a space between two")
    return models


def _lifetime(text: str) -> int:
    days = in_days(text)
    if not 1 <= days <= _MAX_DAYS:
        raise ValueError(f"write 1 to {_MAX_DAYS} days")
    return days
