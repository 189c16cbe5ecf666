/* A program that tries to break out, for the tests of spawn(): makes each attempt of the suite that a plugin makes, too,
 * and prints those that got somewhere, a line each. Arguments: the facts, in their order. */
#include "plugin/attempts.h"

#include <stdio.h>
#include <stdlib.h>

struct escape_facts escape_facts;

static void make_all(struct escape_list list) {
  for (size_t i = 0; i < list.count; ++i) {
    if (list.first[i].run(list.first[i].detail) < 0) continue;
    printf("%s: %s\n", list.first[i].family, list.first[i].name);
    fflush(stdout); /* before the next one forks */
  }
}

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  escape_facts.host_pid = atoi(argv[1]);
  escape_facts.fork_server_pid = atoi(argv[2]);
  escape_facts.sibling_pid = atoi(argv[3]);
  escape_facts.port = atoi(argv[4]);
  snprintf(escape_facts.abstract, sizeof escape_facts.abstract, "%s", argv[5]);
  snprintf(escape_facts.secret, sizeof escape_facts.secret, "%s", argv[6]);
  snprintf(escape_facts.target, sizeof escape_facts.target, "%s", argv[7]);
  make_all(escape_files());
  make_all(escape_descriptors());
  make_all(escape_network());
  make_all(escape_processes());
  make_all(escape_kernel());
  make_all(escape_memory());
  return 0;
}
