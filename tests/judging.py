"""What the tracker says of simulated runs, held against what the simulated ends did."""

from collections.abc import Iterator, Sequence

from implementations import Run
from simulator import Connection, Seen, Stall
from tracking import TRACKER, batches_of

from vsockdump.batch import NO_TIME
from vsockdump.findings.collector import Case, Collector
from vsockdump.findings.rule import Severity
from vsockdump.track.kinds import Cause, Kind, Limit
from vsockdump.track.states import State

_SLACK_NS = 10_000_000  # between the tap and the sender


def _judged(packets: Sequence[Seen]) -> tuple[list[Case], list[tuple[int, ...]], object]:
    """The cases, the stalls that stand, as (conn, side, start, end, cause), and the tracker."""
    tracker = TRACKER.Tracker()
    collector = Collector(tracker)
    stalls = []
    for batch in batches_of(packets):
        collector.add(tracker.track(batch))
        names = ("conn", "side", "start_ns", "end_ns", "cause")
        stalls += zip(*(batch.stalls[name].tolist() for name in names), strict=True)
    tracker.finish()
    return collector.cases(), stalls, tracker


def cases_of(packets: Sequence[Seen]) -> list[Case]:
    """What is found at the end."""
    return _judged(packets)[0]


def wrong_in(run: Run) -> list[str]:
    """What is said of a healthy run and is not so."""
    cases, stalls, tracker = _judged(run.traffic.seen)
    wrong = [
        f"{case.rule.name} of #{case.event.conn}"
        for case in cases
        if case.severity >= Severity.WARN and not _goes_on(run, case)
    ]
    return [*wrong, *_false_stalls(run, stalls, tracker), *_missed_stalls(run, stalls)]


def _goes_on(run: Run, case: Case) -> bool:
    """Whether it is a stall that the simulated sender has too, at the end of the capture."""
    event = case.worst
    if not event.open or case.rule.kind != Kind.STALL:
        return False
    outcome = run.traffic.connections[event.conn - 1]
    return Stall(event.side, event.time_ns, None) in outcome.stalls


def wrong_with_losses(packets: Sequence[Seen]) -> list[str]:
    """Errors about credit, and resets for overrun, in a run of which packets are missing."""
    return [
        case.rule.name
        for case in cases_of(packets)
        if case.rule.name == "vsock.credit.overrun_reset"
        or (case.rule.group == "credit" and case.severity == Severity.ERROR)
    ]


def _false_stalls(run: Run, stalls: list[tuple[int, ...]], tracker: object) -> Iterator[str]:
    """Stalls that no simulated sender had."""
    store = tracker.store  # type: ignore[attr-defined]
    for conn, side, start, end, cause in stalls:
        flow = store.flows[2 * (conn - 1) + side]
        simulated = run.connections[conn - 1]
        if cause == Cause.OWN_BUFFER:
            if flow["rule"] == Limit.CAPPED and not _blocked(simulated, side, start, end):
                yield f"own buffer of side {side} of #{conn}"
            continue
        known = run.traffic.connections[conn - 1].stalls
        # To the simulator the stall of a connection that is forgotten never ends.
        ends = {end, None} if store.connections["state"][conn - 1] == State.REPLACED else {end}
        if not any(Stall(side, start, one) in known for one in ends):
            yield f"stall of side {side} of #{conn} from {start} to {end}"
    for slot, row in enumerate(store.connections[: store.used]):
        for side in (0, 1):
            since = int(store.flows[2 * slot + side]["stalled_since"])
            outcome = run.traffic.connections[int(row["number"]) - 1]
            if since != NO_TIME and Stall(side, since, None) not in outcome.stalls:
                yield f"open stall of side {side} of #{row['number']}"


def _missed_stalls(run: Run, stalls: list[tuple[int, ...]]) -> Iterator[str]:
    """Stalls of simulated senders that are not told, of connections seen from their beginning."""
    told = {(conn, Stall(side, start, end)) for conn, side, start, end, _cause in stalls}
    for conn, outcome in enumerate(run.traffic.connections, 1):
        for stall in outcome.stalls:
            if stall.end_ns is not None and not outcome.joined and (conn, stall) not in told:
                yield f"missed: {stall} of #{conn}"


def _blocked(conn: Connection, side: int, start: int, end: int) -> bool:
    """Whether the sender had data and no credit in that time."""
    peer = conn.peers[side]
    waits = [*peer.blocked]
    if peer.blocked_at is not None:
        waits.append((peer.blocked_at, end + _SLACK_NS))
    return peer.capped and any(
        begun <= end + _SLACK_NS and until >= start - _SLACK_NS for begun, until in waits
    )
