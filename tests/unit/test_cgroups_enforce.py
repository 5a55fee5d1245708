"""The assessment says which file holds each wish, or why none can."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from container_magic.cgroups.enforce import Assessment, assess, parse_list, without
from container_magic.cgroups.facts import CgroupFacts, Setup
from container_magic.cgroups.settings import cpu_weight, io_weight, v1_settings, v2_settings
from container_magic.spec import DeviceRate, Resources

MB = 1 << 20
DISK = DeviceRate(path="/dev/vda", major=254, minor=0, rate=4096)
V1_NAMES = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices")


def v1_facts(**changes: Any) -> CgroupFacts:
    """Return facts of a v1 host that can do everything."""
    facts = CgroupFacts(
        setup="hybrid",
        bases={name: f"/cg/{name}" for name in V1_NAMES},
        controllers=V1_NAMES,
        optional_files=(
            "blkio.bfq.weight",
            "blkio.throttle.read_bps_device",
            "cpu.cfs_quota_us",
            "memory.memsw.limit_in_bytes",
        ),
        swap_accounting=True,
        cpus="0-1",
        mems="0",
        disks={"254:0": "bfq"},
    )
    return dataclasses.replace(facts, **changes)


def v2_facts(**changes: Any) -> CgroupFacts:
    """Return facts of a v2 host that can do everything."""
    facts = CgroupFacts(
        setup="unified",
        bases={"unified": "/cg/container_magic"},
        controllers=("memory", "cpu", "cpuset", "pids", "io"),
        optional_files=("cpu.max", "io.max", "io.weight", "memory.swap.max"),
        swap_accounting=True,
        cpus="0-3",
        mems="0",
        disks={"254:0": "iocost"},
    )
    return dataclasses.replace(facts, **changes)


EVERYTHING = Resources(
    memory_bytes=200 * MB,
    memory_swap_bytes=300 * MB,
    memory_high_bytes=150 * MB,
    cpus=1.5,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    cpu_shares=512,
    pids=64,
    blkio_weight=500,
    device_read_bps=(DISK,),
    device_write_bps=(DISK,),
    device_read_iops=(DISK,),
    device_write_iops=(DISK,),
)


def holders(assessment: Assessment) -> dict[str, str]:
    """Return limit -> file."""
    return {limit.name: limit.by for limit in assessment.limits}


def refused(assessment: Assessment) -> dict[str, str]:
    """Return field -> reason."""
    return {refusal.field: refusal.reason for refusal in assessment.refusals}


def test_v1_names_the_file_of_every_limit() -> None:
    """Every option has its v1 file, once."""
    assessment = assess(v1_facts(), EVERYTHING)
    assert assessment.refusals == ()
    assert holders(assessment) == {
        "memory": "memory.limit_in_bytes",
        "memory_high": "memory.soft_limit_in_bytes and the supervisor",
        "memory_swap": "memory.memsw.limit_in_bytes",
        "cpus": "cpu.cfs_quota_us",
        "cpuset_cpus": "cpuset.cpus",
        "cpuset_mems": "cpuset.mems",
        "cpu_shares": "cpu.shares",
        "pids": "pids.max",
        "blkio_weight": "blkio.bfq.weight",
        "device_read_bps": "blkio.throttle.read_bps_device",
        "device_write_bps": "blkio.throttle.write_bps_device",
        "device_read_iops": "blkio.throttle.read_iops_device",
        "device_write_iops": "blkio.throttle.write_iops_device",
    }
    assert len(assessment.limits) == 13


def test_v2_names_the_file_of_every_limit() -> None:
    """Every option has its v2 file, once."""
    assessment = assess(v2_facts(), EVERYTHING)
    assert assessment.refusals == ()
    by = holders(assessment)
    assert by["memory"] == "memory.max"
    assert by["memory_high"] == "memory.high and the supervisor"
    assert by["memory_swap"] == "memory.swap.max"
    assert by["cpus"] == "cpu.max"
    assert by["cpu_shares"] == "cpu.weight"
    assert by["blkio_weight"] == "io.weight"
    assert by["device_write_iops"] == "io.max"


def test_v1_writes_memory_before_memory_and_swap() -> None:
    """The kernel refuses memory+swap below memory: the order is part of the contract; the period precedes the quota."""
    texts = [(setting.file, setting.text) for setting in v1_settings(EVERYTHING, lambda file: True)]
    assert texts[:7] == [
        ("memory.soft_limit_in_bytes", str(150 * MB)),
        ("memory.limit_in_bytes", str(200 * MB)),
        ("memory.memsw.limit_in_bytes", str(300 * MB)),
        ("memory.kmem.tcp.limit_in_bytes", str(50 * MB)),
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
    ]


def test_v2_values_are_converted() -> None:
    """v2 counts swap alone, weights on other scales, quota and period in one file."""
    texts = {setting.file: setting.text for setting in v2_settings(EVERYTHING, lambda file: True)}
    assert texts["memory.swap.max"] == str(100 * MB)
    assert texts["cpu.max"] == "150000 100000"
    assert texts["cpu.weight"] == "59"
    assert texts["io.bfq.weight"] == "500"
    assert texts["io.weight"] == str(io_weight(500))
    assert texts["io.max"] == "254:0 wiops=4096"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (0, 1), (512, 59)])
def test_cpu_weight_keeps_minimum_default_and_maximum(shares: int, weight: int) -> None:
    """The conversion maps v1's marks onto v2's."""
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(("blkio", "weight"), [(10, 1), (1000, 10000), (500, 4950)])
def test_io_weight_is_linear(blkio: int, weight: int) -> None:
    """The conversion maps the ends onto each other."""
    assert io_weight(blkio) == weight


@pytest.mark.parametrize(("settings", "text"), [(v1_settings, str(MB)), (v2_settings, "0")])
def test_memory_without_swap_wish_turns_swap_off(settings: Any, text: str) -> None:
    """Swap that was not asked for is not given."""
    found = {item.field: item.text for item in settings(Resources(memory_bytes=MB), lambda file: True)}
    assert found["memory_swap_bytes"] == text


@pytest.mark.parametrize(("settings", "text"), [(v1_settings, "-1"), (v2_settings, "max")])
def test_minus_one_is_unlimited_swap(settings: Any, text: str) -> None:
    """-1 is Docker's word for no limit on swap."""
    asked = Resources(memory_bytes=MB, memory_swap_bytes=-1)
    assert {item.field: item.text for item in settings(asked, lambda file: True)}["memory_swap_bytes"] == text


