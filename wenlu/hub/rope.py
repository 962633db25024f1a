"""Rotary positions in config.json ↔ `RopeScaling`: `rope_scaling` of Transformers 4, `rope_parameters` of version 5."""

from __future__ import annotations

import math
from typing import Any

from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig, RopeScaling

KEYS = {
    "none": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "context": "original_max_position_embeddings",
        "low": "low_freq_factor",
        "high": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "context": "original_max_position_embeddings",
        "low": "beta_slow",
        "high": "beta_fast",
        "attention": "attention_factor",
        "whole_pairs": "truncate",
    },
}
"""Our field → their key, by kind."""

ABSENT = {"low": 1.0, "high": 32.0, "attention": None, "whole_pairs": True}
"""What Transformers takes for yarn where a key is absent."""

ELSEWHERE = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def rope_to_json(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json, in the form of both versions."""
    kind = config.rope.kind
    scaling = {theirs: getattr(config.rope, ours) for ours, theirs in KEYS[kind].items()}
    name = "default" if kind == "none" else kind
    body = {
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": name, "rope_theta": config.rope_theta, **scaling},
    }
    return body | ({"rope_scaling": {"rope_type": name, **scaling}} if scaling else {})


def rope_from_json(body: dict[str, Any], where: str) -> tuple[float, RopeScaling]:
    """The base of the angles, and their scaling; a form that is not supported is refused by name."""
    theta, partial = body.get("rope_theta"), body.get("partial_rotary_factor")
    scaling = RopeScaling()
    for key in ("rope_scaling", "rope_parameters"):
        rope = body.get(key) or {}
        if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
            raise UserError(f"{where}: {key} of this form is not supported (only one set for all layers)")
        theta, partial = rope.get("rope_theta", theta), rope.get("partial_rotary_factor", partial)
        if rope:
            scaling = _scaling(rope, body, f"{where}: {key}")
    if partial not in (None, 1):
        raise UserError(f"{where}: partial_rotary_factor is not supported (only 1)")
    return _number(10000.0 if theta is None else theta, f"{where}: rope_theta"), scaling


def _scaling(rope: dict[str, Any], body: dict[str, Any], where: str) -> RopeScaling:
    name = rope.get("rope_type", rope.get("type", "default"))
    kind = "none" if name == "default" else name
    if not isinstance(kind, str) or kind not in KEYS:
        supported = ", ".join(["default", *list(KEYS)[1:]])
        raise UserError(f"{where}: rotary scaling of type {name!r} is not supported (only {supported})")
    known = {*ELSEWHERE, *KEYS[kind].values()}
    if kind == "yarn":
        known |= {"mscale", "mscale_all_dim"}
    elif kind == "none":
        known |= {theirs for keys in KEYS.values() for theirs in keys.values()}
    if unknown := sorted(set(rope) - known):
        raise UserError(f"{where}: {unknown[0]} is not known of rotary scaling of type {name!r}")
    fields: dict[str, Any] = {}
    for ours, theirs in KEYS[kind].items():
        value = rope.get(theirs)
        if value is None and ours == "context":
            value = body.get("original_max_position_embeddings", body.get("max_position_embeddings"))
        if value is None and kind == "yarn" and ours in ABSENT:
            value = ABSENT[ours] if ours != "attention" else _sharpness(rope, where)
        if value is None:
            raise UserError(f"{where} lacks {theirs}, which {name!r} asks for")
        if ours == "context":
            value = int(_number(value, f"{where}: {theirs}"))
        elif ours != "whole_pairs":
            value = _number(value, f"{where}: {theirs}")
        fields[ours] = value
    try:
        return RopeScaling(kind, **fields)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _sharpness(rope: dict[str, Any], where: str) -> float:
    """Yarn's factor of cosines and sines where it is not given: 0.1 ln(factor) + 1, or a ratio of two such."""
    factor = max(1.0, _number(rope.get("factor"), f"{where}: factor"))
    first, second = rope.get("mscale"), rope.get("mscale_all_dim")
    if first and second:
        return (0.1 * first * math.log(factor) + 1) / (0.1 * second * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1


def _number(value: Any, where: str) -> float:
    if type(value) in (int, float) and math.isfinite(value):
        return float(value)
    raise UserError(f"{where} must be a finite number, not {value!r}")
