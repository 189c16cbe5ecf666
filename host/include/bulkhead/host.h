/* The embedder's library in C: a host loads plugins, each into worker processes of its own, and calls their methods. The
 * same as bulkhead/host.hpp, for C and for all that can call it.
 *
 *   bh_error* error = NULL;
 *   bh_host* host = bh_host_new(NULL, NULL, &error);
 *   bh_plugin* text = host ? bh_host_load(host, "text.so", "memory_limit = '64 MiB'", NULL, 0, &error) : NULL;
 *   char* found = text ? bh_plugin_call_json(text, "split", "[\"a1b2c\", \"[0-9]\"]", NULL, &error) : NULL;
 *   if (!found) fprintf(stderr, "%s\n", bh_error_message(error));
 *
 * What holds for all of it:
 * - Threads: any thread may call any function at any time, also several on one object; but an object's bh_…_free() is the
 *   last use of it. Callbacks run on the host's handler threads, several at once unless it is said otherwise. They may
 *   call everything but bh_host_free() and bh_host_shutdown().
 * - Memory: what is passed in is only read, and copied if it is kept. What is returned as `char*` or `void*` is the
 *   caller's, who gives it back to bh_free(); objects go to their own bh_…_free(). What is returned or handed to a callback
 *   as `const` belongs to the object it is from, or is valid until the callback returns. All bh_…_free() take NULL.
 * - Text is UTF-8 and ends with a zero. Values are MessagePack: (bytes, size). JSON is the same for people: bytes are
 *   {"$bin": "base64"} there, in both directions.
 * - Errors: a function that can fail returns NULL, or what it says, and puts an error into *error, which is the caller's.
 *   `error` may be NULL. Without a failure it is left as it is. Misuse (a NULL where there may be none, arguments that are
 *   not one MessagePack array, a mistake in options) is the outcome BH_MISUSE, never a crash. No C++ exception gets out.
 * - Growth: functions are added and never changed; structs begin with their size, so that members can be added. */
#ifndef BULKHEAD_HOST_H
#define BULKHEAD_HOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the library exports. */
#if defined(__GNUC__)
#define BH_API __attribute__((visibility("default")))
#else
#define BH_API
#endif

/* The version of this header, as a number: 100 for 0.1.0, 10203 for 1.2.3. */
#define BH_VERSION 100

/* The version of the library that runs, as such a number, and as text ("0.1.0"). */
BH_API int bh_version(void);
/* The same as text. */
BH_API const char* bh_version_text(void);

/* Gives back what a function has returned as `char*` or `void*`. */
BH_API void bh_free(void* memory);

/* --- Errors -------------------------------------------------------------------------------------------------------- */

/* What came of a call. Each call gets exactly one. */
typedef enum bh_outcome {
  BH_OK = 0,       /* it gave a result */
  BH_PLUGIN_ERROR, /* the plugin answered with an error */
  BH_TIMEOUT,      /* the deadline passed */
  BH_CANCELLED,    /* the caller cancelled it */
  BH_NOT_SENT,     /* it never reached the plugin's code: safe to retry */
  BH_WORKER_LOST,  /* the worker died while the call may have been running */
  BH_PROTOCOL,     /* the worker broke the protocol and was killed */
  BH_OVERLOADED,   /* too many calls or bytes are queued for the worker */
  BH_UNAVAILABLE,  /* there is no worker and none could be started */
  BH_REJECTED,     /* the call is not allowed or not possible: no such method, too large, not granted */
  BH_MISUSE = 100  /* the caller's own mistake: the message says which */
} bh_outcome;

/* "ok", "plugin_error", ..., "misuse"; "unknown" for all else. */
BH_API const char* bh_outcome_name(bh_outcome outcome);

/* What went wrong. */
typedef struct bh_error bh_error;