def test_swap_without_accounting_is_refused_where_there_is_swap() -> None:
    """A memory limit that swap evades is not a limit."""
    facts = v1_facts(swap_accounting=False, optional_files=(), swap_total_bytes=MB)
    assessment = assess(facts, Resources(memory_bytes=MB))
    assert list(refused(assessment)) == ["memory_swap_bytes"]
    assert holders(assessment) == {"memory": "memory.limit_in_bytes"}
    unlimited = assess(facts, Resources(memory_bytes=MB, memory_swap_bytes=-1))
    assert unlimited.refusals == ()
    assert "memory_swap" not in holders(unlimited)


def test_swap_without_accounting_is_fine_where_there_is_none() -> None:
    """Without swap on the host "no swap" holds by itself, and the limit says by what."""
    facts = v1_facts(swap_accounting=False, optional_files=(), swap_total_bytes=0)
    assessment = assess(facts, Resources(memory_bytes=MB))
    assert assessment.refusals == ()
    assert holders(assessment)["memory_swap"] == "no swap on this host"


@pytest.mark.parametrize(
    ("resources", "field", "reason"),
    [
        (Resources(memory_swap_bytes=MB), "memory_swap_bytes", "together with memory"),
        (Resources(memory_bytes=2 * MB, memory_swap_bytes=MB), "memory_swap_bytes", "cannot be less than memory"),
        (Resources(cpuset_cpus="1-2"), "cpuset_cpus", "CPUs 0-1"),
        (Resources(cpuset_mems="1"), "cpuset_mems", "memory nodes 0"),
        (Resources(cpus=99.0), "cpus", "between 0.01 and 2"),
        (Resources(cpus=0.001), "cpus", "between 0.01 and 2"),
        (Resources(device_read_bps=(dataclasses.replace(DISK, minor=1),)), "device_read_bps", "not a whole disk"),
    ],
)
def test_values_that_cannot_hold_are_refused(resources: Resources, field: str, reason: str) -> None:
    """A value that the kernel would refuse or ignore is refused before anything is made."""
    assessment = assess(v1_facts(), resources)
    assert list(refused(assessment)) == [field]
    assert reason in refused(assessment)[field]
    assert assessment.refusals[0].hint
    assert field.removesuffix("_bytes") not in holders(assessment)


