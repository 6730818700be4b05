"""--install-wireshark and --uninstall-wireshark: our parts in Wireshark's personal folders.

Each file has a line that says who wrote it, by which it may be renewed and removed.

Rules for editors: a part is a row of PARTS.  What has no such line is never touched; all
files are looked at before the first is written.  Which folders these are only Wireshark
knows: they differ by version, system and environment.  Columns and colours are a profile,
since those of the user's own are theirs; Wireshark writes its files anew, without our line,
when the user changes something there, and then they are the user's too.
"""

import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from vsockdump import __version__
from vsockdump.capture import privileges
from vsockdump.extcap.script import script
from vsockdump.output import lua
from vsockdump.programs import run_to_end

_OLDEST: Final = (4, 0)
_LIMIT_S: Final = 60
_HEAD: Final = 2000  # characters in which the mark must stand
_STAYS: Final = "{} has settings of yours and stays as it is."
PROFILE: Final = "vsock"
_MARK: Final = re.compile(r"Written by vsockdump (\S+) --install-wireshark")


class WiresharkError(Exception):
    """What keeps the parts from being installed or removed: one sentence."""


class Folders(NamedTuple):
    """Wireshark's personal folders, that of our profile last; None where it has no Lua."""

    extcap: Path
    lua: Path | None
    profile: Path | None


class Part(NamedTuple):
    """A file: its folder, name, content without the mark, and how a comment begins.

    `settings`: Wireshark writes them too, for the user, and then they are left alone.
    """

    folder: Callable[[Folders], Path | None]
    name: str
    content: Callable[[], str]
    comment: str
    mode: int = 0o644
    settings: bool = False


PARTS: Final = (
    Part(
        lambda folders: folders.extcap,
        "vsockdump-extcap",
        lambda: script(sys.executable),
        "#",
        0o755,
    ),
    Part(lambda folders: folders.lua, "vsockdump.lua", lua.script, "--"),
    Part(lambda folders: folders.profile, "colorfilters", lua.colour_rules, "#", settings=True),
    Part(lambda folders: folders.profile, "preferences", lua.column_list, "#", settings=True),
)


def install(user: str | None) -> Iterator[str]:
    """Write the parts; the sentences that say what was done.  Raises WiresharkError."""
    # Made before another user is who may not read where Python's packages are.
    texts = {part.name: _marked(part) for part in PARTS}
    _become(user)
    folders = _folders()
    places = _places(folders)
    for part, path in places:
        if _is_of_others(path):
            yield _STAYS.format(path)
        else:
            yield _put(path, texts[part.name], part.mode)
    if folders.lua is None:
        yield "This Wireshark has no Lua, which the dissector needs."
    else:
        yield f"The profile {PROFILE} has columns and colours: Edit, Configuration Profiles."
    yield from _trial([path for part, path in places if part.mode & 0o100])


def uninstall(user: str | None) -> Iterator[str]:
    """Remove the parts; the sentences that say what was done.  Raises WiresharkError."""
    _become(user)
    folders = _folders()
    for _part, path in _places(folders):
        if _is_of_others(path):
            yield _STAYS.format(path)
        elif path.exists():
            try:
                path.unlink()
            except OSError as error:
                raise _failure("remove", path, error) from None
            yield f"Removed {path}."
        else:
            yield f"{path} is not there."
    if folders.profile is not None:
        with suppress(OSError):  # not there, or not empty: the user's
            folders.profile.rmdir()


def _become(name: str | None) -> None:
    """Act for a user: the one that is named (-Z), or who ran sudo."""
    user = privileges.user_named(name) if name else privileges.invoking_user()
    if user is None or user.uid == os.geteuid():
        return
    privileges.drop(user)
    os.environ["HOME"] = pwd.getpwuid(user.uid).pw_dir
    os.environ.pop("XDG_CONFIG_HOME", None)


# --- the folders -------------------------------------------------------------------------