/* Of a NULL error: BH_OK, "", NULL. */
BH_API bh_outcome bh_error_outcome(const bh_error* error);
/* For people, one line; lives as long as the error. */
BH_API const char* bh_error_message(const bh_error* error);
/* Details that the plugin gave, one MessagePack value; NULL when there are none. */
BH_API const void* bh_error_data(const bh_error* error, size_t* size);
/* When a worker died of it: its crash report as a JSON object (reason, signal, phase, method, stack, log_tail...). NULL
 * otherwise. */
BH_API const char* bh_error_report_json(const bh_error* error);
/* Gives it back; NULL is fine. */
BH_API void bh_error_free(bh_error* error);

/* --- Host ---------------------------------------------------------------------------------------------------------- */

/* A host: bh_host_new(). */
typedef struct bh_host bh_host;
/* A loaded plugin: bh_host_load(). */
typedef struct bh_plugin bh_plugin;

/* How much a log line matters. */
typedef enum bh_log_level {
  BH_DEBUG = 0, /* for who looks for a fault */
  BH_INFO,      /* what happens in the ordinary course */
  BH_WARNING,   /* unusual, and it goes on */
  BH_ERROR      /* something has failed */
} bh_log_level;

/* What the host tells the application; each may be NULL. One at a time. */
typedef struct bh_callbacks {
  size_t size;   /* sizeof(bh_callbacks) */
  void* context; /* the first argument of each */

  /* A line that a worker wrote, or that the host says of it. `pid` is -1 when it is of no worker. */
  void (*on_log)(void* context, bh_log_level level, const char* plugin, long pid, const char* text);

  /* What happened to a worker or to a plugin as a whole: "started", "ready", "exited", "restarting", "gave up", ... `json`
   * is an object with kind, plugin, pid, text, delay_ms, serving, instances and, of a worker that died, report. */
  void (*on_lifecycle)(void* context, const char* kind, const char* plugin, const char* json);

  /* What a plugin's sandbox has denied: an object with plugin, pid, program, method, system_call, arguments, result, grant
   * and stack. */
  void (*on_violation)(void* context, const char* plugin, const char* json);
} bh_callbacks;

/* Starts a host. `options` is TOML text, or NULL for the defaults:
 *   worker = "/path/bulkhead-worker"   crash_dir = "/path"   crash_files = 100   cgroup = "/sys/fs/cgroup/..."
 *   worker_user = 65534   handler_threads = 4   spawns = { at_once = 4, restarts = 50, period = "10s" }
 * Relative paths are seen from the current directory. Blocks for some milliseconds. NULL on failure: BH_MISUSE for the
 * options, BH_UNAVAILABLE when the worker program is not there or the fork server can't be started. */
BH_API bh_host* bh_host_new(const char* options, const bh_callbacks* callbacks, bh_error** error);

/* Unloads all plugins and ends the fork server; calls after it fail with BH_UNAVAILABLE. Blocks for some seconds at most.
 * Once it has returned no callback runs any more. Handles of plugins stay valid, and are still to be freed. */
BH_API void bh_host_shutdown(bh_host* host);
/* The same, and the host is gone. */
BH_API void bh_host_free(bh_host* host);

/* The host's metrics in the text format that Prometheus scrapes. */
BH_API char* bh_host_metrics(bh_host* host, bh_error** error);

/* Lets workers be started again after the fork server had died too often. */
BH_API void bh_host_reset(bh_host* host);

/* --- Functions lent to plugins ------------------------------------------------------------------------------------- */

/* What a function lent to a plugin answers by. */
typedef struct bh_answer bh_answer;

/* A function of the application that a plugin may call. */
typedef struct bh_function {
  const char* name; /* not one that begins with "$/" */
  /* Called on handler threads, several at once; may block. `arguments` is one MessagePack array, from a worker: nothing
   * else is certain. Answers through one of the two functions below before it returns; an answer of nil otherwise. */
  void (*call)(void* context, const void* arguments, size_t size, bh_answer* answer);
  void* context; /* the first argument of `call` */
} bh_function;

