"""YAML or JSON text → plain data and the line of every field, with each fault of the text itself as a Problem.

Numbers, booleans and null follow the YAML 1.2 core schema (so ``30e-9`` is a number, as in JSON, and ``yes`` is text);
digits may be grouped with underscores.  Merge keys, tags and dates are not part of the formats.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from accelsim.problems import AccelsimError, Problem

MAX_FILE_BYTES = 1 << 22
MAX_VALUES = 20_000
MAX_DEPTH = 16
MAX_NUMBER_CHARACTERS = 64
MAX_PROBLEMS = 50

# Stands for a value whose fault has been reported already, so that nobody reports it twice.
FAULTY: Any = object()

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_LIMITS = f"nested deeper than {MAX_DEPTH} levels or longer than {MAX_VALUES:,} values"
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TAG = "tag:yaml.org,2002:"
_RESOLVERS = (
    ("null", _NULL, "~nN\0"),
    ("bool", _BOOL, "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes with the resolvers of this module instead of YAML 1.1's."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)
    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Stop at text that is far deeper or longer than any real file, before it costs time."""
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=_LIMITS, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what `_Loader` would not read back as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent list items below their field, as the presets do."""
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Outside double quotes PyYAML would fold Unicode line breaks into blanks.
    return dumper.represent_scalar(
        _TAG + "str", text, style='"' if len(text.splitlines()) > 1 or text[-1:].isspace() else None
    )


_Dumper.add_representer(str, _represent_text)
for _name, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        # PyYAML looks resolvers up by first character; the empty text has the key "".
        _class.add_implicit_resolver(_TAG + _name, _pattern, [c.replace("\0", "") for c in _first])


@dataclass
class Source:
    """Where data came from: the name of the place, the line of every field path, and the faults found so far.

    `lines` is empty for data that never was text.  `partial` keeps, for every mapping that was read, the fields that
    are without fault, so that checks across fields also run when some other field is wrong.
    """

    where: str
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[int, Problem]] = field(default_factory=list)
    partial: dict[str, dict[str, Any]] = field(default_factory=dict)

    def line(self, path: str) -> int:
        """Line of a field path, or of the nearest field around it; 0 when the data has no lines."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1 if self.lines else 0)

    def fault(
        self, path: str, what: str, expected: str = "", levers: tuple[str, ...] = (), line: int | None = None
    ) -> None:
        """Record one fault of the field at `path`; `line` overrides the known line of the path."""
        line = self.line(path) if line is None else line
        place = self.where + (f":{line}" if line else "") + (f": {path}" if path else "")
        self.faults.append((line, Problem(place, what, expected, levers)))

    def problems(self) -> list[Problem]:
        """Every fault in the order of the lines, at most `MAX_PROBLEMS` and a line that says how many are left out."""
        found = [problem for _, problem in sorted(self.faults, key=lambda fault: fault[0])]
        rest = len(found) - MAX_PROBLEMS
        if rest > 0:
            found = [*found[:MAX_PROBLEMS], Problem(found[-1].where, f"this and {rest - 1} more faults are not shown")]
        return found


@lru_cache(maxsize=8192, typed=True)
def child(path: str, key: Any) -> str:
    """Field path of `key` inside `path`; a list index gives ``path[3]``, a strange key is quoted."""
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}[{key}]"
    name = key if isinstance(key, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,60}", key) else ascii(key)[:60]
    return f"{path}.{name}" if path else name


def read_source(path: Path) -> tuple[Any, Source]:
    """Data of a YAML or JSON file and its Source.

    Raises AccelsimError when nothing can be read: no such file, too large, not UTF-8, no YAML, nested without end.
    Duplicate keys and unsupported tags are recorded in the Source; the first of duplicate keys counts.
    """
    text = _read_text(path)
    source = Source(str(path), {"": 1})
    node = _compose(text, path)
    if node is None:
        source.fault("", "the file is empty", "a mapping that starts with a `format:` field")
        return FAULTY, source
    source.lines[""] = node.start_mark.line + 1
    return _Reader(source).value(node, "", 0), source


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text of plain data, fields in their order, that `read_source` reads back to equal data."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AccelsimError(Problem(str(path), f"cannot be read: {reason}", "a YAML or JSON file")) from error
    if len(raw) > MAX_FILE_BYTES:
        raise AccelsimError(Problem(f"{path}:1", f"larger than {MAX_FILE_BYTES:,} bytes", "a YAML or JSON file"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"not a text file: byte 0x{raw[error.start]:02x} is not UTF-8"
        raise AccelsimError(Problem(f"{path}:{line}", what, "YAML or JSON in UTF-8")) from error
    # JSON may be indented with tabs, YAML may not; JSON has no literal tab inside a string, so a blank says the same.
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not a text file: character {error.character!r} is not allowed in YAML"
        raise AccelsimError(Problem(f"{path}:{line}", what, "YAML or JSON in UTF-8")) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "not valid YAML: " + ", ".join(part for part in (error.context, error.problem) if part)
        levers = ("spaces instead of tabs",) if "'\\t'" in what else ()
        raise AccelsimError(Problem(f"{path}:{mark.line + 1 if mark else 1}", what, "", levers)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise AccelsimError(Problem(f"{path}:1", f"not valid YAML: {error}")) from error


class _Reader:
    """One pass over composed nodes: plain data out, lines and faults into the source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        """Data of a node and everything below it."""
        self.values += 1
        line = node.start_mark.line + 1
        # Aliases can make a short text endless.
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise AccelsimError(Problem(f"{self.source.where}:{line}", f"an alias makes the data {_LIMITS}"))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                self.source.lines[child(path, index)] = item.start_mark.line + 1
            return [self.value(item, child(path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        return self._faulty(path, f"the tag {node.tag!a} is not supported", line)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._faulty(path, "a list or mapping is used as a field name", line)
                continue
            key = key_node.value
            field_path = child(path, key)
            if key in data:
                first = self.source.lines[field_path]
                self._faulty(field_path, f"the field is given twice, first on line {first}", line)
                continue
            self.source.lines[field_path] = line
            data[key] = self.value(value_node, field_path, depth + 1)
        return data

    def _scalar(self, node: yaml.ScalarNode, path: str, line: int) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str" or node.tag == "!":
            try:
                # JSON escapes characters beyond the first plane as surrogate pairs; YAML leaves the halves apart.
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                return self._faulty(path, "the text holds half of a surrogate pair", line)
        if len(text) > MAX_NUMBER_CHARACTERS:
            return self._faulty(path, f"a number of {len(text):,} digits", line)
        digits = text.replace("_", "")
        if kind == "null" and _NULL.match(text):
            return None
        if kind == "bool" and _BOOL.match(text):
            return text.lower() == "true"
        if kind == "int" and _INT.match(text):
            return int(digits)
        if kind in ("int", "float") and _FLOAT.match(text):
            return _float(digits)
        return self._faulty(path, f"the tag {node.tag!a} is not supported for {text[:40]!a}", line)

    def _faulty(self, path: str, what: str, line: int) -> Any:
        self.source.fault(path, what, line=line)
        return FAULTY


def _float(text: str) -> float:
    if text.lower().endswith("inf"):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text.lower().endswith("nan") else float(text)
