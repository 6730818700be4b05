"""What panes show as the command line prints it: text, or JSON lines."""

from collections.abc import Iterator

from vsockdump.output.findings import Findings
from vsockdump.output.statistics import Credit, Endpoints, Statistic, make
from vsockdump.output.tables import json_line
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.rates import Graph


def lines_of(one: Statistic, as_json: bool, numeric: bool) -> Iterator[str]:
    """The result of a statistic."""
    return one.json_lines() if as_json else one.lines(numeric, False)


def statistic(capture: Capture, name: str, as_json: bool, numeric: bool) -> Iterator[str]:
    """The -z of that name, one that needs no more than the connections."""
    return lines_of(make(name, capture.picture()), as_json, numeric)


def findings(capture: Capture, as_json: bool, numeric: bool) -> list[str]:
    """-z findings."""
    with capture.frozen() as tracker:
        found = Findings(tracker, collector=capture.collector)
        return list(lines_of(found, as_json, numeric))


def credit(capture: Capture, conn: int, as_json: bool, numeric: bool) -> list[str]:
    """-z credit,CONNECTION."""
    with capture.frozen() as tracker:
        result = Credit(tracker, only=conn, windows=capture.windows)
        for stalls in capture.stalls.parts():
            result.add_stalls(stalls[stalls["conn"] == conn])
        return list(lines_of(result, as_json, numeric))


def statistics(capture: Capture, as_json: bool, numeric: bool) -> list[str]:
    """The rates, -z endpoints and -z rpc."""
    lines = list(lines_of(Endpoints(capture.picture()), as_json, numeric))
    with capture.frozen():
        graph, calls = capture.counting.rates.graph(), capture.counting.rpc
        if calls is not None:
            lines += [*_gap(as_json), *lines_of(calls, as_json, numeric)]
    return [*lines, *_gap(as_json), *rates(graph, as_json)]


def _gap(as_json: bool) -> list[str]:
    return [] if as_json else [""]


def rates(graph: Graph, as_json: bool) -> Iterator[str]:
    """A line for each slot of the graph in which there are packets."""
    if not as_json:
        yield f"{'from':>12}  {'packets':>9}  {'frame bytes':>12}  {'data bytes':>12}"
    for slot, counts in enumerate(graph.counts.T.tolist()):
        start = slot * graph.slot_ns
        if not counts[0]:
            continue
        if as_json:
            keys = dict(zip(("packets", "frame_bytes", "data_bytes"), counts, strict=True))
            yield json_line("rates", {"from_ns": start, "to_ns": start + graph.slot_ns, **keys})
        else:
            packets, frame, data = counts
            yield f"{start / 1e9:>12.6f}  {packets:>9}  {frame:>12}  {data:>12}"
