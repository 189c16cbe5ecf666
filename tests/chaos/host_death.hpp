// Kills hosts, and looks at what is left of them.
#pragma once

namespace chaos {

// Starts a host with workers in calls and kills it with SIGKILL, `times` times; and a quarter as often one that is still
// starting its workers. Prints what it found; the exit code.
int kill_hosts(unsigned times, unsigned long seed, bool json);

// The host to be killed: says "ready" on its standard output when all its workers are in a call.
int be_killed();

}  // namespace chaos
