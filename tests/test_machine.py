"""What is said of machines: those that can capture, and those that cannot, and what helps."""

import pytest

from vsockdump.capture import machine
from vsockdump.capture.link import Link
from vsockdump.capture.machine import Facts, blind_spots, doctor, no_device, obstacles, report

UP, DOWN = Link("vsockmon0", 4, 826, True), Link("vsockmon0", 4, 826, False)
HOST = Facts(
    release="6.1.0-56-amd64",
    may_capture=True,
    may_make=True,
    monitors=(),
    modules=frozenset({"vsock", "vhost_vsock", "vsock_loopback"}),
    installed=True,
    local_cid=2,
    vmms=(),
    system="debian",
    container=False,
)
GUEST = HOST._replace(modules=frozenset({"vsock", "vmw_vsock_virtio_transport"}), local_cid=52)


@pytest.mark.parametrize("facts", [HOST, GUEST, HOST._replace(monitors=(UP,), may_make=False)])
def test_nothing_is_wrong(facts: Facts) -> None:
    """A host and a guest that can make a device, and who need not make one."""
    assert [] == obstacles(facts) + blind_spots(facts)
    assert ["Nothing is wrong: vsockdump can capture here."] == list(doctor(facts))


@pytest.mark.parametrize(
    ("changes", "says", "command"),
    [
        ({"may_capture": False}, "CAP_NET_RAW", "sudo vsockdump"),
        (
            {"monitors": (DOWN,), "may_make": False},
            "vsockmon0 is down",
            "sudo ip link set vsockmon0 up",
        ),
        (
            {"may_make": False},
            "There is no vsock monitor",
            "sudo ip link add vsockmon0 type vsockmon && sudo ip link set vsockmon0 up",
        ),
        ({"installed": False}, "has no module vsockmon", ""),
        (
            {"installed": False, "system": "ubuntu"},
            "has no module vsockmon",
            "sudo apt install linux-modules-extra-6.1.0-56-amd64",
        ),
        (
            {"installed": False, "container": True},
            "outside this container",
            "sudo modprobe vsockmon",
        ),
    ],
)
def test_obstacles(changes: dict[str, object], says: str, command: str) -> None:
    """One sentence that names what is in the way and ends with the command that helps."""
    (problem,) = obstacles(HOST._replace(**changes))  # type: ignore[arg-type]
    assert says in problem.sentence
    assert command == problem.command
    assert str(problem).endswith(f"{command}.")
    assert str(problem) in list(doctor(HOST._replace(**changes)))  # type: ignore[arg-type]


def test_a_device_of_others_that_is_down_is_no_obstacle_to_root() -> None:
    """Who may make a device makes one and leaves the other as it is."""
    assert [] == obstacles(HOST._replace(monitors=(DOWN,)))


def test_a_loaded_module_need_not_be_found() -> None:
    """A kernel built elsewhere, whose modules were not installed."""
    loaded = HOST._replace(installed=False, modules=HOST.modules | {"vsockmon"})
    assert [] == obstacles(loaded)


def test_what_is_not_known_is_said_by_the_doctor_only() -> None:
    """Without /lib/modules only the attempt tells."""
    unknown = HOST._replace(installed=None)
    assert [] == obstacles(unknown)
    assert "cannot be seen from here" in next(doctor(unknown))
    assert "vsockmon" in str(no_device(unknown))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modules": frozenset({"vsock", "vmw_vsock_vmci_transport"})}, "VMCI"),
        ({"modules": frozenset({"vsock", "hv_sock"})}, "Hyper-V"),
        ({"vmms": ("Firecracker",)}, "Firecracker"),
        ({"vmms": ("Cloud Hypervisor",)}, "capture inside the guest"),
        ({"modules": frozenset({"vsock"})}, "sudo modprobe vhost_vsock"),
    ],
)
def test_blind_spots(changes: dict[str, object], says: str) -> None:
    """What no monitor shows is said by -D, by --doctor, and where nothing was captured."""
    facts = HOST._replace(**changes)  # type: ignore[arg-type]
    for text in (machine.why_silent(facts), "\n".join(report(facts)), "\n".join(doctor(facts))):
        assert says in text


def test_a_silent_capture_on_a_good_machine() -> None:
    """There was nothing to see, which is said as well."""
    assert "no vsock packet passed" in machine.why_silent(HOST)


def test_the_report() -> None:
    """-D: monitors, context id, and what can be captured."""
    lines = list(report(HOST._replace(monitors=(UP, Link("v1", 5, 826, False)))))
    assert ["vsockmon0 (up)", "v1 (down)", "this machine's context id is 2 (host)"] == lines[:3]
    assert all(line.startswith("can be captured: ") for line in lines[3:])
    assert 5 == len(lines)
    assert "vsockdump makes one" in next(report(HOST))
    assert "this machine's context id is 52 (guest 52)" in list(report(GUEST))


def test_this_machine_can_be_asked() -> None:
    """Whatever it is, gathering and telling work, without rights and without vsock."""
    facts = machine.gather()
    assert facts.release
    assert list(report(facts))
    assert list(doctor(facts))
    assert machine.why_silent(facts).startswith("Nothing was captured")
