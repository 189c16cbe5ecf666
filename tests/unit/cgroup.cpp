// What is written to the files of workers' cgroups, in both versions: into plain files, which take the place of a kernel's.
#include "sandbox/cgroup.hpp"

#include "machine.hpp"

#include <catch2/catch.hpp>

namespace bulkhead::testing {
namespace {

policy::values limited() { return policy{}.memory_limit(std::size_t{256} << 20).cpus(0.25).threads(7).granted(); }

const std::string own_pid = std::to_string(::getpid());
const std::string bytes = std::to_string(std::size_t{256} << 20);

void have_unified(const machine& m, const std::string& directory, bool swap = true) {
  for (const char* file : {"memory.max", "memory.oom.group", "cpu.max", "pids.max", "cgroup.procs"})
    m.put(directory + "/" + file, "");
  if (swap) m.put(directory + "/memory.swap.max", "");
}

// A cgroup of version 2 that is delegated, and the first that this process will make in there.
std::string delegate(const machine& m, const std::string& base) {
  m.put(base + "/cgroup.controllers", "cpuset cpu io memory pids\n");
  m.put(base + "/cgroup.subtree_control", "cpu memory pids\n");
  return base + "/bulkhead-" + own_pid + "-0";
}

}  // namespace

TEST_CASE("version 2: memory and swap, processes and CPU time are limited, and the kernel kills as a group") {
  const machine m;
  const std::string made = delegate(m, "base");
  have_unified(m, made);
  sandbox::cgroup_maker maker(m.root / "base");
  sandbox_layer layer;
  const auto cgroup = maker.make(limited(), layer);
  INFO(layer.detail);
  REQUIRE(cgroup);
  CHECK(layer.in_force);
  CHECK(layer.detail == "version 2, memory 256 MiB, processes 7, CPUs 0.250");
  CHECK(m.get(made + "/memory.max") == bytes);
  CHECK(m.get(made + "/memory.swap.max") == "0");
  CHECK(m.get(made + "/memory.oom.group") == "1");
  CHECK(m.get(made + "/cpu.max") == "25000 100000");
  CHECK(m.get(made + "/pids.max") == "7");
  cgroup->add(12345);
  CHECK(m.get(made + "/cgroup.procs") == "12345");
  CHECK(cgroup->doors().size() == 1);
  CHECK_FALSE(cgroup->ran_out_of_memory());
  m.put(made + "/memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n");
  CHECK(cgroup->ran_out_of_memory());
}

TEST_CASE("version 2: what is not asked for is not limited, and a kernel that counts no swap is told of") {
  const machine m;
  const std::string made = delegate(m, "base");
  have_unified(m, made, false);
  sandbox::cgroup_maker maker(m.root / "base");
  sandbox_layer layer;
  REQUIRE(maker.make(policy{}.memory_limit(std::size_t{256} << 20).threads(0).granted(), layer));
  CHECK(layer.detail == "version 2, memory 256 MiB (swap is not counted)");
  CHECK(m.get(made + "/memory.max") == bytes);
  CHECK(m.get(made + "/cpu.max").empty());
  CHECK(m.get(made + "/pids.max").empty());
}

TEST_CASE("version 2: controllers are switched on for the children, and one that is not delegated is named") {
  const machine m;
  const std::string made = delegate(m, "base");
  have_unified(m, made);
  m.put("base/cgroup.subtree_control", "memory pids\n");
  sandbox_layer layer;
  CHECK(sandbox::cgroup_maker(m.root / "base").make(limited(), layer));
  CHECK(m.get("base/cgroup.subtree_control").starts_with("+cpu"));
  m.put("base/cgroup.controllers", "memory pids\n");
  CHECK_FALSE(sandbox::cgroup_maker(m.root / "base").make(limited(), layer));
  CHECK_FALSE(layer.in_force);
  CHECK(layer.detail.find("the controller cpu is not there") == 0);
  CHECK(layer.detail.find("Delegate=yes") != std::string::npos);
}

TEST_CASE("version 1: each controller has its own directory, and swap is limited together with memory") {
  const machine m;
  const std::string memory = "memory/one/", pids = "pids/one/", cpu = "cpu/one/";
  m.put(memory + "memory.limit_in_bytes", "");
  m.put(memory + "memory.memsw.limit_in_bytes", "");
  m.put(cpu + "cpu.cfs_period_us", "");
  m.put(cpu + "cpu.cfs_quota_us", "");
  m.put(pids + "pids.max", "");
  for (const std::string& each : {memory, pids, cpu}) m.put(each + "cgroup.procs", "");
  sandbox::cgroup cgroup(false, {{"memory", m.root / memory}, {"pids", m.root / pids}, {"cpu", m.root / cpu}});
  CHECK(cgroup.limit(limited()));
  CHECK(m.get(memory + "memory.limit_in_bytes") == bytes);
  CHECK(m.get(memory + "memory.memsw.limit_in_bytes") == bytes);
  CHECK(m.get(cpu + "cpu.cfs_period_us") == "100000");
  CHECK(m.get(cpu + "cpu.cfs_quota_us") == "25000");
  CHECK(m.get(pids + "pids.max") == "7");
  cgroup.add(12345);
  for (const std::string& each : {memory, pids, cpu}) CHECK(m.get(each + "cgroup.procs") == "12345");
  CHECK(cgroup.doors().size() == 3);
  m.put(memory + "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
  CHECK_FALSE(cgroup.ran_out_of_memory());
  m.put(memory + "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
  CHECK(cgroup.ran_out_of_memory());
  std::filesystem::remove(m.root / (memory + "memory.memsw.limit_in_bytes"));
  CHECK_FALSE(cgroup.limit(limited()));
}

TEST_CASE(
    "version 2: a process alone in its delegated cgroup moves into a leaf, so that others can be made beside it") {
  const machine m;
  m.put("proc/self/mountinfo", mount_of_proc + "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  m.put("proc/self/cgroup", "0::/bulkhead.service\n");
  const std::string own = "sys/fs/cgroup/bulkhead.service", leaf = own + "/host/cgroup.procs";
  m.put(leaf, "");
  const auto vacated = [&](const std::string& controllers, const std::string& members) {
    m.put(own + "/cgroup.controllers", controllers);
    m.put(own + "/cgroup.procs", members);
    return sandbox::vacate_own_cgroup(m.root);
  };
  CHECK(vacated("memory pids\n", own_pid + "\n").empty());              // not delegated in full
  CHECK(vacated("cpu memory pids\n", own_pid + "\n" + "1\n").empty());  // a shell's, for one
  CHECK(m.get(leaf).empty());
  CHECK(vacated("cpu memory pids\n", own_pid + "\n") == m.root / own);
  CHECK(m.get(leaf) == own_pid);
}

TEST_CASE("nothing moves where cgroups are of version 1 or not to be had") {
  const machine m;
  CHECK(sandbox::vacate_own_cgroup(m.root).empty());
  m.put("proc/self/mountinfo", mount_of_proc + "32 22 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  m.put("proc/self/cgroup", "2:memory:/\n0::/\n");
  CHECK(sandbox::vacate_own_cgroup(m.root).empty());
}

}  // namespace bulkhead::testing