def test_weight_without_a_scheduler_that_reads_it_is_refused() -> None:
    """A weight that no disk obeys is not enforced by being written."""
    assessment = assess(v1_facts(disks={"254:0": "mq-deadline"}), Resources(blkio_weight=100))
    assert "BFQ" in refused(assessment)["blkio_weight"]


@pytest.mark.parametrize(
    ("resources", "file"),
    [
        (Resources(cpus=1.0), "cpu.cfs_"),
        (Resources(blkio_weight=100), "blkio.bfq.weight"),
        (Resources(device_write_iops=(DISK,)), "blkio.throttle.write_iops_device"),
    ],
)
def test_file_that_the_kernel_lacks_is_refused(resources: Resources, file: str) -> None:
    """A kernel built without a feature has no file for it."""
    assessment = assess(v1_facts(optional_files=()), resources)
    assert len(assessment.refusals) == 1
    assert file in assessment.refusals[0].reason
    assert assessment.limits == ()


def test_missing_controller_passes_on_reason_and_remedy() -> None:
    """The refusal of a field carries what the probe found out about its controller."""
    facts = v2_facts(controllers=("memory",), refusals={"pids": "not delegated"}, remedies={"pids": "do this"})
    assessment = assess(facts, Resources(memory_bytes=MB, pids=5))
    (refusal,) = assessment.refusals
    assert (refusal.field, refusal.asked, refusal.reason, refusal.hint) == ("pids", "5", "not delegated", "do this")
    assert "memory" in holders(assessment)


@pytest.mark.parametrize("setup", ["none", "unified", "legacy", "hybrid"])
def test_host_without_controllers_refuses_every_wish(setup: Setup) -> None:
    """Nothing that was asked is silently dropped."""
    facts = CgroupFacts(setup=setup, cpus="0-1", mems="0", disks={"254:0": "bfq"}, swap_total_bytes=MB)
    assessment = assess(facts, EVERYTHING)
    asked = {field.name for field in dataclasses.fields(EVERYTHING)}
    assert asked <= set(refused(assessment))
    assert assessment.limits == ()
    assert assessment.controllers == ()


@pytest.mark.parametrize(
    ("size_bytes", "asked"), [(100 * MB, "100M"), (3 * MB // 2, "1.5M"), (100 * MB + 1, f"{100 * MB + 1}B")]
)
def test_refused_size_is_said_as_it_would_be_written(size_bytes: int, asked: str) -> None:
    """In the largest unit, or to the byte where that would be another size."""
    facts = v1_facts(controllers=(), refusals={"memory": "not delegated"})
    refusals = assess(facts, Resources(memory_bytes=size_bytes)).refusals
    assert {refusal.field: refusal.asked for refusal in refusals}["memory_bytes"] == asked


def test_nothing_asked_is_nothing_said() -> None:
    """Without wishes there is neither limit nor refusal, wherever."""
    assert assess(CgroupFacts(), Resources()) == Assessment()
    assert assess(v1_facts(), Resources()).limits == ()


def test_cpuset_is_joined_only_when_asked() -> None:
    """Each v1 hierarchy costs a move; figures need memory, cpu, cpuacct, pids and blkio."""
    assert assess(v1_facts(), Resources()).controllers == ("memory", "cpu", "cpuacct", "pids", "blkio")
    assert "cpuset" in assess(v1_facts(), Resources(cpuset_cpus="0")).controllers


def test_without_leaves_what_can_be_enforced() -> None:
    """What is refused returns to "not asked", the rest stays."""
    assessment = assess(v1_facts(), Resources(cpus=99.0, pids=7))
    assert without(Resources(cpus=99.0, pids=7), assessment.refusals) == Resources(pids=7)


def test_parse_list_reads_the_kernels_format() -> None:
    """Ranges and single numbers mix."""
    assert parse_list("0-1,4,6-7") == {0, 1, 4, 6, 7}


@pytest.mark.parametrize("asked", ["0-99999999999999", "1-0", "x", "", "0,", "-1"])
def test_cpu_list_that_makes_no_sense_is_refused(asked: str) -> None:
    """Whatever stands in the list, it is compared, never expanded, and never an exception."""
    assert list(refused(assess(v1_facts(), Resources(cpuset_cpus=asked)))) == ["cpuset_cpus"]
