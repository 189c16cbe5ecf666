/* Runs the tests named on the command line; and what they have in common. */
#include "test.h"

#include <threads.h>

#define X(name) TEST(name);
ALL_TESTS
#undef X

#define X(name) {#name, test_##name},
static const struct {
  const char* name;
  void (*run)(void);
} tests[] = {ALL_TESTS};
#undef X

struct loaded load(const char* file, const char* options) {
  struct loaded all = {NULL, NULL};
  bh_error* error = NULL;
  all.host = bh_host_new(NULL, NULL, &error);
  if (all.host) all.plugin = bh_host_load(all.host, file, options, NULL, 0, &error);
  if (error) fprintf(stderr, "%s\n", bh_error_message(error));
  CHECK(all.plugin);
  return all;
}

void close_up(struct loaded all) {
  bh_plugin_free(all.plugin);
  bh_host_free(all.host);
}

void expect_error(bh_error** error, bh_outcome outcome, const char* words) {
  CHECK(*error);
  if (bh_error_outcome(*error) != outcome || !strstr(bh_error_message(*error), words)) {
    fprintf(stderr, "got %s: %s\nwanted %s: ...%s...\n", bh_outcome_name(bh_error_outcome(*error)),
            bh_error_message(*error), bh_outcome_name(outcome), words);
    exit(1);
  }
  bh_error_free(*error);
  *error = NULL;
}

void expect_text(char* got, const char* wanted) {
  if (!got || strcmp(got, wanted) != 0) {
    fprintf(stderr, "got %s\nwanted %s\n", got ? got : "nothing", wanted);
    exit(1);
  }
  bh_free(got);
}

void give(struct signal* what) { atomic_fetch_add(&what->count, 1); }
void await(struct signal* what, int count) {
  while (atomic_load(&what->count) < count) thrd_yield();
}

int main(int argc, char** argv) {
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    bool found = false;
    for (size_t t = 0; t < sizeof tests / sizeof tests[0]; ++t) {
      if (strcmp(tests[t].name, argv[i]) != 0) continue;
      found = true;
      tests[t].run();
    }
    if (!found) fprintf(stderr, "there is no test %s\n", argv[i]), failed = 1;
  }
  return failed;
}
