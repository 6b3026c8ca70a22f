"""What a schema says about one quantity of a patient, and which 0/1 columns come of it.

Four kinds: ``codes`` (multi-hot), ``category`` (one-hot), ``flag`` (one column), ``number`` (public bins, one-hot). A
field knows nothing of files or rows; it names its columns and tells where a value belongs. Everything in it is public:
vocabularies, bounds and bin edges come from code tables and clinical convention, never from the patients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from synclave_shared.canonical import ExactDecimal, FrozenModel, decimal_text

__all__ = [
    "MISSING",
    "OTHER",
    "CategoryField",
    "Code",
    "CodePath",
    "CodePattern",
    "CodesField",
    "ColumnName",
    "FieldName",
    "FlagField",
    "NumberBin",
    "NumberField",
    "NumberReader",
    "SchemaField",
    "TableReader",
    "is_number",
    "normal_form",
    "rest_of",
    "title_of",
]

OTHER: Final = "other"
"""Column for values outside the vocabulary, where the field says ``outside = "other"``."""
MISSING: Final = "missing"
"""Column for patients without a value, where the field says ``missing = "own-category"``."""

FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Form = Literal["text", "number", "icd9"]
CodePattern = Text
"""Which codes of a table of events are meant: one code, or with a star at the end all that begin so."""

_NUMBER: Final = re.compile(r"[+-]?\d{1,400}(\.\d{0,400})?([eE][+-]?\d{1,3})?", re.ASCII)
_ICD9_DOTTED: Final = re.compile(r"(?:(\d{1,3})|V(\d{1,2})|E(\d{3}))(?:\.(\d{0,2}))?", re.ASCII)
_ICD9_PLAIN: Final = re.compile(r"\d{4,5}|V\d{3,4}|E\d{4}", re.ASCII)


def normal_form(text: str, form: Form) -> str | None:
    """The one spelling under which ``text`` is looked up, or None if it does not have that form.

    ``text`` leaves it as it is; ``number`` writes 1.0, 01 and 1 as ``1``; ``icd9`` drops the dot, writes letters in
    upper case and restores the zeros on the left that numeric storage loses (38 -> 038), as ICD-9-CM prints its codes.
    """
    if form == "text":
        return text
    if form == "number":
        return decimal_text(Decimal(text)) if is_number(text) else None
    upper = text.strip().upper()
    if _ICD9_PLAIN.fullmatch(upper):
        return upper
    parts = _ICD9_DOTTED.fullmatch(upper)
    if parts is None:
        return None
    digits, supplementary, external, decimals = parts.groups()
    if digits is not None:
        head = digits.zfill(3)
    else:
        head = f"V{supplementary.zfill(2)}" if supplementary is not None else f"E{external}"
    return head + (decimals or "")


def is_number(text: str) -> bool:
    """Whether ``text`` is a finite decimal number, written plainly (no blanks, no thousands separators)."""
    return _NUMBER.fullmatch(text) is not None


def rest_of(code: str, pattern: str) -> str | None:
    """What of ``code`` stands in place of the pattern's star (the whole code if there is none); None if it is another.

    Only a star at the end has that meaning, so that every code has one reading and can be written back.
    """
    if not pattern.endswith("*"):
        return code if code == pattern else None
    return code[len(pattern) - 1 :] if code.startswith(pattern[:-1]) else None


class Code(FrozenModel):
    """One entry of a public vocabulary.

    Attributes:
        code: the value as it is stored.
        title: what it means, for people; may be empty.
    """

    code: Text
    title: Annotated[str, Field(max_length=300)] = ""


class CodePath(FrozenModel):
    """Codes written as a path, of which the upper levels are kept (``a|b|c`` with two levels -> ``a|b``).

    Attributes:
        separator: text between the levels.
        levels: number of levels kept from the left.
    """

    separator: Text
    levels: Annotated[int, Field(ge=1, le=20)]


class TableReader(FrozenModel):
    """What every quantity that is read from a table has: a field, or a channel of a series.

    Attributes:
        name: its name; columns of a field are called ``name:value``.
        title: what it is, for people.
        table: the table it is read from.
        code: in a table of events, the events that it reads, see :func:`rest_of`; None for all rows. Where it reads
            the code column itself, it sees what stands in place of the star.
        missing_values: texts that mean "not recorded" in its columns, besides those of the table.
    """

    name: FieldName
    title: str = ""
    table: str
    code: CodePattern | None = None
    missing_values: tuple[str, ...] = ()


class _Vocabulary(TableReader):
    """Shared by ``codes`` and ``category``: from the text of a cell to the position of its column."""

    form: Form = "text"
    mapping: dict[str, str] = Field(default_factory=dict)
    vocabulary: Annotated[tuple[Code, ...], Field(min_length=1, max_length=20_000)]
    outside: Literal["fault", "other"]
    missing: Literal["none", "own-category", "fault"]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        codes = [entry.code for entry in self.vocabulary]
        if len(set(codes)) != len(codes):
            raise ValueError(f"field {self.name}: a code occurs twice in the vocabulary")
        made = [entry.code for entry in self.values()[len(codes) :]]
        if set(made) & set(codes):
            raise ValueError(f"field {self.name}: {' and '.join(made)} are columns of their own and cannot be codes")
        strangers = sorted(set(self.mapping.values()) - set(codes))
        if strangers:
            raise ValueError(
                f"field {self.name}: the mapping leads to {strangers[0]!r}, which is not in the vocabulary"
            )
        return self

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {entry.code: position for position, entry in enumerate(self.vocabulary)}

    @property
    def other_position(self) -> int | None:
        """Position of the column for values outside the vocabulary, None if those are faults."""
        return len(self.vocabulary) if self.outside == "other" else None

    def position(self, text: str) -> int | None:
        """Position of the column for one code; None if it is outside the mapping or the vocabulary."""
        normal = normal_form(text, self.form)
        if normal is not None and self.mapping:
            normal = self.mapping.get(normal)
        return None if normal is None else self._positions.get(normal)

    def values(self) -> tuple[Code, ...]:
        """The columns of this field."""
        extra = (Code(code=OTHER, title="outside the vocabulary"),) if self.outside == "other" else ()
        if self.missing == "own-category":
            extra = (*extra, Code(code=MISSING, title="not recorded"))
        return (*self.vocabulary, *extra)


class CodesField(_Vocabulary):
    """Which codes occur in any of a patient's rows, one 0/1 column for each.

    Attributes:
        columns: columns whose cells hold codes.
        split: text between several codes in one cell, if a cell may hold several. Blanks around a code are removed.
        form: how a code is brought to one spelling, see :func:`normal_form`.
        path: keeps the upper levels of codes that are paths.
        ignore: patterns (regular expressions on the whole code) of codes that are left out on purpose; the report
            counts them.
        mapping: public roll-up, code -> code of the vocabulary. With a mapping, codes not in it are outside.
        vocabulary: the codes that have a column, in order.
        outside: what a code outside is: a ``fault``, or a one in the column ``other``.
        missing: an empty cell is nothing (``none``) or a ``fault``; with ``own-category`` patients without any code
            have a column ``missing``.
    """

    kind: Literal["codes"]
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1)]
    split: Text | None = None
    path: CodePath | None = None
    ignore: tuple[str, ...] = ()
    missing: Literal["none", "own-category", "fault"]

    @model_validator(mode="after")
    def _patterns(self) -> Self:
        for pattern in self.ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"field {self.name}: ignore pattern {pattern!r}: {error}") from None
        return self

    @cached_property
    def _ignored(self) -> re.Pattern[str] | None:
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.ignore)) if self.ignore else None

    def codes_of(self, cell: str) -> list[str]:
        """The codes written in one cell, before any look-up; empty pieces between separators are no codes."""
        pieces = [piece.strip() for piece in cell.split(self.split)] if self.split else [cell]
        return [piece for piece in pieces if piece]

    def is_ignored(self, code: str) -> bool:
        """Whether the schema leaves this code out on purpose."""
        return self._ignored is not None and self._ignored.fullmatch(code) is not None

    def position(self, text: str) -> int | None:
        """Position of the column for one code; None if it is outside the mapping or the vocabulary."""
        if self.path is not None:
            text = self.path.separator.join(text.split(self.path.separator)[: self.path.levels])
        return super().position(text)


class CategoryField(_Vocabulary):
    """Exactly one of several values per patient.

    Attributes:
        column: where the value stands.
        mapping: stored text -> value. With a mapping, texts not in it are outside.
        vocabulary: the values, in order.
        combine: which of a patient's rows counts: the ``first`` or ``last`` by the table's order column, or the
            ``highest``: the value that stands last in the vocabulary (``other`` after all of them). Rows without a
            value are passed over.
        outside: a ``fault``, or the value ``other``.
        missing: for patients without any value: the value ``missing`` (``own-category``) or a ``fault`` for each
            empty cell.
    """

    kind: Literal["category"]
    column: ColumnName
    combine: Literal["first", "last", "highest"]
    missing: Literal["own-category", "fault"]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns read from the table."""
        return (self.column,)


