"""The way of one stream's results to its sink."""

from __future__ import annotations

from collections.abc import Callable

from rdn_engine.results import Detections
from rdn_engine.serve.account import Account, DropReason
from rdn_engine.serve.delivery import Delivery
from rdn_engine.serve.source import Sink
from rdn_engine.serve.troubles import Troubles


class Outlet:
    """Calls the sink in a thread of its own, and keeps the account of what the sink took. A slow sink holds up its own
    stream alone, which takes no frame while too many results wait; a sink that raises loses that result alone.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        bound: int,
        account: Account,
        troubles: Troubles,
        clock: Callable[[], float],
        aged: Callable[[float], None],
        room: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Start the thread.

        Args:
            name: of the stream.
            sink: takes the results.
            bound: results that may wait before `full` says so.
            account, troubles: of the stream.
            clock: seconds, as `Capture.clock`.
            aged: called with the age of each result, seconds.
            room: called when it is no longer full.
            end: called after the last result.
        """
        self._sink, self._account, self._troubles, self._clock = sink, account, troubles, clock
        self._aged = aged
        self._called: float | None = None
        self._delivery: Delivery[Detections] = Delivery(f"rdn-sink-{name}", self._deliver, bound, room, end)

    @property
    def full(self) -> bool:
        """Whether so many results wait that the stream is to take no frame."""
        return self._delivery.full

    @property
    def sink_seconds(self) -> float:
        """Seconds since the call of the sink that goes on now; 0 where none does."""
        called = self._called
        return 0.0 if called is None else max(self._clock() - called, 0.0)

    def post(self, results: list[Detections]) -> None:
        """Hand results to the thread.

        Args:
            results: in order; the account has them already.
        """
        self._delivery.post(results)

    def drop(self, reason: DropReason) -> None:
        """Give up the results that wait, and what may come.

        Args:
            reason: why.
        """
        self._account.give_up_results(self._delivery.drop(), reason)

    def finish(self) -> None:
        """Let the thread end after what waits now."""
        self._delivery.finish()

    def _deliver(self, result: Detections) -> None:
        arrived = None if result.capture is None else result.capture.clock
        now = self._called = self._clock()
        age = None if arrived is None else max(now - arrived, 0.0)
        if age is not None:
            self._aged(age)
        try:
            self._sink(result)
        except BaseException as error:  # sys.exit() too: it would end this thread, and the stream would stand still
            self._account.delivered(age, taken=False)
            self._troubles.bad("sink_failing", f"the sink raised {error!r}; the result is dropped", error)
        else:
            self._account.delivered(age, taken=True)
            self._troubles.good("sink_failing")
        finally:
            self._called = None
        if not self._delivery.full:
            self._troubles.good("sink_full")