/* The result, one MessagePack value. */
BH_API void bh_answer_value(bh_answer* answer, const void* value, size_t size);
/* The plugin gets an error with this text. */
BH_API void bh_answer_error(bh_answer* answer, const char* message);
/* Takes a descriptor that came with the arguments, by the index that stands for it there (extension type 1, one byte); the
 * caller's own. Only a plugin whose policy grants handles can send some: expect any kind of file. Those not taken are
 * closed. -1 when there is none or it was taken already. */
BH_API int bh_answer_take_handle(bh_answer* answer, size_t index);
/* Has a duplicate of `fd` go with the result, whatever the plugin's policy. Gives the index that stands for it there; the
 * result must refer to each of them once. -1 when it is not open, or when there are 16. */
BH_API int bh_answer_add_handle(bh_answer* answer, int fd);

/* --- Plugins ------------------------------------------------------------------------------------------------------- */

/* Loads a plugin and waits until its workers are ready. `options` is TOML text with the keys that a plugin has in the
 * daemon's configuration (docs/daemon.md), or NULL: instances, memory_limit, deadline, start_timeout, environment, policy,
 * grants, supervision, ...; and name, isolation ("process" or "none"), and state = { keep = true, every = "1s" }. As in
 *   "instances = 2\n policy = { profile = 'files', read = ['/usr/share/fonts'] }"
 * `functions` are `count` functions it may call in the application, and no others. Blocks; NULL on failure: BH_MISUSE,
 * BH_UNAVAILABLE with the phase that failed, or BH_REJECTED when the file can't be a plugin, or may not. */
BH_API bh_plugin* bh_host_load(bh_host* host, const char* file, const char* options, const bh_function* functions,
                               size_t count, bh_error** error);
/* Starts a program of any kind that follows docs/protocol.md as worker. `argv` ends with NULL; argv[0] names its file. */
BH_API bh_plugin* bh_host_launch(bh_host* host, const char* const* argv, const char* options,
                                 const bh_function* functions, size_t count, bh_error** error);
/* Lets go of a plugin. It is unloaded, as by bh_plugin_unload(), when no call and no stream uses it any more. */
BH_API void bh_plugin_free(bh_plugin* plugin);

/* Its name in logs, events and metrics. */
BH_API const char* bh_plugin_name(const bh_plugin* plugin);
/* What it says of itself: an object with id, name, version, license, description, abi, concurrency, requests and methods
 * (name, signature, doc, idempotent). Asks a worker the first time. */
BH_API char* bh_plugin_info_json(bh_plugin* plugin, bh_error** error);
/* How it is: an object with state, reason, serving, instances, waiting and workers (pid, phase, calls, resident_bytes,
 * denials, sandbox). Does not block. */
BH_API char* bh_plugin_status_json(bh_plugin* plugin, bh_error** error);

/* Replaces it by the version in `file`, without losing a call. Blocks until that serves. 1, or 0 on failure: the old version
 * goes on then. */
BH_API int bh_plugin_reload(bh_plugin* plugin, const char* file, bh_error** error);
/* Gives it fresh workers, one after the other. Does not wait. 1, or 0 on failure. */
BH_API int bh_plugin_recycle(bh_plugin* plugin, bh_error** error);
/* Forgets all its failures: one that was given up or quarantined is started again. Does not wait. 1, or 0 on failure. */
BH_API int bh_plugin_reset(bh_plugin* plugin, bh_error** error);
/* Ends its workers in good order. Later calls fail with BH_UNAVAILABLE. Blocks for some seconds at most. */
BH_API void bh_plugin_unload(bh_plugin* plugin);
/* The state of a plugin that keeps some, as it is now. Blocks. NULL on failure. */
BH_API void* bh_plugin_save_state(bh_plugin* plugin, size_t* size, bh_error** error);

/* Called for each event that the plugin emits, one at a time per worker; `value` is one MessagePack value. Takes the place
 * of the callback before it, which may still be running. NULL: events are dropped. */