class FlagField(TableReader):
    """Yes or no, one 0/1 column.

    Attributes:
        column: where the value stands.
        true, false: the texts that mean yes and no; any other text is a fault.
        combine: yes in ``any`` row, or in the ``first`` or ``last`` row that says something.
        missing: an empty cell says nothing (``none``; a patient of whom no row says anything is a no) or a ``fault``.
    """

    kind: Literal["flag"]
    column: ColumnName
    true: Annotated[tuple[Text, ...], Field(min_length=1)]
    false: tuple[Text, ...]
    combine: Literal["any", "first", "last"]
    missing: Literal["none", "fault"]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if set(self.true) & set(self.false):
            raise ValueError(f"field {self.name}: a text means both yes and no")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns read from the table."""
        return (self.column,)

    def position(self, text: str) -> int | None:
        """1 for yes, 0 for no, None for anything else."""
        return 1 if text in self.true else 0 if text in self.false else None

    def values(self) -> tuple[Code, ...]:
        """The columns of this field."""
        return (Code(code="yes", title=self.title),)


class NumberBin(FrozenModel):
    """One public interval of a number.

    Attributes:
        low: smallest value of the bin.
        high: largest value of the last bin and of bins of integers; for decimals the first value above the bin.
        text: the bin's name.
        middle: the value that stands for the bin when a table is written.
    """

    low: ExactDecimal
    high: ExactDecimal
    text: str
    middle: ExactDecimal


class NumberReader(TableReader):
    """A number that is read from one column.

    Attributes:
        column: where the number stands.
        unit: its unit, for people.
        minimum, maximum: public bounds, both allowed values, in ``unit``.
        mapping: texts that stand for a number, such as ``"> 89"`` for 90.
    """

    column: ColumnName
    unit: str
    minimum: ExactDecimal
    maximum: ExactDecimal
    mapping: dict[str, ExactDecimal] = Field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns read from the table."""
        return (self.column,)

    @property
    def inside(self) -> str:
        """The bounds in words."""
        return f"{self.minimum} to {self.maximum} {self.unit}".strip()

    def number(self, text: str) -> float | None:
        """The number that ``text`` means; None if it is none, or not a finite one."""
        if text in self.mapping:
            return float(self.mapping[text])
        value = float(text) if is_number(text) else float("nan")
        return value if isfinite(value) else None


