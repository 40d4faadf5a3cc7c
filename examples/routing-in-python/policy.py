"""Sends what bears an attribute that matches a pattern to a stream of its own.

1. An emergency (by type or by priority) goes to the emergency stream, whatever it bears.
2. What bears the attribute goes to the stream of the first pattern that its value matches.
3. High priority and over goes to the emergency stream, the rest to the normal one.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import wit_world
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.routing import Decision, Verdict
from wit_world.imports import host
from wit_world.imports.types import Description, Message, Priority

EMERGENCY_SIGNAL = 10

# Read when the component is made: a policy has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()
DEFAULTS = {key: value["default"] for key, value in json.loads(SCHEMA)["properties"].items()}


def intern(name: str) -> int:
    """The symbol of a name."""
    symbol = host.intern(name)
    if symbol == 0:
        raise Err(f"the host has no room for the name `{name}`")
    return symbol


class Policy:
    """The configuration, with every name that a decision needs resolved to a symbol."""

    def __init__(self, config: dict) -> None:
        self.attribute = intern(config["attribute"])
        self.rules = [(rule["pattern"], intern(rule["stream"])) for rule in config["rules"]]
        to = {name: intern(name) for name in ("oona.emergency", "oona.normal")}
        why = {name: intern(name) for name in ("emergency", "pattern", "priority", "usual")}
        self.emergency = Decision(Verdict.ROUTE, to["oona.emergency"], why["emergency"])
        self.priority = Decision(Verdict.ROUTE, to["oona.emergency"], why["priority"])
        self.usual = Decision(Verdict.ROUTE, to["oona.normal"], why["usual"])
        self.pattern = why["pattern"]

    def decide(self, index: int, message: Message) -> Decision:
        if message.message_type == EMERGENCY_SIGNAL or message.priority == Priority.EMERGENCY:
            return self.emergency
        value = host.attribute(index, self.attribute)
        if value is not None:
            for pattern, stream in self.rules:
                if fnmatchcase(value, pattern):
                    return Decision(Verdict.ROUTE, stream, self.pattern)
        if message.priority in (Priority.HIGH, Priority.CRITICAL):
            return self.priority
        return self.usual


policy: Policy


class WitWorld(wit_world.WitWorld):
    def describe(self) -> Description:
        return Description("routing-in-python", "1.0.0", SCHEMA)

    def configure(self, config: str) -> None:
        global policy
        policy = Policy(DEFAULTS | json.loads(config))


class Routing(exports.Routing):
    def decide(self, now: int, messages: list[Message]) -> list[Decision]:
        return [policy.decide(index, message) for index, message in enumerate(messages)]
