"""--install-wireshark and --uninstall-wireshark: what they write, renew, remove and leave alone."""

import os
import subprocess
from pathlib import Path

import pytest
from running import CAPTURES, PROGRAM, TIME_LIMIT_S, Result, environment, tool

from vsockdump.output.lua import COLUMNS
from vsockdump.wireshark import PROFILE, WiresharkError, folders_of


def run(home: Path, *arguments: str, **settings: str) -> Result:
    """What vsockdump comes to with this home directory."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(HOME=str(home), XDG_CONFIG_HOME="", **settings),
        cwd="/",
        timeout=TIME_LIMIT_S,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def files(home: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in home.rglob("*") if not path.is_dir())


def states(home: Path) -> list[tuple[Path, int, int]]:
    """Which files there are, and when they were last changed."""
    found = [(path, path.lstat()) for path in sorted(home.rglob("*"))]
    return [(path, state.st_ino, state.st_mtime_ns) for path, state in found]


def installed(home: Path) -> list[Path]:
    """The files of a fresh installation, each of which was said to be written."""
    result = run(home, "--install-wireshark")
    assert (0, "") == (result.status, result.err)
    found = files(home)
    for path in found:
        assert f"Wrote {path}.\n" in result.out
    return found


def test_wireshark_shows_what_is_installed(tmp_path: Path) -> None:
    """tshark finds the interfaces in its personal folder, and none when they are removed."""
    found = installed(tmp_path)
    assert "vsockdump-extcap" in [path.name for path in found]
    command = ["env", f"HOME={tmp_path}", "XDG_CONFIG_HOME=", "tshark", "-D"]
    assert b"vsockdump (vsock monitor: this machine)" in tool(*command)
    result = run(tmp_path, "--uninstall-wireshark")
    assert (0, "".join(f"Removed {path}.\n" for path in found)) == (
        result.status,
        "".join(sorted(result.out.splitlines(keepends=True))),
    )
    assert b"vsockdump" not in tool(*command)
    assert "is not there" in run(tmp_path, "--uninstall-wireshark").out


def test_tshark_dissects_by_what_is_installed(tmp_path: Path) -> None:
    """The script is loaded from its personal folder: the fields are known, and have values."""
    assert "vsockdump.lua" in [path.name for path in installed(tmp_path)]
    command = ["env", f"HOME={tmp_path}", "XDG_CONFIG_HOME=", "tshark", "-T", "fields"]
    fields = ["-e", "vsock.conn", "-c", "3", "-r", CAPTURES / "k612_refused.pcap"]
    assert b"1\n1\n2\n" == tool(*command, *fields)


def test_again_it_changes_nothing(tmp_path: Path) -> None:
    """What is up to date stays the same file; what an older version wrote is renewed."""
    found = installed(tmp_path)
    before = [path.stat().st_ino for path in found]
    assert len(found) == run(tmp_path, "--install-wireshark").out.count("is up to date")
    assert before == [path.stat().st_ino for path in found]
    text = found[0].read_text()
    older = text.replace("Written by vsockdump ", "Written by vsockdump 0.0.", 1)
    found[0].write_text(older + "# more\n")
    assert (
        f"Renewed {found[0]}, written by vsockdump 0.0." in run(tmp_path, "--install-wireshark").out
    )
    assert text == found[0].read_text()
    assert os.access(found[0], os.X_OK)
    assert found == files(tmp_path)


@pytest.mark.parametrize("kind", ["file", "link", "folder", "late mark", "bytes"])
@pytest.mark.parametrize("option", ["--install-wireshark", "--uninstall-wireshark"])
def test_what_others_wrote_stays(tmp_path: Path, kind: str, option: str) -> None:
    """One sentence that names it, exit status 1, and nothing else is changed."""
    home = tmp_path / "home"
    extcap = next(path for path in installed(home) if path.name == "vsockdump-extcap")
    ours = extcap.read_text()
    extcap.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_text(ours)
        extcap.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        extcap.mkdir()
    else:
        texts = {"file": b"#!/bin/sh\n", "late mark": b"x" * 3000 + ours.encode(), "bytes": b"\xff"}
        extcap.write_bytes(texts[kind])
    before = states(home)
    result = run(home, option)
    assert (1, "") == (result.status, result.out)
    assert f"{extcap} was not written by vsockdump --install-wireshark; nothing" in result.err
    assert before == states(home)


@pytest.mark.parametrize("option", ["--install-wireshark", "--uninstall-wireshark"])
def test_settings_of_the_user_stay(tmp_path: Path, option: str) -> None:
    """Wireshark writes a profile anew, without our line, where something is changed in it."""
    changed = next(path for path in installed(tmp_path) if path.name == "preferences")
    changed.write_text('gui.column.format: \n\t"No.", "%m"\n')
    before = changed.read_bytes()
    result = run(tmp_path, option)
    assert (0, "") == (result.status, result.err)
    assert f"{changed} has settings of yours and stays as it is.\n" in result.out
    assert before == changed.read_bytes()
    assert ("uninstall" not in option) == (changed.with_name("colorfilters")).exists()


@pytest.mark.parametrize("option", ["--install-wireshark", "--uninstall-wireshark"])
def test_a_link_in_the_place_of_a_setting_stays(tmp_path: Path, option: str) -> None:
    """Also one that leads nowhere as yet: it is the user's."""
    link = next(path for path in installed(tmp_path) if path.name == "preferences")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    result = run(tmp_path, option)
    assert (0, "") == (result.status, result.err)
    assert f"{link} has settings of yours and stays as it is.\n" in result.out
    assert link.is_symlink()


