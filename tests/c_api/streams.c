/* Calls that stream, through the C API. */
#include "test.h"

TEST(results_are_taken_one_by_one) {
  struct loaded all = load(PLUGIN("streaming"), NULL);
  bh_error* error = NULL;
  bh_stream* stream = bh_plugin_open(all.plugin, "count", BYTES("\x91\x05"), NULL, &error);
  CHECK(stream);
  for (int i = 0; i < 5; ++i) {
    void* item = NULL;
    size_t size = 0;
    CHECK(bh_stream_next(stream, &item, &size, &error) == 1);
    CHECK(size == 1 && *(unsigned char*)item == i);
    bh_free(item);
  }
  void* none = NULL;
  size_t size = 0;
  CHECK(bh_stream_next(stream, &none, &size, &error) == 0);
  bh_reply* reply = bh_stream_finish(stream, &error);
  expect_text(bh_reply_json(reply, &error), "5");
  bh_reply_free(reply);
  bh_stream_free(stream);
  close_up(all);
}

TEST(arguments_are_sent_one_by_one) {
  struct loaded all = load(PLUGIN("streaming"), NULL);
  bh_error* error = NULL;
  bh_stream* stream = bh_plugin_open(all.plugin, "sum", NULL, 0, NULL, &error);
  CHECK(stream);
  for (int i = 0; i < 10; ++i) CHECK(bh_stream_send(stream, BYTES("\x07"), &error) == 1);
  CHECK(bh_stream_send(stream, BYTES("\x92\x07"), &error) == -1);
  expect_error(&error, BH_MISUSE, "item: not one MessagePack value");
  bh_stream_close(stream);
  bh_reply* reply = bh_stream_finish(stream, &error);
  expect_text(bh_reply_json(reply, &error), "70");
  bh_reply_free(reply);
  bh_stream_free(stream);
  close_up(all);
}

TEST(a_stream_that_fails_or_is_cancelled_says_so) {
  struct loaded all = load(PLUGIN("streaming"), NULL);
  bh_error* error = NULL;
  void* item = NULL;
  size_t size = 0;
  bh_stream* failing = bh_plugin_open(all.plugin, "fail_after", BYTES("\x91\x01"), NULL, &error);
  CHECK(bh_stream_next(failing, &item, &size, &error) == 1);
  bh_free(item);
  CHECK(bh_stream_next(failing, &item, &size, &error) == -1);
  expect_error(&error, BH_PLUGIN_ERROR, "that was all");
  bh_stream_free(failing);

  bh_stream* closed = bh_plugin_open(all.plugin, "hoard", NULL, 0, NULL, &error);
  CHECK(bh_stream_send(closed, BYTES("\xc4\x00"), &error) == 1);
  CHECK(bh_stream_next(closed, &item, &size, &error) == 1);
  bh_free(item);
  bh_stream_close(closed);
  CHECK(bh_stream_send(closed, BYTES("\xc4\x00"), &error) == -1);
  expect_error(&error, BH_MISUSE, "send() after close()");
  bh_stream_free(closed);

  bh_stream* waiting = bh_plugin_open(all.plugin, "sum", NULL, 0, NULL, &error);
  bh_stream_cancel(waiting);
  CHECK(!bh_stream_finish(waiting, &error));
  expect_error(&error, BH_CANCELLED, "");
  bh_stream_free(waiting);

  bh_stream* dropped = bh_plugin_open(all.plugin, "flood", BYTES("\x91\xcd\x10\x00"), NULL, &error);
  CHECK(bh_stream_next(dropped, &item, &size, &error) == 1);
  bh_free(item);
  bh_stream_free(dropped); /* and the plugin can be unloaded */
  close_up(all);
}
