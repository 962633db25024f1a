"""Configuration: TOML or JSON mappings to frozen dataclasses and back, strictly."""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from wenlu.base.errors import UserError, did_you_mean

T = TypeVar("T")


def read_toml(path: Path | str) -> dict[str, Any]:
    """The mapping in a TOML file."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}: give the path of a TOML file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str = "", default: T | None = None) -> T:
    """Build the frozen dataclass `cls` from a mapping; nested dataclasses from nested mappings.

    Keys that are absent keep the values of `default` (or the class's own). An unknown key, or a value of another
    type than the field's, is a `UserError` that names the place (`where`) and the nearest known key.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for key, value in mapping.items():
        place = f"{where}.{key}" if where else key
        if key not in names:
            raise UserError(
                f"unknown setting {place!r}.{did_you_mean(key, names) or ' Known here: ' + ', '.join(names)}"
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UserError(f"{place} is a section: write it as [{place}] with keys below it, not {value!r}")
            values[key] = from_dict(hints[key], value, place, default and getattr(default, key))
        else:
            values[key] = _coerce(value, hints[key], place)
    return dataclasses.replace(default, **values) if default is not None else cls(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """The JSON form of a dataclass, read back by `from_dict`: tuples as lists, without the fields that are None."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            result[field.name] = to_dict(value)
        elif value is not None:
            result[field.name] = _listed(value)
    return result


def _listed(value: Any) -> Any:
    """A tuple as a list, and dataclasses in it as their own JSON form."""
    if not isinstance(value, tuple):
        return value
    return [to_dict(item) if dataclasses.is_dataclass(item) else item for item in value]


def to_toml(config: Any) -> str:
    """The TOML form of a dataclass whose own fields are dataclasses, one section each; read back by `from_dict`.

    Fields that are None are left out, as in `to_dict`; TOML has no word for them.
    """
    sections = []
    for name, values in to_dict(config).items():
        assert isinstance(values, dict), f"{name} is no section"
        lines = [f"{key} = {_toml_value(value, f'{name}.{key}')}" for key, value in values.items()]
        sections.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(sections)


def _toml_value(value: Any, place: str) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_value(item, f'{place}.{key}')}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item, place) for item in value) + "]"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place} holds what no text file can: {value!r}; rename it") from None
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    assert isinstance(value, bool | int | float), f"{place} has no form in TOML: {value!r}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _coerce(value: Any, hint: Any, place: str) -> Any:
    """`value` as the type `hint`; the only conversions are int → float and list → tuple."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            options = [str(a) for a in args]
            near = did_you_mean(str(value), options)
            raise UserError(f"{place} must be one of {', '.join(options)}, not {value!r}.{near}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(a for a in args if a is not type(None)), place)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{place} must be a list, not {value!r}")
        return tuple(
            _coerce(item, args[0], f"{place}[{n}]" if dataclasses.is_dataclass(args[0]) else place)
            for n, item in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{place} must be a table of settings, not {value!r}")
        return from_dict(hint, value, place)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{place} must be a table, not {value!r}")
        return {key: _coerce(item, args[1], f"{place}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        hint_text = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
        raise UserError(f"{place} must be {hint_text.get(hint, hint.__name__)}, not {value!r}")
    return value


def at_least(section: str, config: Any, least: float, *names: str) -> None:
    """Raise `UserError` where one of these fields is less than `least`, not finite or not a number."""
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            finite = "" if value < least else " and finite"
            whole = f"{section}.{name}" if section else name
            raise UserError(f"{whole} must be at least {least}{finite}, not {value}")
