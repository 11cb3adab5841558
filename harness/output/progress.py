"""Progress of a command on standard error: a bar on terminals, otherwise plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from harness.output.folding import wrap
from harness.output.printing import entry, is_live, line, visible

# The maximum columns of the bar, and the columns of the other texts on its line.
LONGEST, BESIDE = 30, 48
# Seconds after which the remaining time is estimated.
EARLY = 1.0
# Seconds without output to a pipe, after which a line shows the current work.
SILENCE = 10.0


class Progress:
    """A display of a task's progress. :meth:`plan` sets the number of parts of the task, and
    :meth:`at` how many of them are done.

    Use it as a context manager.
    """

    def __init__(
        self, console: Console, what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.what = console, what
        self.live = is_live(console)
        self.total, self.done = 0.0, 0.0
        self._counted, self._doing, self._forecast = "", "", True
        self._said: set[str] = set()
        self._clock = clock
        self._began, self._first = clock(), 0.0
        self._marked = self._printed = self._began
        self._drawn = Live(
            console=console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            get_renderable=self._render,
        )

    def __enter__(self) -> Self:
        if self.live:
            self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop drawing, and remove the bar."""
        self._drawn.stop()

    def plan(self, total: float, done: float = 0.0, *, forecast: bool = True) -> None:
        """Set the number of parts of the task, and how many of them are already done; start to
        measure the time.

        Without ``forecast``, the remaining time is not shown, e.g. because the parts take very
        different times.
        """
        self.total, self.done, self._forecast = total, done, forecast
        self._began, self._first = self._clock(), done
        self._marked = self._began

    def at(self, done: float, counted: str) -> None:
        """Set how many parts are done. ``counted`` shows this number as text, e.g. ``3/12``."""
        if done != self.done:
            self._marked = self._clock()
        self.done, self._counted = done, counted

    def doing(self, text: str) -> None:
        """Set the text that describes the current work, without printing it."""
        self._doing = visible(text)

    def line(self, text: str) -> None:
        """Print a line above the bar. Without a bar, print a plain line."""
        self._printed = self._clock()
        line(self.console, text)

    def once(self, backend: str, messages: Iterable[str]) -> None:
        """Print lines about a backend above the bar. A line that has been printed before is left
        out."""
        for message in messages:
            text = f"{backend}: {message}"
            if text not in self._said:
                self._said.add(text)
                self.line(text)

    def step(self, text: str) -> None:
        """Show a text about the current work below the bar. Without a bar, print it as a line."""
        self.doing(text)
        if not self.live:
            self.line(text)

    def now(self, text: str) -> None:
        """Show a text about a short piece of work below the bar. Without a bar, print it only if
        nothing has been printed for 10 s."""
        self.doing(text)
        if not self.live and self._clock() - self._printed >= SILENCE:
            self.line(text)

    def count(self) -> str:
        """Return how many parts are done, and the remaining time, as text: e.g. ``3/12, about 0:40
        left``."""
        return ", ".join(filter(None, (self._counted, self.left())))

    def left(self) -> str:
        """Return the remaining time as text, e.g. ``about 1:40 left``; "" if it is unknown or zero.

        While a part of the task runs, the remaining time counts down. If this part takes longer
        than expected, the remaining time stops at the time that the later parts need.
        """
        gone, made = self._marked - self._began, self.done - self._first
        if not self._forecast or gone < EARLY or made <= 0 or self.done >= self.total:
            return ""
        pace, rest = gone / made, self.total - self.done
        after = max(pace * rest - (self._clock() - self._marked), pace * (rest - 1))
        return f"about {clock_time(after)} left" if after > 0 else ""

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        parts: list[RenderableType] = [entry(self.what)]
        room = min(LONGEST, self.console.width - BESIDE)
        if self.total and room >= 5:
            parts.append(ProgressBar(self.total, self.done, width=room))
        gone = clock_time(self._clock() - self._began)
        words = " ".join(filter(None, (self._counted, gone, self.left())))
        grid.add_row(*parts, entry(words))
        below = wrap(self._doing, self.console.width) if self._doing else ""
        return Group(grid, entry(below)) if below else grid


def clock_time(seconds: float) -> str:
    """Return a number of seconds as text: ``1:02:03``, or ``2:03`` if it is less than an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