class NumberField(NumberReader):
    """A number in public bins, one-hot.

    Attributes:
        edges: inner bin borders in ``unit``, increasing; a value equal to an edge belongs to the upper bin.
        integer: whether only whole numbers are values.
        combine: over a patient's rows: ``first`` or ``last`` by the order column, ``min``, ``max``, ``sum``, or
            ``count`` (of rows with something in the column).
        outside: a value out of bounds is a ``fault``, or moved to the nearest bound (``clip``, counted in the report).
            With ``sum`` and ``count`` the bounds hold for the patient's total, otherwise for every row.
        missing: ``own-category`` or ``fault``.
    """

    kind: Literal["number"]
    edges: tuple[ExactDecimal, ...] = ()
    integer: bool
    combine: Literal["first", "last", "min", "max", "sum", "count"]
    outside: Literal["fault", "clip"]
    missing: Literal["own-category", "fault"]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        borders = [self.minimum, *self.edges, self.maximum]
        inner = [float(border) for border in borders]
        rising = all(low < high for low, high in pairwise(inner[:-1])) and inner[-2] <= inner[-1]
        if not rising or (not self.edges and self.minimum >= self.maximum):
            raise ValueError(f"field {self.name}: minimum < edges (increasing) <= maximum is needed")
        if self.integer and any(border != border.to_integral_value() for border in borders):
            raise ValueError(f"field {self.name}: bounds and edges of a whole number must be whole")
        if abs(self.minimum) > 2**53 or abs(self.maximum) > 2**53:
            raise ValueError(f"field {self.name}: bounds beyond 2^53 cannot be told apart exactly")
        return self

    @cached_property
    def bins(self) -> tuple[NumberBin, ...]:
        """The bins from low to high."""
        lows = [self.minimum, *self.edges]
        bins = []
        for low, following in zip(lows, [*self.edges, None], strict=True):
            last = following is None
            high = self.maximum if following is None else following - 1 if self.integer else following
            if self.integer:
                middle = Decimal((int(low) + int(high)) // 2)
                text = decimal_text(low) if low == high else f"{decimal_text(low)}..{decimal_text(high)}"
            else:
                middle = _short_middle(low, high)
                text = f"[{decimal_text(low)},{decimal_text(high)}{']' if last else ')'}"
            bins.append(NumberBin(low=low, high=high, text=text, middle=middle))
        return tuple(bins)

    def values(self) -> tuple[Code, ...]:
        """The columns of this field."""
        bins = tuple(Code(code=entry.text, title=f"{entry.text} {self.unit}".strip()) for entry in self.bins)
        return (*bins, Code(code=MISSING, title="not recorded")) if self.missing == "own-category" else bins

    def number(self, text: str) -> float | None:
        """The number that ``text`` means; None if it is none, or not a whole number where one is needed."""
        value = super().number(text)
        whole = value is None or not self.integer or value.is_integer() or text in self.mapping
        return value if whole else None


def _short_middle(low: Decimal, high: Decimal) -> Decimal:
    """The middle of a bin of decimals with as few digits as keep it inside [low, high)."""
    middle = (low + high) / 2
    for places in range(0, 28):
        short = middle.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
        if low <= short < high and float(low) <= float(short) < float(high):
            return short
    return low


SchemaField = Annotated[CodesField | CategoryField | FlagField | NumberField, Field(discriminator="kind")]


def title_of(values: tuple[Code, ...]) -> Mapping[str, str]:
    """Code -> what it means, falling back to the code itself."""
    return {entry.code: entry.title or entry.code for entry in values}