def _folders() -> Folders:
    """Wireshark's personal folders, as tshark tells them."""
    version = re.match(r"TShark \(Wireshark\) (\d+)\.(\d+)", _tshark("--version"))
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise WiresharkError(f"This needs Wireshark {oldest} or newer; tshark is of an older one.")
    return folders_of(_tshark("-G", "folders"))


def folders_of(report: str) -> Folders:
    """The folders in the text of `tshark -G folders`.

    Wireshark 4.0 does not name its folder for extcaps there, which is beside its settings.
    """
    named = {}
    for line in report.splitlines():
        name, _, path = line.partition(":")
        named[name.lower()] = path.strip()
    if "personal configuration" not in named:
        raise WiresharkError("tshark -G folders does not name Wireshark's personal folders.")
    settings = Path(named["personal configuration"])
    extcap = Path(named.get("personal extcap path") or settings / "extcap")
    if not (lua := named.get("personal lua plugins")):
        return Folders(extcap, None, None)
    return Folders(extcap, Path(lua), settings / "profiles" / PROFILE)


def _tshark(*arguments: str) -> str:
    try:
        return _answer("tshark", *arguments)
    except FileNotFoundError:
        raise WiresharkError(
            "tshark is missing, which knows Wireshark's folders; install it, on Debian with:"
            " sudo apt install tshark."
        ) from None
    except subprocess.SubprocessError as error:
        raise WiresharkError(f"tshark fails: {error}.") from None


def _answer(*command: str | Path) -> str:
    """What a command that must go well writes to stdout."""
    done = run_to_end(command, _LIMIT_S)
    done.check_returncode()
    return done.stdout


# --- the files ---------------------------------------------------------------------------


def _places(folders: Folders) -> list[tuple[Part, Path]]:
    """Where each part belongs; WiresharkError where something of others stands there."""
    places = []
    for part in PARTS:
        folder = part.folder(folders)
        if folder is not None:
            places.append((part, folder / part.name))
    for part, path in places:
        if not part.settings and _is_of_others(path):
            raise WiresharkError(
                f"{path} was not written by vsockdump --install-wireshark; nothing was changed."
                " Move it away first."
            )
    return places


def _is_of_others(path: Path) -> bool:
    """Whether something is there that we did not write, be it a link that leads nowhere."""
    return os.path.lexists(path) and written_by(path) is None


def written_by(path: Path) -> str | None:
    """The version of vsockdump that wrote a file; None for those of others."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open(encoding="utf-8", errors="replace") as file:
            mark = _MARK.search(file.read(_HEAD))
    except OSError as error:
        raise _failure("read", path, error) from None
    return mark[1] if mark else None


def _marked(part: Part) -> str:
    """The content with the mark: in the second line, below a script's `#!`."""
    first, end, rest = part.content().partition("\n")
    mark = f"{part.comment} Written by vsockdump {__version__} --install-wireshark\n"
    if first.startswith("#!"):
        return f"{first}{end}{mark}{rest}"
    return f"{mark}{first}{end}{rest}"


def _put(path: Path, text: str, mode: int) -> str:
    """Write a file of ours, all of it or nothing; what was done."""
    before = written_by(path) if path.exists() else None
    try:
        if before and path.read_text(encoding="utf-8") == text and path.stat().st_mode & mode:
            return f"{path} is up to date."
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=".vsockdump-")
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise _failure("write", path, error) from None
    return f"Renewed {path}, written by vsockdump {before}." if before else f"Wrote {path}."


def _trial(paths: list[Path]) -> Iterator[str]:
    """Run what Wireshark will run; a sentence where it does not work, or else what to do."""
    for path in paths:
        try:
            _answer(path, "--extcap-interfaces")
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise WiresharkError(f"{path} does not run, or its Python: {reason}.") from None
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise WiresharkError(f"{path} does not run: {said[-1]}") from None
    yield "Wireshark shows it when it starts anew."


def _failure(what: str, path: Path, error: OSError) -> WiresharkError:
    reason = os.strerror(error.errno or 0).lower()
    return WiresharkError(f"Cannot {what} {path}: {reason}.")
