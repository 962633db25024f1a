"""What config.json says of BERT's head and labels, read and written. Free of torch."""

from typing import Any

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import say
from wenlu.models.config import ModelConfig

ARCHITECTURES = {
    "tokens": "BertForMaskedLM",
    "classify": "BertForSequenceClassification",
    "tag": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
    "pool": "BertModel",
    "none": "BertModel",
}
"""Head → class. A BertModel's weights say whether it has a pooler; its configuration does not."""
HEADS = {"BertForPreTraining": "tokens"} | {name: head for head, name in ARCHITECTURES.items() if head != "none"}


def head_fields(body: dict[str, Any], where: str) -> dict[str, Any]:
    """`head` and `labels` of a config.json."""
    names = body.get("architectures")
    if not isinstance(names, list) or len(names) != 1:
        known = ", ".join(HEADS)
        raise UserError(f"{where}: architectures must name one class, which says what head it has; known: {known}")
    if names[0] not in HEADS:
        raise UserError(
            f"{where}: {names[0]} in architectures is not supported.{did_you_mean(str(names[0]), HEADS)} "
            f"Supported: {', '.join(HEADS)}"
        )
    head = HEADS[names[0]]
    for other in ("attention_probs_dropout_prob", "classifier_dropout"):
        ours = body.get("hidden_dropout_prob", 0.1)
        if body.get(other, ours) not in (None, ours):
            say(f"{where}: {other} is {body[other]}; training would drop out {ours} (hidden_dropout_prob) everywhere")
    if head not in ("classify", "tag", "span"):
        return {"head": head}
    if (kind := body.get("problem_type")) not in (None, "single_label_classification"):
        raise UserError(f"{where}: problem_type = {kind!r} is not supported (only 'single_label_classification')")
    labels = _labels(body, where)
    if head == "span" and len(labels) != 2:
        raise UserError(f"{where}: BertForQuestionAnswering has 2 outputs, and id2label names {len(labels)}")
    return {"head": head} if head == "span" else {"head": head, "labels": labels}


def _labels(body: dict[str, Any], where: str) -> tuple[str, ...]:
    """Labels by number; where none are named, those that Transformers takes."""
    named = body.get("id2label")
    if named is None:
        count = body.get("num_labels", 2)
        named = {str(n): f"LABEL_{n}" for n in range(count)} if type(count) is int else None
    numbers = [str(n) for n in range(len(named))] if isinstance(named, dict) else []
    if not numbers or set(named) != set(numbers) or not all(isinstance(label, str) for label in named.values()):
        raise UserError(f"{where}: id2label must name the labels 0, 1, 2, …, not {named!r:.200}")
    return tuple(named[number] for number in numbers)


def head_json(config: ModelConfig) -> dict[str, Any]:
    """What config.json says of head and labels, and of what other implementations leave open."""
    body: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.head]],
        "attention_probs_dropout_prob": config.dropout,
        "classifier_dropout": None,
        "position_embedding_type": "absolute",
    }
    if config.labels:
        body["id2label"] = {str(number): label for number, label in enumerate(config.labels)}
        body["label2id"] = {label: number for number, label in enumerate(config.labels)}
    return body
