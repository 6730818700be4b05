"""The filter language: one tree, several evaluators that agree, and a text that comes back."""

import numpy as np
from filtering import (
    ANY_FILTER,
    KERNEL_FILTER,
    batch_of,
    cooked,
    cut_frames,
    frames,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsockdump import wire
from vsockdump.batch import Batch
from vsockdump.filters import bpf, kernel
from vsockdump.filters.lower import lowered
from vsockdump.filters.masks import mask_of
from vsockdump.filters.packets import matches
from vsockdump.filters.parse import parse
from vsockdump.filters.printer import text
from vsockdump.filters.tree import Always, Node, leaves


def by_packets(tree: Node, batch: Batch) -> list[bool]:
    """The lowered filter, packet by packet."""
    return [matches(tree, batch, row) for row in range(len(batch))]


@given(ANY_FILTER)
def test_a_printed_filter_is_the_same_filter(tree: Node) -> None:
    """Parsing what was printed gives the tree back."""
    assert tree == parse(text(tree))


@settings(deadline=None)
@given(ANY_FILTER, st.lists(cut_frames(), min_size=1, max_size=12))
def test_masks_agree_with_packets(tree: Node, packets: list[tuple[bytes, int]]) -> None:
    """Columns and single packets give the same answer, however damaged the packets are."""
    batch = batch_of([data for data, _ in packets], lengths=[size for _, size in packets])
    low = lowered(tree)
    assert by_packets(low, batch) == mask_of(low, batch).tolist()


@settings(deadline=None)
@given(ANY_FILTER, st.lists(frames(), min_size=1, max_size=8), st.sampled_from((826, 1)))
def test_masks_agree_in_captures_of_any(tree: Node, inner: list[bytes], arphrd: int) -> None:
    """The same behind a cooked header, and for frames that are not vsock."""
    packets = [cooked(frame, arphrd) for frame in inner]
    batch = batch_of(packets, wire.LINKTYPE_LINUX_SLL2)
    low = lowered(tree)
    assert by_packets(low, batch) == mask_of(low, batch).tolist()


@settings(deadline=None)
@example(parse("not frame.len & 1 in {0..1}"), [b"a frame"])
@given(KERNEL_FILTER, st.lists(frames(), min_size=1, max_size=12))
def test_programs_agree_with_masks(tree: Node, packets: list[bytes]) -> None:
    """What the kernel gets accepts the packets that match, as far as it can tell."""
    batch = batch_of(packets)
    halves = kernel.split(tree, keep_state=False)
    accepted = np.ones(len(packets), np.bool_)
    if halves.program is not None:
        accepted = np.array([bpf.run(halves.program, packet) > 0 for packet in packets])
    if halves.rest is not None:
        accepted &= mask_of(lowered(halves.rest), batch)
    assert mask_of(lowered(tree), batch).tolist() == accepted.tolist()


@settings(deadline=None)
@given(ANY_FILTER, st.lists(frames(), min_size=1, max_size=12))
def test_a_split_loses_nothing(tree: Node, packets: list[bytes]) -> None:
    """Both halves together are the filter, whichever way it is split."""
    batch = batch_of(packets)
    wanted = mask_of(lowered(tree), batch)
    for keep_state in (False, True, None):
        halves = kernel.split(tree, keep_state)
        accepted = np.ones(len(packets), np.bool_)
        if halves.program is not None:
            accepted = np.array([bpf.run(halves.program, packet) > 0 for packet in packets])
            pushed = mask_of(lowered(halves.pushed), batch) if halves.pushed else accepted
            assert pushed.tolist() == accepted.tolist()
        if halves.rest is not None:
            accepted &= mask_of(lowered(halves.rest), batch)
        assert wanted.tolist() == accepted.tolist()


@settings(deadline=None)
@given(ANY_FILTER, st.lists(frames(), min_size=1, max_size=12))
def test_a_split_that_keeps_state_keeps_connections(tree: Node, packets: list[bytes]) -> None:
    """If the kernel lets one packet of a connection through, it lets all of them through."""
    batch = batch_of(packets)
    program = kernel.split(tree, keep_state=True).program
    if program is None:
        return
    assert batch.tracked is not None
    connections = batch.tracked["conn"]
    accepted = np.array([bpf.run(program, packet) > 0 for packet in packets])
    for number in set(connections[connections > 0].tolist()):
        of_it = accepted[connections == number]
        matched = mask_of(lowered(tree), batch)[connections == number]
        assert of_it.all() or not matched.any()


@given(KERNEL_FILTER)
def test_decidable_filters_go_to_the_kernel_whole(tree: Node) -> None:
    """Nothing is left over of a filter all of whose leaves can be decided."""
    decidable = all(kernel.is_decidable(leaf) for leaf in leaves(lowered(tree)))
    halves = kernel.split(tree, keep_state=False)
    if decidable:
        assert halves.rest is None
        assert halves.pushed is not None or lowered(tree) == Always(True)
