"""What must be so while frames are taken, looked at all at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from devices._done import Done
from dfxrm_control.config import ConditionConfig, ProtectionConfig
from dfxrm_control.errors import DfxrmError

__all__ = ["Conditions"]


class Conditions:
    """Channels that must read what they should (`dfxrm_control.acquisition.Conditions`).

    Each look asks the channels anew. A channel that tells of changes is heard between looks too, so that a loss that
    is over before the next look is not missed.

    Parameters
    ----------
    config : ProtectionConfig
        What must be so.
    channels : mapping
        Channel by logical name; a condition on one that is missing is never met.
    name : str
        Logical name.
    """

    parent = None

    def __init__(self, config: ProtectionConfig, channels: Mapping[str, Any], name: str = "conditions") -> None:
        self.name = name
        self.settle_s = config.settle_s
        self.patience_s = config.patience_s
        self.waits_at_start = config.at_start == "wait"
        self._config = config
        self._channels = channels
        self._lock = threading.Lock()
        self._heard: dict[str, str] = {}
        self._found = ("", False)
        for key, condition in config.conditions.items():
            channel = channels.get(condition.channel)
            if channel is not None:
                channel.subscribe(lambda value, key=key, **_: self._hear(key, value), run=False)

    def _hear(self, key: str, value: Any) -> None:
        sentence = self._wrong(self._config.conditions[key], value)
        if sentence:
            with self._lock:
                self._heard[key] = sentence

    def _wrong(self, condition: ConditionConfig, value: Any) -> str:
        """Return what is wrong with a value, as a sentence; empty where nothing is."""
        if condition.word is not None:
            return "" if value == condition.word else f"{condition.channel} is {value}, and should be {condition.word}"
        units = self._channels[condition.channel].units
        unit = f" {units}" if units else ""
        if value != value:
            return f"{condition.channel} is not known"
        if condition.at_least is not None and value < condition.at_least:
            return f"{condition.channel} is {value:g}{unit}, and should be at least {condition.at_least:g}{unit}"
        if condition.at_most is not None and value > condition.at_most:
            return f"{condition.channel} is {value:g}{unit}, and should be at most {condition.at_most:g}{unit}"
        return ""

    def _ask(self, condition: ConditionConfig) -> str:
        channel = self._channels.get(condition.channel)
        if channel is None:
            return f"{condition.channel} is not available"
        try:
            return self._wrong(condition, channel.get())
        except DfxrmError as error:
            return str(error)

    def trigger(self) -> Done:
        """Look at everything, now."""
        with self._lock:
            heard, self._heard = self._heard, {}
        wrong = {key: self._ask(condition) for key, condition in self._config.conditions.items()}
        found = {key: wrong[key] or heard.get(key, "") for key in wrong}
        ends = any(found[key] and self._config.conditions[key].then == "end" for key in found)
        self._found = ("; ".join(sentence for sentence in found.values() if sentence), ends)
        return Done()

    def read(self) -> dict[str, Any]:
        """Return what the last look found: a sentence, empty where all was well, and whether it ends the run."""
        sentence, ends = self._found
        now = time.time()
        return {
            self.name: {"value": sentence, "timestamp": now},
            f"{self.name}_ends": {"value": int(ends), "timestamp": now},
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        source = "channels: " + ", ".join(condition.channel for condition in self._config.conditions.values())
        return {
            self.name: {"source": source, "dtype": "string", "shape": []},
            f"{self.name}_ends": {"source": source, "dtype": "integer", "shape": []},
        }

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing: they have no settings."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Return nothing."""
        return {}
