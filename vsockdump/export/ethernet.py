"""--export ethernet: the frames of a tunnel (gvproxy, nitriding, vpnkit) on their own interface."""

from typing import Final

from vsockdump.apps.dialogues import DialogueOptions
from vsockdump.apps.ethernet import frame_in
from vsockdump.apps.message import Said
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.export.layered import Packet, Place

LINKTYPE_ETHERNET: Final = 1


class Frames:
    """Every tunnelled frame; one that was cut stays cut."""

    interface: Final = Interface(LINKTYPE_ETHERNET, name="vsock-ethernet", resolution=NANOSECOND)

    def __init__(self, options: DialogueOptions) -> None:
        self.options = options

    def packet(self, said: Said, _place: Place) -> Packet | None:
        """The frame that a message carries."""
        frame = frame_in(said.message)
        if frame is None:
            return None
        missing = said.message.fields.get("missing")
        return Packet(frame, len(frame) + (missing if isinstance(missing, int) else 0))

    def remarks(self) -> list[str]:
        """Nothing: what is missing shows in the frames."""
        return []
