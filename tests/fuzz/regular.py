"""Which bodies the oracle `whole_reader` has an opinion on.

It reads what the API's reference allows, and says nothing of how odd fields are mended (numbers for texts, texts for
numbers): a body with such a field anywhere is fed and cut as any other, but not compared.
"""

from __future__ import annotations

from typing import Any

from whole_reader import parse_object, parse_reply

_NO_FIELDS: dict[str, Any] = {}


def is_regular(body: bytes) -> bool:
    """Whether all JSON in this body has fields of the types that the API's reference gives them."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    events, pending, _ = parse_reply(body)
    whole = text.startswith(("{", "["))
    payloads = [text] if whole else [event["data"] for event in events + pending]
    return all(_payload(parse_object(payload)) for payload in payloads)


def _payload(value: dict[str, Any] | None) -> bool:
    if value is None:
        return True
    choices, usage = value.get("choices"), value.get("usage")
    return (
        _texts(value, "id", "object", "model", "service_tier", "system_fingerprint")
        and not any(name in value for name in ("message", "error_message", "detail"))
        and not (value.get("object") == "chat.completion" and "choices" not in value)
        and _number(value.get("created", 0))
        and _records(choices, _choice)
        and _distinct(choices)
        and (usage is None or (isinstance(usage, dict) and all(map(_usual, usage.items()))))
        and _error(value.get("error"))
    )


def _usual(item: tuple[str, Any]) -> bool:
    name, value = item
    return (
        _number(value)
        if name.endswith("_tokens")
        else name not in ("prompt_tokens_details", "completion_tokens_details") or value is None
    )


def _distinct(choices: Any) -> bool:
    """Choices of one payload with one index each."""
    indices = [choice.get("index") for choice in choices or []]
    return len(indices) == len(set(indices)) and (len(indices) < 2 or None not in indices)


def _choice(value: dict[str, Any]) -> bool:
    index, says = value.get("index", 0), [value[name] for name in ("delta", "message") if value.get(name) is not None]
    return (
        _number(index)
        and 0 <= index < 2**31
        and _texts(value, "finish_reason")
        and value.get("logprobs") is None
        and all(isinstance(each, dict) and _delta(each) for each in says)
    )


def _delta(value: dict[str, Any]) -> bool:
    call = value.get("function_call")
    return (
        _texts(value, "role", "content", "refusal", "reasoning", "reasoning_content")
        and value.get("audio") is None
        and not (value.get("reasoning") and value.get("reasoning_content"))
        and _records(value.get("tool_calls"), _tool_call)
        and (call is None or (isinstance(call, dict) and _texts(call, "name", "arguments")))
    )


def _tool_call(value: dict[str, Any]) -> bool:
    function = value.get("function")
    index = value.get("index")
    return (
        (index is None or _number(index))
        and _texts(value, "id", "type")
        and (function is None or (isinstance(function, dict) and _texts(function, "name", "arguments")))
    )


def _error(error: Any) -> bool:
    if isinstance(error, dict):
        return all(isinstance(error.get(name), str | None) for name in ("message", "type", "param")) and isinstance(
            error.get("code"), str | int | None
        )
    return error is None or isinstance(error, str)


def _records(value: Any, check: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, dict) and check(each) for each in value))


def _texts(value: dict[str, Any], *names: str) -> bool:
    return all(isinstance(value.get(name), str | None) for name in names)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