typedef void (*bh_event_callback)(void* context, const char* name, const void* value, size_t size);
/* Has `callback` called for each event that the plugin emits; NULL: none. Replaces the one before. */
BH_API void bh_plugin_on_event(bh_plugin* plugin, bh_event_callback callback, void* context);
/* The same with the descriptors that came with the event, by the index that stands for them in `value`, from a plugin whose
 * policy grants handles. The callback takes one by setting it to -1: then it is its own. Those left are closed. */
typedef void (*bh_event_handles_callback)(void* context, const char* name, const void* value, size_t size, int* handles,
                                          size_t count);
/* Has `callback` called for each event, with descriptors; NULL: none. Replaces the one before, of either kind. */
BH_API void bh_plugin_on_event_with_handles(bh_plugin* plugin, bh_event_handles_callback callback, void* context);

/* --- Blobs --------------------------------------------------------------------------------------------------------- */

/* Bytes in memory that is shared with a plugin's workers, so that they are not copied: see docs/blobs.md. Several threads
 * may read one at a time; who writes or frees it must be alone with it. */
typedef struct bh_blob bh_blob;
/* Memory for `size` bytes of arguments of this plugin's calls; its contents are undefined at first. NULL on failure:
 * BH_REJECTED when that is more than the plugin's options (blobs.memory) allow, BH_OVERLOADED when other blobs have it. */
BH_API bh_blob* bh_plugin_make_blob(bh_plugin* plugin, size_t size, bh_error** error);
/* Its bytes, to read. Those of a result can change for as long as the worker lives that made it: copy what you check. */
BH_API const void* bh_blob_data(const bh_blob* blob, size_t* size);
/* Its bytes, to write: not while a call that it is an argument of is in progress. NULL for the blob of a result. */
BH_API void* bh_blob_writable(bh_blob* blob);
/* Gives its memory back; calls in progress keep it. NULL is fine. */
BH_API void bh_blob_free(bh_blob* blob);

/* --- Calls --------------------------------------------------------------------------------------------------------- */

/* Cancels calls: any number that it was given to, from any thread, once and for all. */
typedef struct bh_cancel bh_cancel;
/* Makes one. */
BH_API bh_cancel* bh_cancel_new(void);
/* Cancels the calls that it was given to. Any thread. */
BH_API void bh_cancel_request(bh_cancel* cancel);
/* Calls that were given it go on. */
BH_API void bh_cancel_free(bh_cancel* cancel);

/* For bh_call_options: however long it takes. */
#define BH_NO_DEADLINE INT64_C(-1)

/* All zero but for the size: as the plugin's options say. */
typedef struct bh_call_options {
  size_t size; /* sizeof(bh_call_options) */

  /* How long the call may take; 0: the plugin's deadline (30 s); BH_NO_DEADLINE: as long as it takes. When it passes, the
   * call ends with BH_TIMEOUT and the plugin is asked to stop; if it has not within 1 s, its worker is killed. */
  int64_t deadline_ms;
  bh_cancel* cancel; /* or NULL */

  /* Called with each value that the method reports as progress, one at a time; never after the call has ended, or the
   * stream was freed: values that are still on their way then are dropped. */
  void (*on_progress)(void* context, const void* value, size_t size);
  void* context; /* of on_progress */

  /* Descriptors to pass along; they are duplicated at once. The arguments refer to them by extension type 1, with one
   * byte: the index in here. */
  const int* handles;
  size_t handle_count; /* how many */

  /* Of streams: bytes of results that are kept until they are taken; 0: 1 MiB. */
  size_t stream_window;

  /* Blobs among the arguments, which refer to them by extension type 2, with one byte: the index in here. The plugin gets
   * their bytes where they lie. Those of another plugin, and of results, are copied. */
  const bh_blob* const* blobs;
  size_t blob_count; /* how many; at most 255 */
} bh_call_options;

