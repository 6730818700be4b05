"""What the README shows is what the program does."""

import shlex
from pathlib import Path

import pytest
from running import run

from vsockdump import manual
from vsockdump.apps.registry import codes
from vsockdump.fields import FIELDS
from vsockdump.findings.registry import RULES
from vsockdump.verify.deviations import DEVIATIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def field_table() -> str:
    """The README's table of fields, from the registry."""
    rows = []
    for field in FIELDS:
        names = ", ".join(f"`{name}`" for name in field.names)
        rows.append(f"| {names} | {field.meaning} |")
    return "\n".join(rows)


def findings_table() -> str:
    """The manual's table of findings, from the registry."""
    return "\n".join(f"| `{rule.name}` | {rule.severity.word} | {rule.what} |" for rule in RULES)


def deviations_table() -> str:
    """The README's table of deviations, from the one table."""
    return "\n".join(f"| {each.program} | {each.reason} |" for each in DEVIATIONS)


def examples() -> list[tuple[str, str]]:
    """(command, output) of the blocks that begin with a prompt, of the README and the manual."""
    found = []
    for text in (README, *map(manual.page, manual.subjects())):
        for block in text.split("```")[1::2]:
            first, _, output = block.strip().partition("\n")
            if first.startswith("$ "):
                found.append((first[2:], output))
    return found


def test_fields_are_all_in_the_readme() -> None:
    """The table of fields is that of the registry."""
    assert field_table() in README


def test_findings_are_all_in_the_manual() -> None:
    """The table of findings is that of the registry."""
    assert findings_table() in manual.page("findings")


def test_deviations_are_all_in_the_readme() -> None:
    """The table of deviations is the one that `--verify` and the tests use."""
    assert deviations_table() in README


def test_protocols_are_all_in_the_readme() -> None:
    """The table of application protocols has a row for each of the registry."""
    names = {row.split("`")[1] for row in README.splitlines() if row.startswith("| `")}
    assert set(codes()) <= names


def test_there_are_examples() -> None:
    """The README shows commands with their output."""
    assert len(examples()) >= 2


@pytest.mark.parametrize(("command", "output"), examples())
def test_examples_print_what_the_readme_says(command: str, output: str) -> None:
    """Each example, its capture taken from the checkout, prints what stands below it."""
    program, *arguments = shlex.split(command)
    assert program == "vsockdump"
    here = [ROOT / word if word.startswith("captures/") else word for word in arguments]
    assert output == run(*here).out.rstrip("\n")
