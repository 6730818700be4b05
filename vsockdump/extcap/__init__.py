"""A capture source for Wireshark, by its extcap interface: what the script it starts runs.

Wireshark asks for interfaces, their link type and their options (`calls`), and then starts a
capture (`session`): vsockdump, here or at the other end of ssh (`plan`, `ssh`), writes into
Wireshark's pipe, and what it says goes to Wireshark's toolbar (`control`).

Rules for editors: Wireshark runs every extcap several times when it starts, so that nothing
heavy may be imported for the questions.  Stdout is for answers alone.  What is written to
stderr Wireshark shows in a window: one sentence, and only where something failed.
Source: "Adding Capture Interfaces And Log Sources Using Extcap" in Wireshark's developer's
guide; what it leaves open was measured with tshark 4.0.
"""
