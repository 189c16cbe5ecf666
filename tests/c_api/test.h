/* The least of a test framework for C: TEST(name) { ... } with CHECKs, which end the test when they fail. */
#ifndef BULKHEAD_C_API_TEST_H
#define BULKHEAD_C_API_TEST_H

#include <bulkhead/host.h>

#include <stdatomic.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEST(name) void test_##name(void)

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

#define PLUGIN(name) BULKHEAD_TEST_PLUGINS "/" name ".so"

/* A string literal of MessagePack bytes, as two arguments. */
#define BYTES(literal) literal, sizeof(literal) - 1

/* A host and one plugin; both are to be there, and are freed by close_up(). */
struct loaded {
  bh_host* host;
  bh_plugin* plugin;
};
struct loaded load(const char* file, const char* options);
void close_up(struct loaded all);

/* The error is of this outcome and its text has these words; frees it and sets it to NULL. */
void expect_error(bh_error** error, bh_outcome outcome, const char* words);
/* The text is this one; frees it. */
void expect_text(char* got, const char* wanted);

/* Something that one thread waits for and another does. */
struct signal {
  atomic_int count;
};
void give(struct signal* what);
void await(struct signal* what, int count);

#endif
