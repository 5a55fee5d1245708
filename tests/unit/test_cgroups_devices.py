"""Bytes per device, from the texts of both cgroup versions."""

from container_magic.cgroups.devices import busiest, total, v1_counters, v2_counters
from container_magic.display.text import report_full
from container_magic.events import DeviceIO, Exited, Usage, from_dict, to_dict
from container_magic.folding import fold
from container_magic.report import RunReport

V1 = """8:0 Read 4096
8:0 Write 8192
8:0 Sync 1
8:0 Total 12288
999:7 Read 1
999:7 Write 0
Total 12289
"""
V2 = """8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0
999:7 rbytes=1 wbytes=0
8:16
"""


def test_both_versions_say_the_same():
    """Reads and writes by device, sums over all."""
    assert v1_counters(V1) == {"8:0": (4096, 8192), "999:7": (1, 0)}
    assert v2_counters(V2) == {"8:0": (4096, 8192), "999:7": (1, 0), "8:16": (0, 0)}
    assert total(v1_counters(V1)) == (4097, 8192)
    assert total({}) == (0, 0)


def test_busiest_devices_come_first_and_idle_ones_not():
    """Counted from the baseline; a device without a name goes by its numbers."""
    then = {"999:7": (5, 5), "999:8": (1, 1)}
    now = {"999:7": (6, 5), "999:8": (1, 1), "999:9": (100, 1)} | {f"998:{n}": (n, 10) for n in range(9)}
    found = busiest(now, then)
    assert len(found) == 5
    assert found[0] == DeviceIO(device="999:9", read_bytes=100, written_bytes=1)
    assert found[1] == DeviceIO(device="998:8", read_bytes=8, written_bytes=10)
    assert busiest(then, then) == ()


def test_devices_stand_in_the_report():
    """Through events, JSON and the text; None where the host cannot say."""
    usage = Usage(
        io_read_bytes=1, io_write_bytes=2048, io_devices=(DeviceIO(device="sda", read_bytes=1, written_bytes=2048),)
    )
    report = fold([from_dict(to_dict(Exited(exit_code=0, usage=usage)))])
    assert report.usage.io_devices == usage.io_devices
    assert RunReport.from_dict(report.to_dict()) == report
    assert "I/O         read 1 B, written 2 KB\n            sda: read 1 B, written 2 KB\n" in report_full(report)
    assert fold([from_dict(to_dict(Exited(exit_code=0)))]).usage.io_devices is None
