"""The short verbs of the shell: where is it, move it, take a frame, remember this place."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from rich.console import Console
from rich.table import Table

from dfxrm_control.acquisition import FrameBatch
from dfxrm_control.errors import DfxrmError, ParameterError

if TYPE_CHECKING:
    from dfxrm_control.session._session import Outcome, Session

__all__ = ["Verbs"]

AxisLike = Any
"""An axis or its logical name."""


class Verbs:
    """What a user types; every verb takes axes or their logical names.

    Parameters
    ----------
    session : Session
        The session they act on.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._console = Console(highlight=False, soft_wrap=True)

    def names(self) -> dict[str, Callable[..., Any]]:
        """Return the verbs by name."""
        verbs = (
            self.wa, self.wm, self.mv, self.mvr, self.ct, self.sav, self.restore, self.lsp, self.forget, self.lsdev,
            self.lsplans, self.lsarm, self.cleararm,
        )  # fmt: skip
        return {verb.__name__: verb for verb in verbs}

    def wa(self) -> None:
        """Where is everything: all axes and channels."""
        self._show_axes(self._session.axes)
        table = Table("channel", "value", box=None, pad_edge=False)
        for name, channel in self._session.channels.items():
            table.add_row(name, _shown(channel.get, ".6g"))
        self._console.print(table)

    def wm(self, *axes: AxisLike) -> None:
        """Where are some axes, and how far may they go: ``wm(chi, phi)``."""
        self._show_axes({axis.name: axis for axis in map(self._axis, axes)})

    def mv(self, *moves: Any) -> None:
        """Move axes together and wait: ``mv(chi, 0.1, phi, 0)``. A position outside a limit moves nothing."""
        targets = self._pairs("mv", moves)
        for axis, position in targets:
            axis.check_value(position)
        self._session.move(targets)
        self.wm(*(axis for axis, _ in targets))

    def mvr(self, *moves: Any) -> None:
        """Move axes by a distance, counted from where they were sent last: ``mvr(chi, 0.01)``."""
        absolute: list[Any] = []
        for axis, distance in self._pairs("mvr", moves):
            absolute += [axis, axis.setpoint + distance]
        self.mv(*absolute)

    def ct(self, exposure_s: float = 0.1, camera: AxisLike = None) -> Outcome:
        """Take one recorded frame with the shutter open and say how bright it is: ``ct(0.5)``."""
        session = self._session
        name = session.config.scan.camera if camera is None else getattr(camera, "name", camera)
        if name not in session.cameras:
            raise ParameterError(f"camera {name!r} is not there; there are {', '.join(session.cameras) or 'none'}")
        outcome = session.execute(_one_frame(session, session.cameras[name], exposure_s))
        frame = session.last_frame(name)
        self._console.print(
            f"{name}: mean {frame.mean():.1f}, max {int(frame.max())} ADU at "
            f"({', '.join(str(int(at)) for at in divmod(int(frame.argmax()), frame.shape[1]))})  {outcome.master}"
        )
        return outcome

    def sav(self, name: str, *axes: AxisLike, comment: str = "") -> None:
        """Remember where axes are, all real ones by default: ``sav("grain7", comment="bright")``."""
        if not isinstance(name, str) or not name.strip():
            raise ParameterError(f"sav needs a name for the positions, not {name!r}")
        chosen = [self._axis(axis) for axis in axes] if axes else list(self._session.real_axes().values())
        self._session.store.save(
            self._session.config.name, name, {axis.name: axis.setpoint for axis in chosen}, comment
        )
        self._console.print(f"saved {len(chosen)} positions as {name!r}")

    def restore(self, name: str, *axes: AxisLike) -> None:
        """Move axes back to where they were saved, all that were saved by default: ``restore("grain7")``."""
        saved = self._session.store.load(self._session.config.name, name).axes
        wanted = [self._axis(axis).name for axis in axes] if axes else list(saved)
        lacking = [axis for axis in wanted if axis not in saved]
        if lacking:
            raise ParameterError(f"{name!r} has no position of {lacking[0]!r}; it has {', '.join(saved)}")
        there = [(self._axis(axis), saved[axis]) for axis in wanted]
        away = [(axis, position) for axis, position in there if axis.setpoint != position]
        if not away:
            self._console.print(f"everything is at {name!r} already")
            return
        self.mv(*(part for move in away for part in move))

    def lsp(self) -> None:
        """List saved positions."""
        table = Table("name", "saved", "axes", "comment", box=None, pad_edge=False)
        for saved in self._session.store.saved(self._session.config.name):
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved.saved_at))
            table.add_row(saved.name, when, str(len(saved.axes)), saved.comment)
        self._console.print(table)

    def forget(self, name: str) -> None:
        """Drop saved positions: ``forget("grain7")``."""
        self._session.store.forget(self._session.config.name, name)

    def lsdev(self) -> None:
        """List devices, with what is wrong with those that are not available."""
        table = Table("device", "class", "parts", box=None, pad_edge=False)
        for name, device in self._session.devices.items():
            table.add_row(name, type(device).__name__, ", ".join(device.component_names))
        self._console.print(table)
        for fault in self._session.faults:
            self._console.print(str(fault))

    def lsplans(self) -> None:
        """List plans."""
        table = Table("plan", "what it does", box=None, pad_edge=False)
        for name, plan in self._session.plans.items():
            table.add_row(name, (plan.__doc__ or "").strip().partition("\n")[0])
        self._console.print(table)

    def lsarm(self) -> None:
        """Say what the arm counts from: the last alignment that was declared, in this session or before."""
        arm = self._session.arm
        self._console.print("the arm counts as an ideal one" if arm is None else arm.line())

    def cleararm(self) -> None:
        """Let the arm count as an ideal one again, and forget what was declared; nothing moves."""
        self._session.clear_arm()
        self.lsarm()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _axis(self, axis: AxisLike) -> Any:
        name = axis if isinstance(axis, str) else getattr(axis, "name", None)
        if name not in self._session.axes:
            raise ParameterError(f"axis {axis!r} is not there; there are {', '.join(self._session.axes) or 'none'}")
        return self._session.axes[name]

    def _pairs(self, verb: str, moves: tuple[Any, ...]) -> list[tuple[Any, float]]:
        if not moves or len(moves) % 2:
            raise ParameterError(f"{verb} takes axes and numbers by turns, e.g. {verb}(chi, 0.1)")
        pairs = []
        for axis, number in zip(moves[::2], moves[1::2], strict=True):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ParameterError(f"{verb}: {number!r} for {self._axis(axis).name} is no number")
            pairs.append((self._axis(axis), float(number)))
        return pairs

    def _show_axes(self, axes: Mapping[str, Any]) -> None:
        table = Table("axis", "position", "set-point", "unit", "lowest", "highest", box=None, pad_edge=False)
        for column in table.columns[1:3] + table.columns[4:]:
            column.justify = "right"
        for name, axis in axes.items():
            low, high = axis.limits
            limits = (f"{low:.4f}", f"{high:.4f}") if low < high else ("no limits", "not moved")
            table.add_row(
                name,
                _shown(partial(getattr, axis, "position"), f".{axis.precision}f"),
                _shown(partial(getattr, axis, "setpoint"), f".{axis.precision}f"),
                axis.egu,
                *limits,
            )
        self._console.print(table)


def _shown(ask: Callable[[], Any], spec: str) -> str:
    """Return an answer as text, or that there is none: one silent device must not hide the others."""
    try:
        value = ask()
    except DfxrmError as error:
        return f"({error})"
    return format(value, spec) if isinstance(value, float) else str(value)


def _one_frame(session: Session, camera: Any, exposure_s: float) -> Generator[Any, Any, None]:
    """Return the plan of `ct`: one frame with the shutter open, which is closed afterwards."""
    shutter = session.channels.get("shutter")

    def frame() -> Generator[Any, Any, None]:
        if shutter is not None:
            yield from bps.mv(shutter, "open")
        yield from bps.prepare(camera, FrameBatch(1, exposure_s), wait=True)
        yield from bps.trigger_and_read([camera])
        yield from bps.complete(camera, wait=True)

    def close() -> Generator[Any, Any, None]:
        if shutter is not None:
            yield from bps.mv(shutter, "closed")

    md = {"plan_name": "ct", "num_points": 1, "detectors": [camera.name], "dfxrm": {"exposure_s": exposure_s}}
    run = bpp.run_wrapper(bpp.finalize_wrapper(frame(), close), md=md)
    return (yield from bpp.stage_wrapper(run, [camera]))
