"""Every command and option says what it is for, by an example, in --help and in README.md."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobs.cli import main
from jobs.recipe import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def leaves(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Commands by what is typed: `probe`, `models list`."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= leaves(command, f"{name} ") if isinstance(command, click.Group) else {prefix + name: command}
    return found


COMMANDS = leaves(main)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(command: str) -> None:
    text = CliRunner().invoke(main, [*command.split(), "--help"]).output
    example = text[text.index("Example") :].splitlines()[1].strip()
    assert example.startswith(f"reelcolor {command}")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_readme_shows_it(command: str) -> None:
    assert re.search(rf"reelcolor {command}\b", README)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_says_what_it_does(command: str) -> None:
    options = [p for p in COMMANDS[command].params if isinstance(p, click.Option)]
    assert options
    assert not [option.name for option in options if not option.help]


def test_every_recipe_key_is_an_option() -> None:
    options = {parameter.name for parameter in main.commands["colorize"].params}
    assert {field.name for field in dataclasses.fields(Recipe)} <= options


def test_examples_parse() -> None:
    """Options that an example shows are options that there are."""
    for name, command in COMMANDS.items():
        known = {flag for p in command.params if isinstance(p, click.Option) for flag in (*p.opts, *p.secondary_opts)}
        examples = [line for line in str(command.help).splitlines() if line.strip().startswith("reelcolor ")]
        used = {word for line in examples for word in line.split() if word.startswith("-")}
        assert examples
        assert used <= known, f"{name}: {used - known}"
