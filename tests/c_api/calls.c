/* Calls through the C API: results, every way to fail, cancelling, progress, handles, asynchronous ones. */
#include "test.h"

#include <fcntl.h>
#include <unistd.h>

TEST(a_call_gives_its_result_as_messagepack) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  bh_reply* reply = bh_plugin_call(all.plugin, "echo", BYTES("\x91\xa2hi"), NULL, &error);
  CHECK(reply && !error);
  size_t size = 0;
  const void* value = bh_reply_value(reply, &size);
  CHECK(size == 3 && memcmp(value, "\xa2hi", 3) == 0);
  expect_text(bh_reply_json(reply, &error), "\"hi\"");
  CHECK(bh_reply_handle_count(reply) == 0 && bh_reply_handle(reply, 0) == -1);
  bh_reply_free(reply);
  reply = bh_plugin_call(all.plugin, "echo", BYTES("\x91\x81\xa1k\x92\x91\x01\x80"), NULL, &error);
  expect_text(bh_reply_json(reply, &error), "{\"k\":[[1],{}]}");
  bh_reply_free(reply);
  close_up(all);
}

TEST(json_arguments_become_what_the_signature_says) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  expect_text(
      bh_plugin_call_json(all.plugin, "echo", "[{\"a\": [1, -2.5, null, true, {\"$bin\": \"AP8=\"}]}]", NULL, &error),
      "{\"a\":[1,-2.5,null,true,{\"$bin\":\"AP8=\"}]}");
  expect_text(bh_plugin_call_json(all.plugin, "sleep_ms", "[0]", NULL, &error), "0");
  CHECK(!bh_plugin_call_json(all.plugin, "sleep_ms", "[\"long\"]", NULL, &error));
  expect_error(&error, BH_REJECTED, "argument 1 of 'sleep_ms': expected int, got str");
  CHECK(!bh_plugin_call_json(all.plugin, "echo", "{}", NULL, &error));
  expect_error(&error, BH_MISUSE, "arguments: not a JSON array");
  CHECK(!bh_plugin_call_json(all.plugin, "echo", "[1", NULL, &error));
  expect_error(&error, BH_MISUSE, "arguments: not JSON");
  /* A text must not open files, whatever the signature says. */
  CHECK(!bh_plugin_call_json(all.plugin, "read_handle", "[\"@/etc/passwd\"]", NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "expected handle, got str");
  close_up(all);
}

TEST(json_that_is_nested_without_end_is_refused) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  const size_t depth = 1000000;
  char* deep = malloc(depth + 1);
  memset(deep, '[', depth);
  deep[depth] = 0;
  bh_error* error = NULL;
  size_t size = 0;
  CHECK(!bh_plugin_call_json(all.plugin, "echo", deep, NULL, &error));
  expect_error(&error, BH_MISUSE, "nested too deep");
  CHECK(!bh_from_json(deep, &size, &error));
  expect_error(&error, BH_MISUSE, "nested too deep");
  memset(deep, 0x91, depth);
  CHECK(!bh_to_json(deep, depth, &error));
  expect_error(&error, BH_MISUSE, "not one MessagePack value");
  free(deep);
  close_up(all);
}

TEST(each_failure_has_its_outcome_and_a_crash_its_report) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  CHECK(!bh_plugin_call(all.plugin, "no_such_method", NULL, 0, NULL, &error));
  expect_error(&error, BH_REJECTED, "no_such_method");
  CHECK(!bh_plugin_call(all.plugin, "echo", NULL, 0, NULL, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "echo");

  CHECK(!bh_plugin_call(all.plugin, "misbehave", BYTES("\x91\xa7segfault"), NULL, NULL));
  CHECK(!bh_plugin_call_json(all.plugin, "die_of", "[1]", NULL, &error));
  const char* report = bh_error_report_json(error);
  CHECK(report && strstr(report, "\"SIGABRT\"") && strstr(report, "\"method\": \"die_of\""));
  expect_error(&error, BH_WORKER_LOST, "SIGABRT");

  CHECK(bh_error_outcome(NULL) == BH_OK && strcmp(bh_error_message(NULL), "") == 0 && !bh_error_report_json(NULL));
  CHECK(strcmp(bh_outcome_name(BH_WORKER_LOST), "worker_lost") == 0);
  CHECK(strcmp(bh_outcome_name(BH_MISUSE), "misuse") == 0);
  CHECK(strcmp(bh_outcome_name((bh_outcome)55), "unknown") == 0);
  close_up(all);
}

