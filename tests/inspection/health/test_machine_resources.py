import pytest

from edgeseg.inspection.health.resources import (
    ControlGroup,
    check_cores,
    check_memory,
    read_control_group,
    usable_cores,
)

FREE = ControlGroup(None, None)


def written(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_limits_of_the_new_interface_are_the_tightest_of_all_groups_above(tmp_path):
    groups = written(tmp_path / "groups", cpu__max="max 100000\n", memory__max="max\n")
    written(groups / "docker", cpu__max="150000 100000\n", memory__max="4000000000\n")
    written(groups / "docker/a", cpu__max="400000 100000\n", memory__max="5000000000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/docker/a\n")

    assert read_control_group(groups, membership) == ControlGroup(1.5, 4_000_000_000)


def test_limits_of_the_old_interface_are_read_by_controller(tmp_path):
    groups = tmp_path / "groups"
    written(groups / "cpu,cpuacct/x", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    written(groups / "memory/x", memory__limit_in_bytes="2000000000")
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/x\n2:cpu,cpuacct:/x\n")

    # `cpu__cfs_quota_us` is the file cpu.cfs_quota_us
    assert read_control_group(groups, membership) == ControlGroup(0.5, 2_000_000_000)


@pytest.mark.parametrize("quota", ["-1", "max", "", "nonsense"])
def test_no_limit_and_no_file_are_no_limit(tmp_path, quota):
    groups = written(tmp_path / "groups" / "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="1")
    written(tmp_path / "groups" / "memory", memory__limit_in_bytes=str(2**63 - 4096))

    found = read_control_group(groups.parent, tmp_path / "missing")

    assert found == FREE
    assert read_control_group(tmp_path / "none", tmp_path / "missing") == FREE


def test_cores_are_those_of_the_affinity():
    assert check_cores(2, 8, FREE).found.startswith("2 of 8 (")
    assert check_cores(8, 8, FREE).found.startswith("8 (")
    assert check_cores(2, 8, ControlGroup(2.0, None)).status == "ok"


def test_fewer_cores_than_threads_is_a_warning_with_the_number_of_threads():
    found = check_cores(8, 8, ControlGroup(2.5, None))

    assert found.status == "warning"
    assert "the time of 2.5 cores at most" in found.found
    assert found.advice.endswith("set OMP_NUM_THREADS=2")
    assert "OMP_NUM_THREADS=1" in check_cores(8, 8, ControlGroup(0.3, None)).advice


def test_this_machine_has_cores():
    affinity, total = usable_cores()

    assert 1 <= affinity <= total


def test_memory_is_told_with_what_is_free(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  16000000 kB\nMemAvailable: 4000000 kB\nHugePages_Total: 0\n")

    found = check_memory(info, FREE)

    # 16,000,000 * 1024 bytes = 16.4 GB, 4,000,000 * 1024 = 4.1 GB
    assert (found.status, found.found) == ("ok", "16.4 GB, 4.1 GB free")


def test_a_container_limits_what_is_free(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 16000000 kB\nMemAvailable: 4000000 kB\n")

    found = check_memory(info, ControlGroup(None, 500_000_000))

    assert found.status == "warning"  # less than 1 GB
    assert found.found == "16.4 GB, of which the container may use 0.5 GB, 0.5 GB free"


def test_elsewhere_the_size_alone_is_told(tmp_path):
    found = check_memory(tmp_path / "missing", FREE)

    assert found.status in ("ok", "warning")
    assert "free" not in found.found
