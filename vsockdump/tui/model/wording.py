"""Filters made from what is looked at: a field with its value, bytes."""

import re
from typing import Final

from vsockdump.findings.registry import BY_NAME
from vsockdump.tui.model.completion import check
from vsockdump.tui.model.details import Node

_NUMBER: Final = re.compile(r"\((\d+)\)")


def field_filter(node: Node) -> str:
    """The filter for packets with the node's value, "" where there is none."""
    if node.name in BY_NAME:
        return f"finding {node.name}"
    words = [*_NUMBER.findall(node.value), *node.value.split()[:1]]
    if node.children:  # a heading, such as `Connection 3`
        words = node.label.split()[-1:]
    texts = [f"{node.name} == {word.lower()}" for word in words] if node.name else []
    return next((text for text in texts if check(text).filter is not None), "")


def bytes_filter(data: bytes) -> str:
    """The filter for packets whose payload has these bytes."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in data
    )
    return f'payload contains "{escaped}"'