TEST(details_that_a_plugin_gives_with_an_error_are_a_value) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  size_t size = 1;
  CHECK(!bh_plugin_call(all.plugin, "fail_with",
                        BYTES("\x92\xa3"
                              "bad\x81\xa4"
                              "code\x07"),
                        NULL, &error));
  const void* data = bh_error_data(error, &size);
  CHECK(size == 7 && memcmp(data,
                            "\x81\xa4"
                            "code\x07",
                            7) == 0);
  expect_error(&error, BH_PLUGIN_ERROR, "bad");
  CHECK(!bh_plugin_call(all.plugin, "echo", NULL, 0, NULL, &error));
  CHECK(!bh_error_data(error, &size) && size == 0);
  CHECK(!bh_error_data(NULL, &size) && size == 0);
  bh_error_free(error);
  close_up(all);
}

TEST(misuse_is_told_and_never_sent) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  CHECK(!bh_plugin_call(NULL, "echo", NULL, 0, NULL, &error));
  expect_error(&error, BH_MISUSE, "plugin is NULL");
  CHECK(!bh_plugin_call(all.plugin, NULL, NULL, 0, NULL, &error));
  expect_error(&error, BH_MISUSE, "method is NULL");
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x91"), NULL, &error));
  expect_error(&error, BH_MISUSE, "arguments: not one MessagePack array");
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x91\x01\x01"), NULL, &error));
  expect_error(&error, BH_MISUSE, "arguments: not one MessagePack array");
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x01"), NULL, &error));
  expect_error(&error, BH_MISUSE, "arguments: not one MessagePack array");
  bh_call_options options = {.deadline_ms = 5}; /* no size */
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x91\x01"), &options, &error));
  expect_error(&error, BH_MISUSE, "sizeof(bh_call_options)");
  options.size = sizeof options;
  options.deadline_ms = -5;
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x91\x01"), &options, &error));
  expect_error(&error, BH_MISUSE, "deadline_ms is negative");
  const int none = -1;
  bh_call_options with_handle = {.size = sizeof with_handle, .handles = &none, .handle_count = 1};
  CHECK(!bh_plugin_call(all.plugin, "read_handle", BYTES("\x91\xd4\x01\x00"), &with_handle, &error));
  expect_error(&error, BH_MISUSE, "options.handles[0]");
  /* And NULL in place of anything else is harmless. */
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x01"), NULL, NULL));
  bh_free(NULL), bh_error_free(NULL), bh_reply_free(NULL), bh_cancel_free(NULL), bh_stream_free(NULL);
  bh_plugin_free(NULL), bh_host_free(NULL), bh_cancel_request(NULL), bh_stream_cancel(NULL), bh_plugin_unload(NULL);
  close_up(all);
}

TEST(a_deadline_ends_a_call) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  const bh_call_options options = {.size = sizeof options, .deadline_ms = 50};
  CHECK(!bh_plugin_call_json(all.plugin, "sleep_ms", "[60000]", &options, &error));
  expect_error(&error, BH_TIMEOUT, "");
  const bh_call_options endless = {.size = sizeof endless, .deadline_ms = BH_NO_DEADLINE};
  expect_text(bh_plugin_call_json(all.plugin, "sleep_ms", "[1]", &endless, &error), "1");
  close_up(all);
}

struct ending {
  bh_reply* reply;
  bh_error* error;
  struct signal ended;
  int ended_fd;
};

static void note_end(void* context, bh_reply* reply, bh_error* error) {
  struct ending* end = context;
  end->reply = reply;
  end->error = error;
  give(&end->ended);
}

TEST(an_asynchronous_call_is_told_of_once_and_can_be_cancelled) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  bh_error* error = NULL;
  struct ending good = {0}, cancelled = {0};
  CHECK(bh_plugin_call_async(all.plugin, "echo", BYTES("\x91\x07"), NULL, note_end, &good, &error));
  await(&good.ended, 1);
  expect_text(bh_reply_json(good.reply, &error), "7");
  CHECK(!good.error);

  bh_cancel* cancel = bh_cancel_new();
  const bh_call_options options = {.size = sizeof options, .cancel = cancel};
  CHECK(bh_plugin_call_async(all.plugin, "sleep_ms", BYTES("\x91\xce\x00\x01\x00\x00"), &options, note_end, &cancelled,
                             &error));
  bh_cancel_request(cancel);
  bh_cancel_free(cancel);
  await(&cancelled.ended, 1);
  CHECK(!cancelled.reply);
  expect_error(&cancelled.error, BH_CANCELLED, "");

  CHECK(!bh_plugin_call_async(all.plugin, "echo", BYTES("\x91\x07"), NULL, NULL, NULL, &error));
  expect_error(&error, BH_MISUSE, "done is NULL");
  bh_reply_free(good.reply);
  close_up(all);
  CHECK(atomic_load(&good.ended.count) == 1 && atomic_load(&cancelled.ended.count) == 1);
}

