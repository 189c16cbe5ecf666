// Where a process is in the cgroup hierarchies, and what that leaves it of the CPUs: read from files as Linux has them.
#include "sandbox/own_cgroup.hpp"

#include "machine.hpp"
#include "usable_cpus.hpp"

#include <catch2/catch.hpp>

namespace bulkhead::testing {
namespace {

std::optional<double> quota(const machine& of) { return sandbox::cpu_quota(of.root); }

}  // namespace

TEST_CASE("without cgroups CPU time is not limited") {
  const machine none;
  CHECK_FALSE(quota(none));
  none.put("proc/self/mountinfo", mount_of_proc);
  none.put("proc/self/cgroup", "0::/\n");
  CHECK_FALSE(quota(none));
}

TEST_CASE("version 2: the least limit of a cgroup and those above it counts") {
  const machine m;
  m.put("proc/self/mountinfo",
        mount_of_proc + "30 22 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  m.put("proc/self/cgroup", "0::/app.slice/host.service\n");
  const std::string above = "sys/fs/cgroup/app.slice/", own = above + "host.service/";
  CHECK_FALSE(quota(m));
  m.put(above + "cpu.max", "max 100000\n");
  m.put(own + "cpu.max", "max 100000\n");
  CHECK_FALSE(quota(m));
  m.put(own + "cpu.max", "150000 100000\n");
  CHECK(quota(m) == 1.5);
  m.put(above + "cpu.max", "25000 50000\n");
  CHECK(quota(m) == 0.5);
  m.put("sys/fs/cgroup/other/cpu.max", "1000 100000\n");
  CHECK(quota(m) == 0.5);
  m.put(above + "cpu.max", "\n");
  m.put(own + "cpu.max", "many 0\n");
  CHECK_FALSE(quota(m));
}

TEST_CASE("version 2: a container sees its own cgroup alone, by its name outside or as the root") {
  const machine m;
  const bool named = GENERATE(true, false);
  m.put("proc/self/mountinfo",
        mount_of_proc + "30 22 0:26 " + (named ? "/docker/1f" : "/") + " /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  m.put("proc/self/cgroup", named ? "0::/docker/1f\n" : "0::/\n");
  m.put("sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(quota(m) == 0.5);
}

TEST_CASE("version 1: the quota is of the hierarchy with the cpu controller, beside an empty version 2") {
  const machine m;
  m.put("proc/self/mountinfo", mount_of_proc +
                                   "31 22 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
                                   "32 22 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                                   "33 22 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  m.put("proc/self/cgroup", "4:cpuset:/elsewhere\n3:cpu,cpuacct:/batch/one\n0::/init\n");
  const std::string above = "sys/fs/cgroup/cpu,cpuacct/batch/", own = above + "one/";
  m.put(own + "cpu.cfs_quota_us", "-1\n");
  m.put(own + "cpu.cfs_period_us", "100000\n");
  m.put("sys/fs/cgroup/cpuset/elsewhere/cpu.cfs_quota_us", "1000\n");
  m.put("sys/fs/cgroup/cpuset/elsewhere/cpu.cfs_period_us", "100000\n");
  CHECK_FALSE(quota(m));
  m.put(above + "cpu.cfs_quota_us", "75000\n");
  m.put(above + "cpu.cfs_period_us", "100000\n");
  CHECK(quota(m) == 0.75);
  m.put(own + "cpu.cfs_quota_us", "50000\n");
  CHECK(quota(m) == 0.5);
}

TEST_CASE("nobody spins with less than two CPUs' time for a host and its workers, or less than one for a worker") {
  const machine m;
  m.put("proc/self/mountinfo", mount_of_proc + "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  m.put("proc/self/cgroup", "0::/host.service\n");
  const auto limited_to = [&](const std::string& cpu_max) {
    m.put("sys/fs/cgroup/host.service/cpu.max", cpu_max + "\n");
    return quota(m);
  };
  CHECK(may_spin(limited_to("max 100000"), 0));
  CHECK(may_spin(limited_to("200000 100000"), 0));
  CHECK_FALSE(may_spin(limited_to("199000 100000"), 0));
  CHECK_FALSE(may_spin(limited_to("50000 100000"), 0));
  CHECK_FALSE(may_spin(limited_to("50000 100000"), 1000));
  CHECK(may_spin(limited_to("max 100000"), 1000));
  CHECK_FALSE(may_spin(limited_to("max 100000"), 999));
}

}  // namespace bulkhead::testing
