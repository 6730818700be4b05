"""What the tests of stories share: all the stories of a capture, in one pass over it."""

from pathlib import Path
from typing import Any

from tracking import batches

from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.capture.reader import ROWS
from vsockdump.output.story import OneExplained
from vsockdump.story.model import Story
from vsockdump.track.tracker import Tracker

MOST = 12  # connections of a capture that are told


def stories(path: str | Path, rows: int = ROWS, most: int = MOST, **options: Any) -> list[Story]:
    """The stories of the first connections, from batches of so many packets."""
    dialogues, tracker = Dialogues(DialogueOptions({}), 10_000), Tracker()
    tellers = []
    for number in range(1, most + 1):
        teller = OneExplained(tracker, dialogues=dialogues, **options)
        teller.conn = number
        tellers.append(teller)
    for batch in batches(path, rows):
        tracker.track(batch)
        dialogues.add(batch)
        for teller in tellers:
            teller.add(batch)
    tracker.finish()
    dialogues.finish()
    found = (teller.story(numeric=False) for teller in tellers)
    return [story for story in found if story is not None]


def texts(story: Story) -> str:
    """All its sentences, one a line."""
    return "\n".join(sentence.text for sentence in story.sentences)