TEST(calls_in_progress_when_the_host_goes_are_told_of) {
  struct loaded all = load(PLUGIN("chaos"), "[supervision.drain]\ncalls = '10ms'");
  enum { count = 20 };
  static struct ending ends[count];
  for (int i = 0; i < count; ++i)
    CHECK(bh_plugin_call_async(all.plugin, "sleep_ms", BYTES("\x91\xce\x00\x01\x00\x00"), NULL, note_end, &ends[i],
                               NULL));
  bh_host_free(all.host);
  for (int i = 0; i < count; ++i) {
    CHECK(atomic_load(&ends[i].ended.count) == 1);
    CHECK(!ends[i].reply && ends[i].error);
    bh_error_free(ends[i].error);
  }
  /* The handle outlives its host. */
  bh_error* error = NULL;
  CHECK(!bh_plugin_call(all.plugin, "echo", BYTES("\x91\x01"), NULL, &error));
  expect_error(&error, BH_UNAVAILABLE, "");
  bh_plugin_free(all.plugin);
}

struct seen {
  int next;
  bool over;
};

static void note_progress(void* context, const void* value, size_t size) {
  struct seen* seen = context;
  char* text = bh_to_json(value, size, NULL);
  CHECK(!seen->over && atoi(text) == seen->next);
  bh_free(text);
  ++seen->next;
}

TEST(progress_is_told_in_order_and_never_after_the_call) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  struct seen seen = {0, false};
  bh_error* error = NULL;
  const bh_call_options options = {.size = sizeof options, .on_progress = note_progress, .context = &seen};
  expect_text(bh_plugin_call_json(all.plugin, "progress", "[3000]", &options, &error), "3000");
  seen.over = true;
  CHECK(seen.next > 0);
  close_up(all);
}

TEST(descriptors_are_passed_along) {
  struct loaded all = load(PLUGIN("chaos"), NULL);
  int ends[2];
  CHECK(pipe(ends) == 0);
  CHECK(write(ends[1], "through", 7) == 7);
  close(ends[1]);
  const bh_call_options options = {.size = sizeof options, .handles = &ends[0], .handle_count = 1};
  bh_error* error = NULL;
  bh_reply* reply = bh_plugin_call(all.plugin, "read_handle", BYTES("\x91\xd4\x01\x00"), &options, &error);
  CHECK(reply);
  expect_text(bh_reply_json(reply, &error), "\"through\"");
  CHECK(close(ends[0]) == 0); /* it was duplicated, not taken */
  bh_reply_free(reply);
  close_up(all);
}

static void take_event(void* context, const char* name, const void* value, size_t size, int* handles, size_t count) {
  CHECK(strcmp(name, "file") == 0 && value && size > 0 && count == 1);
  struct ending* end = context;
  end->ended_fd = handles[0];
  handles[0] = -1;
  give(&end->ended);
}
static void read_lent(void* context, const void* arguments, size_t size, bh_answer* answer) {
  (void)context, (void)arguments, (void)size;
  const int fd = bh_answer_take_handle(answer, 0);
  CHECK(fd >= 0 && bh_answer_take_handle(answer, 0) == -1 && bh_answer_take_handle(answer, 1) == -1);
  char begin[6] = {(char)0xa5};
  CHECK(read(fd, begin + 1, 5) == 5);
  close(fd);
  bh_answer_value(answer, begin, 6);
}
static void open_for_it(void* context, const void* arguments, size_t size, bh_answer* answer) {
  (void)context, (void)arguments, (void)size;
  const int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  CHECK(bh_answer_add_handle(answer, -1) == -1 && bh_answer_add_handle(answer, fd) == 0);
  close(fd);
  bh_answer_value(answer, "\xd4\x01\x00", 3);
}

