"""A channel of the twin as one process variable, or one to set and one to read: words are an enumeration."""

from __future__ import annotations

from typing import Any

from dfxrm_control.backend import ChannelValue
from dfxrm_control.config import ChannelConfig
from simulators.epics._variables import Asked, Choice, Number, Twin

__all__ = ["ServedChannel"]


class ServedChannel:
    """A channel: it reads as the twin says at that moment.

    Parameters
    ----------
    address : str
        The variable it is set by.
    channel : str
        Name of the channel at the twin.
    config : ChannelConfig
        Its words, unit, and the variable it is read from.
    twin : Twin
        What it belongs to.
    """

    def __init__(self, address: str, channel: str, config: ChannelConfig, twin: Twin) -> None:
        self._channel = channel
        self._twin = twin
        words = {word: config.words.get(word, word) for word in config.choices or ()}
        self._said = words
        self._meant = {theirs: word for word, theirs in words.items()}
        self._meant |= {config.set_words.get(word, theirs): word for word, theirs in words.items()}
        readback = self._variable(config, list(words.values()))
        readback.read_only = config.read_only or bool(config.readback)
        self.variables = {config.readback or address: readback}
        if not config.read_only and config.readback:
            setpoint = self._variable(config, [config.set_words.get(word, theirs) for word, theirs in words.items()])
            self.variables[address] = setpoint
        if not config.read_only:
            self.variables[address].on_put = self._put
        asked = Asked(readback, self._ask)
        self.start, self.refresh = asked.start, asked.refresh

    def _variable(self, config: ChannelConfig, words: list[str]) -> Any:
        if words:
            return Choice(value=words[0], enum_strings=words)
        return Number(value=0.0, units=config.units)

    async def close(self) -> None:
        """Do nothing: a channel has nothing under way."""

    async def _ask(self) -> ChannelValue:
        value: ChannelValue = await self._twin.ask(self._twin.backend.get, self._channel)
        return self._said.get(value, value) if isinstance(value, str) else float(value)

    async def _put(self, value: Any) -> None:
        wanted = self._meant[value] if self._said else float(value)
        await self._twin.ask(self._twin.backend.put, self._channel, wanted)
        await self.refresh()
