/* Hosts and plugins over their lives, through the C API: programs launched as workers, denials, resets, shutdown. */
#include "test.h"

#include <glob.h>
#include <threads.h>

#include <signal.h>

static void answer_42(void* context, const void* arguments, size_t size, bh_answer* answer) {
  (void)context, (void)arguments, (void)size;
  bh_answer_value(answer, "\x2a", 1);
}

TEST(a_program_that_speaks_the_protocol_is_launched) {
  const char* const argv[] = {"/usr/bin/python3", TEST_PEER, NULL};
  const bh_function lent = {"ask", answer_42, NULL};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, NULL, &error);
  bh_plugin* peer = bh_host_launch(host, argv, "name = 'peer'\nstart_timeout = '60s'", &lent, 1, &error);
  if (!peer) fprintf(stderr, "%s\n", bh_error_message(error));
  CHECK(peer && strcmp(bh_plugin_name(peer), "peer") == 0);
  bh_reply* reply = bh_plugin_call(peer, "upper", BYTES("\x91\xa2hi"), NULL, &error);
  expect_text(bh_reply_json(reply, &error), "\"HI\"");
  bh_reply_free(reply);
  reply = bh_plugin_call(peer, "relay",
                         BYTES("\x92\xa3"
                               "ask\x01"),
                         NULL, &error);
  expect_text(bh_reply_json(reply, &error), "42");
  bh_reply_free(reply);
  bh_plugin_free(peer);

  const char *const none[] = {NULL}, *const fails[] = {"/bin/false", NULL};
  CHECK(!bh_host_launch(host, none, NULL, NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "argv is empty");
  CHECK(!bh_host_launch(host, NULL, NULL, NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "argv is NULL");
  CHECK(!bh_host_launch(host, fails, NULL, NULL, 0, &error));
  expect_error(&error, BH_UNAVAILABLE, "exited with status 1");
  bh_host_free(host);
}

static void hear_violation(void* context, const char* plugin, const char* json) {
  if (!strstr(json, "\"system_call\":\"socket\"")) return;
  CHECK(strcmp(plugin, "guest") == 0 && strstr(json, "\"method\":\"connect_to\"") &&
        strstr(json, "\"result\":\"EPERM\"") && strstr(json, "\"grant\":\"connect:PORT\""));
  give(context);
}

TEST(what_a_sandbox_denies_is_told) {
  struct signal denied = {0};
  const bh_callbacks callbacks = {.size = sizeof callbacks, .context = &denied, .on_violation = hear_violation};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, &callbacks, &error);
  bh_plugin* guest = bh_host_load(host, PLUGIN("guest"), NULL, NULL, 0, &error);
  CHECK(guest);
  CHECK(!bh_plugin_call_json(guest, "connect_to", "[443, false]", NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "");
  await(&denied, 1);
  bh_plugin_free(guest);
  bh_host_free(host);
}

TEST(a_plugin_that_was_given_up_serves_again_after_a_reset) {
  struct loaded all = load(PLUGIN("chaos"), "supervision = { intensity = { restarts = 0, period = '60s' } }");
  bh_error* error = NULL;
  CHECK(!bh_plugin_call_json(all.plugin, "die_of", "[1]", NULL, &error));
  expect_error(&error, BH_WORKER_LOST, "");
  CHECK(!bh_plugin_call_json(all.plugin, "echo", "[1]", NULL, &error));
  expect_error(&error, BH_UNAVAILABLE, "more than 0 restarts");
  CHECK(bh_plugin_reset(all.plugin, &error) == 1);
  expect_text(bh_plugin_call_json(all.plugin, "echo", "[1]", NULL, &error), "1");
  close_up(all);
}

/* The child that this process has, other than `gone`, waiting for it: with no plugin loaded, the fork server. */
static pid_t fork_server_after(pid_t gone) {
  for (;; thrd_yield()) {
    glob_t lists;
    int found = 0;
    if (glob("/proc/self/task/*/children", 0, NULL, &lists) != 0) continue;
    for (size_t i = 0; i < lists.gl_pathc; ++i) {
      FILE* list = fopen(lists.gl_pathv[i], "r");
      if (!list) continue; /* the thread has ended */
      for (int pid = 0; fscanf(list, "%d", &pid) == 1;)
        if (pid != gone) found = pid;
      fclose(list);
    }
    globfree(&lists);
    if (found) return found;
  }
}

static void hear_fork_server(void* context, const char* kind, const char* plugin, const char* json) {
  (void)plugin, (void)json;
  if (strncmp(kind, "fork server ", 12) == 0) give(context);
}

TEST(a_host_whose_fork_server_was_given_up_serves_again_after_a_reset) {
  struct signal deaths = {0};
  const bh_callbacks callbacks = {.size = sizeof callbacks, .context = &deaths, .on_lifecycle = hear_fork_server};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, &callbacks, &error);
  CHECK(host);
  pid_t server = 0;
  for (int count = 1; count <= 3; ++count) {
    server = fork_server_after(server);
    CHECK(kill(server, SIGKILL) == 0);
    await(&deaths, count);
  }
  CHECK(!bh_host_load(host, PLUGIN("chaos"), NULL, NULL, 0, &error));
  expect_error(&error, BH_UNAVAILABLE, "died 3 times");
  bh_host_reset(host);
  bh_plugin* chaos = bh_host_load(host, PLUGIN("chaos"), NULL, NULL, 0, &error);
  expect_text(bh_plugin_call_json(chaos, "echo", "[1]", NULL, &error), "1");
  bh_plugin_free(chaos);
  bh_host_free(host);
  bh_host_reset(NULL);
}

struct story {
  struct signal told, ended;
  bh_error* error;
};

static void hear_all(void* context, const char* kind, const char* plugin, const char* json) {
  (void)kind, (void)plugin, (void)json;
  give(&((struct story*)context)->told);
}

static void tell_end(void* context, bh_reply* reply, bh_error* error) {
  CHECK(!reply);
  struct story* story = context;
  story->error = error;
  give(&story->ended);
}

TEST(a_shutdown_ends_calls_and_callbacks_and_leaves_handles) {
  struct story story = {0};
  const bh_callbacks callbacks = {.size = sizeof callbacks, .context = &story, .on_lifecycle = hear_all};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, &callbacks, &error);
  bh_plugin* chaos =
      bh_host_load(host, PLUGIN("chaos"), "supervision = { drain = { calls = '10ms' } }", NULL, 0, &error);
  CHECK(chaos);
  CHECK(bh_plugin_call_async(chaos, "sleep_ms", BYTES("\x91\xce\x00\x01\x00\x00"), NULL, tell_end, &story, &error));
  bh_host_shutdown(host);
  CHECK(atomic_load(&story.ended.count) == 1 && story.error);
  bh_error_free(story.error);
  const int told = atomic_load(&story.told.count);
  CHECK(told > 0);

  CHECK(!bh_plugin_call_json(chaos, "echo", "[1]", NULL, &error));
  expect_error(&error, BH_UNAVAILABLE, "");
  CHECK(!bh_host_load(host, PLUGIN("chaos"), NULL, NULL, 0, &error));
  expect_error(&error, BH_UNAVAILABLE, "shut down");
  bh_host_shutdown(host), bh_host_shutdown(NULL);
  bh_host_free(host);
  CHECK(atomic_load(&story.told.count) == told);
  CHECK(strcmp(bh_plugin_name(chaos), "chaos") == 0);
  bh_plugin_free(chaos);
}