TEST(descriptors_come_with_events_and_go_both_ways_with_functions) {
  const bh_function functions[] = {{"read", read_lent, NULL}, {"open", open_for_it, NULL}};
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, NULL, &error);
  bh_plugin* guest =
      bh_host_load(host, PLUGIN("guest"), "policy = { read = ['/etc/passwd'], handles = true }", functions, 2, &error);
  CHECK(guest);
  struct ending seen = {0};
  bh_plugin_on_event_with_handles(guest, take_event, &seen);
  expect_text(bh_plugin_call_json(guest, "emit_file", "[\"/etc/passwd\"]", NULL, &error), "true");
  await(&seen.ended, 1);
  char begin[5];
  CHECK(read(seen.ended_fd, begin, 5) == 5 && memcmp(begin, "root:", 5) == 0 && close(seen.ended_fd) == 0);
  expect_text(bh_plugin_call_json(guest, "lend_file", "[\"/etc/passwd\"]", NULL, &error), "\"root:\"");
  expect_text(bh_plugin_call_json(guest, "borrow_file", "[\"x\"]", NULL, &error), "\"root:\"");
  bh_plugin_free(guest);
  bh_host_free(host);
}

TEST(blobs_go_to_a_plugin_and_back_where_they_are) {
  struct loaded all = load(PLUGIN("blobs"), NULL);
  bh_error* error = NULL;
  const size_t size = (size_t)40 << 20; /* more than a message may have */
  bh_blob* in = bh_plugin_make_blob(all.plugin, size, &error);
  CHECK(in && bh_blob_writable(in) == bh_blob_data(in, NULL));
  memset(bh_blob_writable(in), 1, size);
  const bh_blob* blobs[] = {in};
  const bh_call_options options = {.size = sizeof options, .blobs = blobs, .blob_count = 1};
  const char arguments[] = "\x91\xd4\x02"; /* [blob 0] */
  bh_reply* reply = bh_plugin_call(all.plugin, "sum", arguments, sizeof arguments, &options, &error);
  CHECK(reply);
  expect_text(bh_reply_json(reply, &error), "41943040");
  CHECK(!bh_reply_blob(reply, &error));
  expect_error(&error, BH_PLUGIN_ERROR, "");
  bh_reply_free(reply);

  reply = bh_plugin_call(all.plugin, "invert", arguments, sizeof arguments, &options, &error);
  CHECK(reply);
  bh_blob* out = bh_reply_blob(reply, &error);
  bh_reply_free(reply);
  size_t got = 0;
  const unsigned char* bytes = bh_blob_data(out, &got);
  CHECK(got == size && bytes[0] == 0xfe && bytes[size - 1] == 0xfe && !bh_blob_writable(out));
  blobs[0] = out; /* of a result: its bytes are copied, and are too many for a message of their own */
  reply = bh_plugin_call(all.plugin, "sum", arguments, sizeof arguments, &options, &error);
  CHECK(!reply);
  expect_error(&error, BH_REJECTED, "");

  CHECK(!bh_plugin_call(all.plugin, "sum", BYTES("\x91\xd4\x02\x01"), &options, &error));
  expect_error(&error, BH_MISUSE, "refer to blob 1");
  CHECK(!bh_plugin_make_blob(all.plugin, (size_t)1 << 40, &error));
  expect_error(&error, BH_REJECTED, "");
  CHECK(!bh_blob_data(NULL, &got) && got == 0 && !bh_blob_writable(NULL));
  bh_blob_free(NULL), bh_blob_free(in), bh_blob_free(out);
  close_up(all);
}

TEST(values_go_to_json_and_back) {
  bh_error* error = NULL;
  size_t size = 0;
  void* value = bh_from_json("{\"a\": [1, \"x\", {\"$bin\": \"AP8=\"}]}", &size, &error);
  CHECK(size == 11 && memcmp(value,
                             "\x81\xa1"
                             "a\x93\x01\xa1x\xc4\x02\x00\xff",
                             11) == 0);
  bh_free(value);
  CHECK(!bh_from_json("{", &size, &error));
  expect_error(&error, BH_MISUSE, "not JSON");
  CHECK(!bh_from_json("{\"$bin\": \"%\"}", &size, &error));
  expect_error(&error, BH_MISUSE, "base64");
  CHECK(!bh_to_json("\xc1", 1, &error));
  expect_error(&error, BH_MISUSE, "value: not one MessagePack value");
  CHECK(!bh_to_json(NULL, 0, &error));
  expect_error(&error, BH_MISUSE, "value is NULL");
}
