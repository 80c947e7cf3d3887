"""Reading a study file, or a claims file: YAML, overrides from the command line, and what a mistake in it says.

A mistake becomes one line, ``file: field: what was found; what was expected``, whoever notices it: YAML or pydantic.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from litsexp.spec.claim import Claim
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.spec.table_claims import TableClaims
from litsexp.spec.tables import nearest, one_of

EXPECTED = {  # by pydantic's error type, the context filled in; any other type keeps pydantic's words
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "literal_error": "{expected}",
    "string_type": "text",
    "string_too_short": "some text",
    "tuple_type": "a list",
    "too_short": "at least one",
}


def load_study(
    file: Path | str, overrides: Sequence[str] = (), data: Path | None = None, external: Path | None = None
) -> StudyConfig:
    """Read a study file, apply ``key.key=value`` overrides, point it at folders; LitsexpError in one line.

    ``data`` replaces the file's cohort and leaves out its external one if that is a phantom: models of real patients
    are not scored on it. ``external`` replaces the external cohort.
    """
    path = Path(file)
    content = _mapping(path, "a study file", "question, run, factors")
    for override in overrides:
        _apply(content, override)
    if data is not None:
        _set(content, ["data", "cohort"], str(data))
        section = content.get("external")
        if isinstance(section, dict) and section.get("cohort", "phantom") == "phantom":
            del content["external"]
    if external is not None:
        content["external"] = {"cohort": str(external)}
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise LitsexpError(f"{path}: {first_problem(error, content)}") from None


def load_claims(file: Path | str) -> TableClaims:
    """Read a claims file; LitsexpError in one line."""
    path = Path(file)
    return as_claims(_mapping(path, "a claims file", "claims, metrics, arms"), str(path))


def as_claims(content: Mapping[str, Any], name: str = "claims") -> TableClaims:
    """A claims file's content as typed data; LitsexpError in one line that opens with ``name``."""
    try:
        return TableClaims.model_validate(content)
    except ValidationError as error:
        raise LitsexpError(f"{name}: {first_problem(error, content, TableClaims)}") from None


def _mapping(path: Path, what: str, keys: str) -> dict[str, Any]:
    """The content of a YAML file that has keys; LitsexpError in one line where it cannot be had."""
    try:
        content = _yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror}); expected {what} (YAML)") from None
    except (yaml.YAMLError, ValueError) as error:
        raise LitsexpError(f"{path}: not valid YAML: {_yaml_problem(error)}") from None
    if not isinstance(content, dict):
        found = "the file is empty" if content is None else f"found a {type(content).__name__} at the top level"
        raise LitsexpError(f"{path}: {found}; expected keys such as {keys}")
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; a study file should not."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As composed, before ``<<`` merges the keys of another mapping, which may be overridden."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                problem = f"key {key.value!r} stands twice; expected it once"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _yaml(text: str) -> Any:
    loader = _UniqueKeyLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _yaml_problem(error: Exception) -> str:
    """What is wrong and in which line, without the excerpt of several lines that YAML's own message shows."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(f"line {mark.line + 1}: {problem}".split() if mark else problem.split())


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key of the raw study: ``run.epochs=3``, ``seeds=[0,1]``."""
    key, equals, text = override.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise LitsexpError(f"--set {override}: expected KEY=VALUE, for example --set run.epochs=3")
    try:
        value = _yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise LitsexpError(f"--set {override}: the value is not valid YAML: {_yaml_problem(error)}") from None
    if blocked := _set(content, keys, value):
        raise LitsexpError(f"--set {override}: found a value at {blocked!r}; expected a section with keys of its own")


def _set(content: dict[str, Any], keys: Sequence[str], value: object) -> str | None:
    """Set a nested key, making the sections on the way; the name of one that is a value already, else None."""
    *parents, last = keys
    for parent in parents:
        section = content.get(parent)
        if section is not None and not isinstance(section, dict):
            return parent
        content[parent] = dict(section or {})  # a copy: YAML's aliases share one mapping
        content = content[parent]
    content[last] = value
    return None


def first_problem(error: ValidationError, content: object, root: type[BaseModel] = StudyConfig) -> str:
    """The first of pydantic's complaints as one line: field, what was found, what was expected.

    ``root`` is the model of the whole file.
    """
    problems = error.errors()
    first = problems[0]
    *section, last = first["loc"] or ("",)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        known, _ = _place(_path(section, content), root)
        return f"{_dotted([*_path(section, content), last])}: unknown key; {_unknown(str(last), known.model_fields)}"
    if first["type"] == "missing" and isinstance(last, str):
        return f"{_dotted([*_path(section, content), last])}: missing; expected a value"
    path = _path(first["loc"], content)
    if first["type"] == "value_error":
        return ": ".join(part for part in (_dotted(path), first["msg"].removeprefix("Value error, ")) if part)
    alternatives = [problem for problem in problems if _path(problem["loc"], content) == path]
    expected = _either(_expected(problem, path, root) for problem in alternatives)
    found = "nothing" if first["input"] is None else repr(first["input"])
    return f"{_dotted(path)}: found {found}; expected {expected}"


def _expected(problem: ErrorDetails, path: Sequence[object], root: type[BaseModel]) -> str:
    model, field = _place(path, root)
    kind, value = problem["type"], problem["input"]
    if field is not None and field.description:
        return field.description
    if kind in ("model_type", "dict_type"):
        return f"keys such as {', '.join(list(model.model_fields)[:2])}"
    if kind == "tuple_type" and not issubclass(model, Claim) and isinstance(value, str | int | float):
        return f"a list, for example [{value}]"
    return EXPECTED.get(kind, problem["msg"].removeprefix("Input should be ")).format(**problem.get("ctx", {}))


def _path(loc: Iterable[int | str], content: Any) -> list[int | str]:
    """The part of an error's location that is a place in the file; pydantic names branches of its schema in between."""
    path = []
    for part in loc:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return path


def _place(path: Iterable[object], root: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The section that a path through the file leads to, and the field in which it ends."""
    model, field = root, None
    for part in path:
        field = model.model_fields.get(str(part), field)
        if field is None:
            break
        inside = (
            (RunConfig,)
            if part in ("factors", "where", "grows", "arms")
            else (field.annotation, *get_args(field.annotation))
        )
        model = next((c for c in inside if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model, field


def _dotted(path: Iterable[object]) -> str:
    return ".".join(str(part) for part in path)


def _either(words: Iterable[str]) -> str:
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def _unknown(word: str, known: Iterable[str]) -> str:
    return nearest(word, known).removeprefix("; ") or f"expected {one_of(known)}"