def test_the_profile(tmp_path: Path) -> None:
    """Its columns are those that tshark shows, and its rules are such as Wireshark takes."""
    installed(tmp_path)
    command = ["env", f"HOME={tmp_path}", "XDG_CONFIG_HOME=", "tshark", "-C", PROFILE]
    shown = tool(*command, "-r", CAPTURES / "k612_bulk_stall.pcap", "-T", "json", "--color")
    assert b"vsock: no credit" in shown
    first = tool(*command, "-r", CAPTURES / "k612_bulk_stall.pcap", "-T", "tabs", "-c", "3")
    third = first.decode().splitlines()[2].replace("\t→", "").split("\t")
    cells = {title: cell.strip() for (title, _), cell in zip(COLUMNS, third, strict=True)}
    del cells["Time"], cells["Info"]
    assert {
        "No.": "3",
        "Source": "1",
        "Destination": "1",
        "State": "open",
        "In flight": "8192",
        "Free": "253952",
        "Length": "8268",
    } == cells


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """One sentence with the reason."""
    (tmp_path / ".config").write_text("")
    result = run(tmp_path, "--install-wireshark")
    assert 1 == result.status
    assert "Cannot write " in result.err
    assert 1 == result.err.count("\n")


def test_without_tshark(tmp_path: Path) -> None:
    """It is said what is missing, and the command that helps."""
    result = run(tmp_path, "--install-wireshark", PATH=str(tmp_path))
    assert (1, "") == (result.status, result.out)
    assert "tshark is missing" in result.err
    assert "sudo apt install tshark" in result.err


def test_an_old_wireshark(tmp_path: Path) -> None:
    """Nothing is written for one that is too old."""
    tshark = tmp_path / "tshark"
    tshark.write_text("#!/bin/sh\necho 'TShark (Wireshark) 3.6.2'\n")
    tshark.chmod(0o755)
    result = run(tmp_path, "--install-wireshark", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "needs Wireshark 4.0 or newer" in result.err
    assert [tshark] == files(tmp_path)


@pytest.mark.parametrize(
    ("report", "extcap", "lua"),
    [
        (
            "Personal configuration:\t/h/.config/wireshark\nExtcap path:\t/usr/lib/extcap\n"
            "Personal Lua Plugins:\t/h/lib/plugins\n",
            "/h/.config/wireshark/extcap",
            "/h/lib/plugins",
        ),
        (
            "Personal configuration:\t/h/c\nPersonal Extcap path:\t/h/lib/extcap\n",
            "/h/lib/extcap",
            None,
        ),
    ],
)
def test_folders_of_old_and_new(report: str, extcap: str, lua: str | None) -> None:
    """Wireshark 4.0 does not name the folder for extcaps, later ones do."""
    found = folders_of(report)
    assert (Path(extcap), lua and Path(lua)) == found[:2]
    assert (lua and Path("/h/.config/wireshark/profiles/vsock")) == found.profile


def test_no_folders() -> None:
    """A tshark that says something else is an error, not a file in `/extcap`."""
    with pytest.raises(WiresharkError):
        folders_of("usage: tshark\n")
