/* Hosts and plugins through the C API: options, callbacks, functions lent to plugins, reload, status, metrics. */
#include "test.h"

static void expect_has(char* text, const char* part) {
  if (!text || !strstr(text, part)) {
    fprintf(stderr, "not in it: %s\n%s\n", part, text ? text : "(nothing)");
    exit(1);
  }
  bh_free(text);
}

TEST(the_version_is_that_of_the_header) {
  CHECK(bh_version() == BH_VERSION);
  CHECK(strcmp(bh_version_text(), TEST_VERSION) == 0);
}

TEST(mistakes_in_options_are_told_all_at_once) {
  bh_error* error = NULL;
  CHECK(!bh_host_new("crash_files = 0\nwroker = '/x'", NULL, &error));
  CHECK(strstr(bh_error_message(error), "options:1: crash_files is 0"));
  expect_error(&error, BH_MISUSE, "options:2: there is no key wroker");
  CHECK(!bh_host_new("= 1", NULL, &error));
  expect_error(&error, BH_MISUSE, "options:1:");
  CHECK(!bh_host_new("worker = '/nowhere'", NULL, &error));
  expect_error(&error, BH_UNAVAILABLE, "/nowhere");
  bh_callbacks unsized_callbacks = {0};
  CHECK(!bh_host_new(NULL, &unsized_callbacks, &error));
  expect_error(&error, BH_MISUSE, "sizeof(bh_callbacks)");

  bh_host* host = bh_host_new(NULL, NULL, &error);
  CHECK(host);
  CHECK(!bh_host_load(host, PLUGIN("chaos"), "instances = 0", NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "instances is 0");
  CHECK(!bh_host_load(host, PLUGIN("chaos"), "policy = { read = ['relative'] }", NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "relative");
  CHECK(!bh_host_load(host, PLUGIN("chaos"), "isolation = 'some'", NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "isolation is 'some'");
  CHECK(!bh_host_load(host, NULL, NULL, NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "file is NULL");
  CHECK(!bh_host_load(host, "/no/such.so", NULL, NULL, 0, &error));
  CHECK(bh_error_outcome(error) == BH_REJECTED || bh_error_outcome(error) == BH_UNAVAILABLE);
  bh_error_free(error);
  bh_host_free(host);
}

TEST(options_reach_the_plugin) {
  struct loaded all = load(PLUGIN("chaos"),
                           "name = 'wild'\ninstances = 2\nenvironment = ['COLOUR=red']\nmemory_limit = '512 MiB'\n"
                           "policy = { threads = 8 }\n");
  bh_error* error = NULL;
  CHECK(strcmp(bh_plugin_name(all.plugin), "wild") == 0);
  expect_text(bh_plugin_call_json(all.plugin, "environment", "[\"COLOUR\"]", NULL, &error), "\"red\"");
  expect_has(bh_plugin_status_json(all.plugin, &error), "\"state\":\"running\",\"reason\":\"\",\"serving\":2");
  expect_has(bh_plugin_info_json(all.plugin, &error), "\"name\":\"sleep_ms\",\"signature\":\"(int ms) -> int\"");
  expect_has(bh_host_metrics(all.host, &error), "plugin=\"wild\"");
  close_up(all);
}

TEST(a_plugin_in_process_is_called_the_same_way) {
  struct loaded all = load(PLUGIN("text"), "isolation = 'none'");
  bh_error* error = NULL;
  expect_has(bh_plugin_info_json(all.plugin, &error), "\"id\":\"text\"");
  CHECK(!bh_plugin_call(all.plugin, "no_such_method", NULL, 0, NULL, &error));
  expect_error(&error, BH_REJECTED, "");
  close_up(all);
}

struct heard {
  struct signal logs, deaths, events;
};

static void hear_log(void* context, bh_log_level level, const char* plugin, long pid, const char* text) {
  CHECK(level >= BH_DEBUG && level <= BH_ERROR && plugin && text && pid >= -1);
  give(&((struct heard*)context)->logs);
}

static void hear_lifecycle(void* context, const char* kind, const char* plugin, const char* json) {
  if (strcmp(kind, "exited") != 0 || !strstr(json, "\"SIGABRT\"")) return;
  CHECK(strcmp(plugin, "chaos") == 0);
  give(&((struct heard*)context)->deaths);
}

static void hear_event(void* context, const char* name, const void* value, size_t size) {
  CHECK(strcmp(name, "tick") == 0 && size == 1 && *(const char*)value == 9);
  give(&((struct heard*)context)->events);
}

TEST(logs_lifecycle_and_events_are_told) {
  struct heard heard = {0};
  const bh_callbacks callbacks = {
      .size = sizeof callbacks, .context = &heard, .on_log = hear_log, .on_lifecycle = hear_lifecycle};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, &callbacks, &error);
  CHECK(host);
  bh_plugin* chaos = bh_host_load(host, PLUGIN("chaos"), NULL, NULL, 0, &error);
  if (!chaos) fprintf(stderr, "%s\n", bh_error_message(error));
  CHECK(chaos);
  bh_plugin_on_event(chaos, hear_event, &heard);
  expect_text(bh_plugin_call_json(chaos, "emit", "[\"tick\", 9, 3]", NULL, &error), "null");
  await(&heard.events, 3);
  CHECK(!bh_plugin_call_json(chaos, "die_of", "[1]", NULL, NULL));
  await(&heard.deaths, 1);
  bh_plugin_free(chaos);
  bh_host_free(host);
}

static void twice(void* context, const void* arguments, size_t size, bh_answer* answer) {
  const unsigned char* bytes = arguments;
  if (size == 2 && bytes[0] == 0x91 && bytes[1] < 0x40) {
    const unsigned char doubled = (unsigned char)(bytes[1] * 2);
    bh_answer_value(answer, &doubled, 1);
  } else {
    bh_answer_error(answer, "twice takes one small number");
  }
  give(context);
}
static void garbage(void* context, const void* arguments, size_t size, bh_answer* answer) {
  (void)context, (void)arguments, (void)size;
  bh_answer_value(answer, "\x92\x01", 2);
}
static void silent(void* context, const void* arguments, size_t size, bh_answer* answer) {
  (void)context, (void)arguments, (void)size, (void)answer;
}

TEST(a_plugin_calls_the_functions_that_it_was_lent_and_no_others) {
  struct signal called = {0};
  const bh_function functions[] = {{"twice", twice, &called}, {"garbage", garbage, NULL}, {"silent", silent, NULL}};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, NULL, &error);
  bh_plugin* chaos = bh_host_load(host, PLUGIN("chaos"), NULL, functions, 3, &error);
  CHECK(chaos);
  expect_text(bh_plugin_call_json(chaos, "call_host", "[\"twice\", [21]]", NULL, &error), "42");
  CHECK(atomic_load(&called.count) == 1);
  expect_text(bh_plugin_call_json(chaos, "call_host", "[\"silent\", []]", NULL, &error), "null");
  CHECK(!bh_plugin_call_json(chaos, "call_host", "[\"twice\", []]", NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "twice takes one small number");
  CHECK(!bh_plugin_call_json(chaos, "call_host", "[\"garbage\", []]", NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "the answer: not one MessagePack value");
  CHECK(!bh_plugin_call_json(chaos, "call_host", "[\"thrice\", []]", NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "lends no function 'thrice'");
  bh_plugin_free(chaos);

  const bh_function reserved = {"$/twice", twice, NULL}, nameless = {NULL, twice, NULL}, empty = {"x", NULL, NULL};
  CHECK(!bh_host_load(host, PLUGIN("chaos"), NULL, &reserved, 1, &error));
  expect_error(&error, BH_MISUSE, "reserved");
  CHECK(!bh_host_load(host, PLUGIN("chaos"), NULL, &nameless, 1, &error));
  expect_error(&error, BH_MISUSE, "functions.name is NULL");
  CHECK(!bh_host_load(host, PLUGIN("chaos"), NULL, &empty, 1, &error));
  expect_error(&error, BH_MISUSE, "functions.call is NULL");
  bh_host_free(host);
}

TEST(reload_brings_the_new_version_and_the_state_along) {
  struct loaded all = load(PLUGIN("counter"), "state = { keep = true, every = 0 }");
  bh_error* error = NULL;
  expect_text(bh_plugin_call_json(all.plugin, "add", "[5]", NULL, &error), "5");
  CHECK(bh_plugin_reload(all.plugin, PLUGIN("counter_2"), &error) == 1);
  expect_text(bh_plugin_call_json(all.plugin, "version", "[]", NULL, &error), "2");
  expect_text(bh_plugin_call_json(all.plugin, "total", NULL, NULL, &error), "5");
  size_t size = 0;
  void* state = bh_plugin_save_state(all.plugin, &size, &error);
  CHECK(state && size > 0);
  bh_free(state);
  CHECK(bh_plugin_reload(all.plugin, "/no/such.so", &error) == 0);
  CHECK(bh_error_outcome(error) != BH_OK);
  bh_error_free(error);
  error = NULL;
  CHECK(bh_plugin_recycle(all.plugin, &error) == 1);
  CHECK(bh_plugin_reset(all.plugin, &error) == 1);
  expect_text(bh_plugin_call_json(all.plugin, "total", NULL, NULL, &error), "5");
  bh_plugin_unload(all.plugin);
  CHECK(!bh_plugin_call_json(all.plugin, "total", NULL, NULL, &error));
  expect_error(&error, BH_UNAVAILABLE, "");
  CHECK(bh_plugin_reset(all.plugin, &error) == 0);
  expect_error(&error, BH_UNAVAILABLE, "");
  close_up(all);
}