/* The result of a call. */
typedef struct bh_reply bh_reply;
/* One MessagePack value. Copies the bytes of blobs into it the first time; NULL when there is no memory for them. */
BH_API const void* bh_reply_value(const bh_reply* reply, size_t* size);
/* The result as JSON; give it back with bh_free(). NULL on failure. */
BH_API char* bh_reply_json(const bh_reply* reply, bh_error** error);
/* How many descriptors came with it. */
BH_API size_t bh_reply_handle_count(const bh_reply* reply);
/* The result's bytes or text, where they are: in shared memory if they came by it. Outlives the reply. NULL on failure:
 * BH_PLUGIN_ERROR when the result is neither. */
BH_API bh_blob* bh_reply_blob(const bh_reply* reply, bh_error** error);
/* A descriptor that came with the result, the caller's own; -1 when there is none. */
BH_API int bh_reply_handle(const bh_reply* reply, size_t index);
/* Gives it back; NULL is fine. */
BH_API void bh_reply_free(bh_reply* reply);

/* Calls a method and waits for its result. `arguments` is one MessagePack array; NULL and 0: none. `options` may be NULL.
 * Blocks at most until the deadline. NULL on failure. */
BH_API bh_reply* bh_plugin_call(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                                const bh_call_options* options, bh_error** error);
/* The same with arguments and result as JSON text: "[1, [2, 3], {\"$bin\": \"aGk=\"}]". Each argument becomes what the
 * method's signature says, so a text serves where it wants bytes, and 2 where it wants a float. */
BH_API char* bh_plugin_call_json(bh_plugin* plugin, const char* method, const char* arguments,
                                 const bh_call_options* options, bh_error** error);

/* Told of the end of a call, exactly once: either `reply` or `error` is not NULL, and the callback's own. */
typedef void (*bh_done_callback)(void* context, bh_reply* reply, bh_error* error);
/* Starts a call and returns; never blocks. 1; or 0 for misuse: `done` is not called then. */
BH_API int bh_plugin_call_async(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                                const bh_call_options* options, bh_done_callback done, void* context, bh_error** error);

/* --- Streams ------------------------------------------------------------------------------------------------------- */

/* A call that takes arguments and gives results one by one while it runs. */
typedef struct bh_stream bh_stream;

/* Does not block. What goes wrong with the call is told by the functions below. NULL for misuse. */
BH_API bh_stream* bh_plugin_open(bh_plugin* plugin, const char* method, const void* arguments, size_t size,
                                 const bh_call_options* options, bh_error** error);
/* Sends an item, one MessagePack value. Blocks while the plugin is its window behind. 1: sent; 0: the call has ended, and
 * bh_stream_finish() says how; -1: failed (an item too large for the plugin's window is BH_REJECTED; the call goes on). */
BH_API int bh_stream_send(bh_stream* stream, const void* item, size_t size, bh_error** error);
/* No more items will be sent. Does not block. */
BH_API void bh_stream_close(bh_stream* stream);
/* The next result, one MessagePack value that is the caller's. Blocks until there is one, or the call has ended. 1: *item
 * and *size are set; 0: there are no more; -1: the call failed. */
BH_API int bh_stream_next(bh_stream* stream, void** item, size_t* size, bh_error** error);
/* Closes, drops the results that were not taken, and waits for the method's own result. NULL on failure. */
BH_API bh_reply* bh_stream_finish(bh_stream* stream, bh_error** error);
/* Ends the call with BH_CANCELLED, and wakes all who wait. Does not block. */
BH_API void bh_stream_cancel(bh_stream* stream);
/* Cancels the call if it goes on. Not to be called by its own on_progress. */
BH_API void bh_stream_free(bh_stream* stream);

/* --- Values -------------------------------------------------------------------------------------------------------- */

/* JSON text as one MessagePack value, and back; bytes are {"$bin": "base64"}. NULL on failure. */
BH_API void* bh_from_json(const char* json, size_t* size, bh_error** error);
/* One MessagePack value as JSON; give it back with bh_free(). NULL on failure. */
BH_API char* bh_to_json(const void* value, size_t size, bh_error** error);

#ifdef __cplusplus
}
#endif

#endif
