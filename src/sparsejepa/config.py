"""Frozen dataclasses from plain mappings: unknown keys and wrong types are errors."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

C = TypeVar("C")


def from_mapping(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """Builds the dataclass `cls`, recursing into fields that are dataclasses themselves.

    Raises:
        ValueError: a key that `cls` lacks, or a value whose type is not the field's.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(mapping) - set(hints))
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {unknown[0]!r}; its fields are {', '.join(hints)}."
        )
    return cls(**{key: _checked(cls, key, hints[key], value) for key, value in mapping.items()})


def _checked(cls: type, key: str, hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(hint, value)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        # JSON and YAML know lists only.
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            choices = ", ".join(map(str, typing.get_args(hint)))
            raise ValueError(f"{cls.__name__}.{key} must be one of {choices}, not {value!r}.")
        return value
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(a) or a for a in allowed)
    if not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain):
        names = " or ".join(getattr(a, "__name__", str(a)) for a in allowed)
        raise ValueError(f"{cls.__name__}.{key} must be {names}, not {value!r}.")
    return value


def check_choices(instance: Any) -> None:
    """For a `__post_init__`: every field typed as a Literal holds one of its choices.

    Raises:
        ValueError: one does not; says which it may hold.
    """
    for key, hint in typing.get_type_hints(type(instance)).items():
        if typing.get_origin(hint) is typing.Literal:
            _checked(type(instance), key, hint, getattr(instance, key))
