/* bulkhead/plugin.h: the C ABI between a bulkhead worker and the plugin it loads.
 *
 * A plugin is a shared library that exports one symbol, `bulkhead_entry`, and carries its manifest in an ELF
 * section, so that the manifest can be read without running the plugin's code. Arguments and results are
 * MessagePack bytes, so the plugin can be written in C, C++, Rust, Zig or whatever else speaks C.
 *
 * Threads. Each function below says where it may be called:
 *   [dispatch-thread]  the worker's one dispatch thread, never two calls at a time (the default: plugins are serial;
 *                      one whose manifest states thread_safe=yes has several, which call invoke() only)
 *   [any-thread]       any thread of the worker process, also several at once
 *
 * Ownership. Memory handed to a function stays the property of whoever passed it and is valid until that function
 * returns, unless its comment says otherwise. Strings are UTF-8; a pointer with a size need not end in a zero byte.
 *
 * Growth. Structs never change within an ABI version. New abilities come through get_extension().
 *
 * Nothing here may throw: a C++ exception that leaves a plugin's function is turned into a failed call, no more. */
#ifndef BULKHEAD_PLUGIN_H
#define BULKHEAD_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised only when a struct below changes; a worker refuses a plugin of another version before it runs any of
 * its code (the manifest states it too). */
#define BULKHEAD_ABI_VERSION 1

/* What the worker offers, what the plugin is, what one of its methods is: see below. */
typedef struct bulkhead_host bulkhead_host_t;     /* see struct bulkhead_host */
typedef struct bulkhead_plugin bulkhead_plugin_t; /* see struct bulkhead_plugin */
typedef struct bulkhead_method bulkhead_method_t; /* see struct bulkhead_method */

/* One call in progress, from method->invoke() until reply() or fail() is called for it; both end its life. */
typedef struct bulkhead_call bulkhead_call_t;

/* How much a log line matters. */
typedef enum bulkhead_log_level {
  BULKHEAD_LOG_DEBUG = 0,   /* for who looks for a fault */
  BULKHEAD_LOG_INFO = 1,    /* what happens in the ordinary course */
  BULKHEAD_LOG_WARNING = 2, /* unusual, and it goes on */
  BULKHEAD_LOG_ERROR = 3    /* something has failed */
} bulkhead_log_level_t;     /* see enum bulkhead_log_level */

/* What became of something asked of the host. */
typedef enum bulkhead_status {
  BULKHEAD_OK = 0,         /* it was done */
  BULKHEAD_FAILED = 1,     /* the host's function answered with an error */
  BULKHEAD_REJECTED = 2,   /* not granted, no such function, or bad arguments */
  BULKHEAD_CANCELLED = 3,  /* the call on whose behalf it was made was cancelled, or its deadline passed */
  BULKHEAD_OVERLOADED = 4, /* too many at once; try again later */
  BULKHEAD_LOST = 5        /* the host is gone or the worker is shutting down */
} bulkhead_status_t;

/* The answer to call_host(). `data` is the MessagePack result (status OK) or a UTF-8 error text (otherwise). It
 * belongs to the worker until given back with release_answer(). */
typedef struct bulkhead_answer {
  const uint8_t* data; /* the result, or the text */
  size_t size;         /* in bytes */
  void* owner;         /* private to the worker */
} bulkhead_answer_t;

/* A block of bytes for bulk data (images, audio, tensors). Writable by the plugin until it is sent in a reply or
 * released; it may be sent more than once. To send it, pack it into the MessagePack result: as ext type 2 holding `reference` when
 * reference_size > 0 (it lies in memory shared with the host), as bin holding data/size otherwise. */
typedef struct bulkhead_blob {
  uint8_t* data;           /* where its bytes are */
  size_t size;             /* in bytes */
  uint8_t reference[24];   /* what stands for it in a result */
  uint32_t reference_size; /* how much of that; 0: it is sent as bytes */
  void* owner;             /* private to the worker */
} bulkhead_blob_t;

/* MessagePack extension types used in arguments and results. */
#define BULKHEAD_EXT_HANDLE 1 /* a passed file descriptor: one byte, its index for take_handle() */
#define BULKHEAD_EXT_BLOB 2   /* a blob's reference, for open_blob() */

/* What the worker offers the plugin. One per plugin instance, valid from create() to the end of destroy(). Every
 * function takes the host itself first. */
struct bulkhead_host {
  uint32_t abi_version; /* BULKHEAD_ABI_VERSION of the worker */
  void* host_data;      /* private to the worker */

  /* Ends `call` with a result: one MessagePack value of `size` bytes, copied; the outcome is `plugin_error` when it is
     * larger than a message may be. Exactly one of reply() and fail() must be called for each call, once; it may be
     * later than the return of invoke(), and from any thread. [any-thread] */
  void (*reply)(const bulkhead_host_t* host, bulkhead_call_t* call, const void* result, size_t size);

  /* Ends `call` with an error: a text for people, and optionally one MessagePack value with details (NULL, 0 for
     * none; left out when they are larger than a message may be). The caller in the host sees the outcome plugin_error.
     * [any-thread] */
  void (*fail)(const bulkhead_host_t* host, bulkhead_call_t* call, const char* message, size_t message_size,
               const void* data, size_t data_size);

  /* Reports progress of `call`: one MessagePack value. Dropped when the caller does not ask for progress, and, with a
     * line in the log, when it is larger than a message may be. May block for a moment when the host lags behind.
     * [any-thread] */
  void (*progress)(const bulkhead_host_t* host, bulkhead_call_t* call, const void* value, size_t size);

  /* Whether `call` should stop: its caller cancelled it or its deadline passed. Cheap enough for inner loops.
     * After it turned true, reply() and fail() still have to be called, and the sooner the better: a worker that
     * does not answer within the grace period (1 s) is killed. [any-thread] */
  bool (*cancelled)(const bulkhead_host_t* host, bulkhead_call_t* call);

  /* Nanoseconds until the deadline of `call`; 0 when it has passed, INT64_MAX when there is none. [any-thread] */
  int64_t (*remaining_ns)(const bulkhead_host_t* host, bulkhead_call_t* call);

  /* Writes a line to the host's log. Lines over 4 KiB are cut; past 64 KiB/s lines are dropped and counted.
     * [any-thread] */
  void (*log)(const bulkhead_host_t* host, bulkhead_log_level_t level, const char* text, size_t size);

  /* Sends an event to the application: a name and one MessagePack value. Waits while the host has 1,024 events
     * of this worker still to handle, or as many bytes of them as one message may have. False when the host is gone, and
     * when the event is larger than a message may be (16 MiB unless the application says otherwise).
     * [any-thread] */
  bool (*emit)(const bulkhead_host_t* host, const char* name, const void* value, size_t size);

  /* Calls a function that the application granted to this plugin, and waits for its answer. `arguments` is one
     * MessagePack array. `on_behalf_of` (may be NULL) is the call that this one serves: its deadline and its
     * cancellation end the wait. REJECTED, too, when it is larger than a message may be. Always fills *answer; give it
     * back with release_answer(). [any-thread] */
  bulkhead_status_t (*call_host)(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of, const char* function,
                                 const void* arguments, size_t size, bulkhead_answer_t* answer);
  /* Gives an answer, or an item of a stream, back. [any-thread] */
  void (*release_answer)(const bulkhead_host_t* host, bulkhead_answer_t* answer);

  /* Takes a file descriptor that came with `call`: `index` is the payload of its BULKHEAD_EXT_HANDLE. The plugin
     * owns it and must close it; those not taken are closed when the call ends. -1 when there is none or it was
     * taken already. [any-thread] */
  int (*take_handle)(const bulkhead_host_t* host, bulkhead_call_t* call, uint32_t index);

  /* Makes a blob of `size` bytes (contents undefined). False when there is no memory for it. [any-thread] */
  bool (*create_blob)(const bulkhead_host_t* host, size_t size, bulkhead_blob_t* blob);

  /* Finds the bytes of a blob that came in the arguments of `call` as BULKHEAD_EXT_BLOB. They are read-only and
     * valid until the call ends. False when the reference is not valid. (A blob may also arrive as a plain
     * MessagePack bin, which needs no opening; and for a plugin without BULKHEAD_READS_BLOBS always does.) [any-thread] */
  bool (*open_blob)(const bulkhead_host_t* host, bulkhead_call_t* call, const uint8_t* reference, size_t size,
                    bulkhead_blob_t* blob);

  /* Gives back a blob made by create_blob(), after its reply was sent or instead. [any-thread] */
  void (*release_blob)(const bulkhead_host_t* host, bulkhead_blob_t* blob);

  /* Something newer or optional, by name; NULL when the worker does not have it. The pointer lives as long as
     * the host. [any-thread] */
  const void* (*get_extension)(const bulkhead_host_t* host, const char* id);
};

/* get_extension(host, BULKHEAD_SEND_HANDLES): file descriptors in results. The host takes them only from plugins whose
 * policy grants handles; without that the extension is NULL. */
#define BULKHEAD_SEND_HANDLES "bulkhead.send-handles/1"
/* What BULKHEAD_SEND_HANDLES gives. */
typedef struct bulkhead_send_handles {
  /* Has a duplicate of `fd` go with the answer of `call`. Gives the index that stands for it there: the one byte of a
   * BULKHEAD_EXT_HANDLE. Every descriptor attached must occur in the result once, in order. -1 when there are too many
   * or `fd` is not open. [any-thread] */
  int (*attach)(const bulkhead_host_t* host, bulkhead_call_t* call, int fd);
} bulkhead_send_handles_t; /* see struct bulkhead_send_handles */

/* get_extension(host, BULKHEAD_HANDLES): file descriptors in events and in calls of the application's functions. To the
 * application they go only if the policy grants handles; those in its answers come without. A value refers to each
 * descriptor that goes with it once, by a BULKHEAD_EXT_HANDLE whose byte is its index in `fds`; at most 16. */
#define BULKHEAD_HANDLES "bulkhead.handles/1"
/* What BULKHEAD_HANDLES gives. */
typedef struct bulkhead_handles {
  /* As host->emit(), with duplicates of `count` descriptors. False, too, when they are not granted, when one is not open,
   * or when the value does not refer to each of them once. [any-thread] */
  bool (*emit)(const bulkhead_host_t* host, const char* name, const void* value, size_t size, const int* fds,
               size_t count);
  /* As host->call_host(), with duplicates of `count` descriptors. REJECTED, too, for the reasons above. [any-thread] */
  bulkhead_status_t (*call_host)(const bulkhead_host_t* host, bulkhead_call_t* on_behalf_of, const char* function,
                                 const void* arguments, size_t size, const int* fds, size_t count,
                                 bulkhead_answer_t* answer);
  /* Takes a descriptor that came with an answer, before release_answer(): `index` is the byte of its
   * BULKHEAD_EXT_HANDLE. The plugin owns it and must close it; those not taken are closed by release_answer(). -1 when
   * there is none or it was taken already. [any-thread] */
  int (*take)(const bulkhead_host_t* host, bulkhead_answer_t* answer, uint32_t index);
} bulkhead_handles_t; /* see struct bulkhead_handles */

/* get_extension(host, BULKHEAD_LEAVE): a plugin that knows it must go (a leak it can't stop, a licence that ran out)
 * says so. Another worker is started, then this one gets no more calls, finishes those it has and is shut down. Later
 * calls change nothing. [any-thread] */
#define BULKHEAD_LEAVE "bulkhead.leave/1"
/* What BULKHEAD_LEAVE gives. */
typedef struct bulkhead_leave {
  /* `why` is for people: UTF-8, `size` bytes. */
  void (*leave)(const bulkhead_host_t* host, const char* why, size_t size);
} bulkhead_leave_t; /* see struct bulkhead_leave */

/* get_extension(host, BULKHEAD_BULK): results in bulk. Whatever a plugin replies with, strings and byte arrays of
 * threshold() bytes and more are moved to memory shared with the host; a plugin that makes a blob for them in the first
 * place saves that copy. */
#define BULKHEAD_BULK "bulkhead.bulk/1"
/* What BULKHEAD_BULK gives. */
typedef struct bulkhead_bulk {
  /* SIZE_MAX: there is no shared memory. [any-thread] */
  size_t (*threshold)(const bulkhead_host_t* host);
} bulkhead_bulk_t; /* see struct bulkhead_bulk */

/* plugin->get_extension(plugin, BULKHEAD_READS_BLOBS), any pointer but NULL: wherever in arguments a string or a byte array
 * can be, the plugin also takes a BULKHEAD_EXT_BLOB, which it opens by open_blob(). The first byte of the reference is 1 if
 * it stands for a string. For a plugin without this extension their bytes are copied into the arguments. */
#define BULKHEAD_READS_BLOBS "bulkhead.reads-blobs/1"

/* get_extension(host, BULKHEAD_PUBLISHED): values that the application has published to this plugin, in memory that all
 * their readers share and nobody can change. */
#define BULKHEAD_PUBLISHED "bulkhead.published/1"
/* A published value, as it was when it was opened. */
typedef struct bulkhead_snapshot {
  const uint8_t* data; /* read-only; valid until release() */
  size_t size;         /* in bytes */
  uint64_t version;    /* of two under one name the later one's is larger */
  void* owner;         /* private to the worker */
} bulkhead_snapshot_t; /* see struct bulkhead_snapshot */
/* What BULKHEAD_PUBLISHED gives. */
typedef struct bulkhead_published {
  /* Finds the latest version under a name; it stays as it is until release(), whatever is published meanwhile. Costs a
   * system call or two; half a second at most when a later one is still to come. False, and nothing to release, when
   * there is none. [any-thread] */
  bool (*open)(const bulkhead_host_t* host, const char* name, bulkhead_snapshot_t* snapshot);
  /* Lets go of it; its bytes must not be used any more. [any-thread] */
  void (*release)(const bulkhead_host_t* host, bulkhead_snapshot_t* snapshot);
} bulkhead_published_t; /* see struct bulkhead_published */

/* get_extension(host, BULKHEAD_STREAMS): a call whose caller opened it as a stream can send results one by one, and
 * receive arguments one by one, while it runs. An item is one MessagePack value; descriptors can't be part of it. In each
 * direction no more than a window of items is on its way; the side that is ahead waits. Items of one direction keep their
 * order when one thread at a time sends (or receives) them; both directions may be used at once. All may be called until
 * the call is answered. Where results are streamed, the answer ends them. */
#define BULKHEAD_STREAMS "bulkhead.streams/1"
/* What BULKHEAD_STREAMS gives. */
typedef struct bulkhead_streams {
  /* The most bytes that an item of results may have: the caller's window. 0 when the caller did not open the call as a
   * stream: then the others are REJECTED. [any-thread] */
  size_t (*item_limit)(const bulkhead_host_t* host, bulkhead_call_t* call);

  /* Sends one item of results. Waits while the caller has as many bytes still to take as its window holds. REJECTED when
   * it is not one MessagePack value, is larger than item_limit(), or comes after end(); CANCELLED when the call was
   * cancelled or its deadline has passed, then and while it waits. [any-thread] */
  bulkhead_status_t (*send)(const bulkhead_host_t* host, bulkhead_call_t* call, const void* item, size_t size);

  /* Waits for the next item of arguments and puts it into *item; give it back with release_answer(). OK with size 0:
   * there are no more. CANCELLED as above, with no item. [any-thread] */
  bulkhead_status_t (*receive)(const bulkhead_host_t* host, bulkhead_call_t* call, bulkhead_answer_t* item);

  /* Says that there are no more results, before the call is answered. [any-thread] */
  void (*end)(const bulkhead_host_t* host, bulkhead_call_t* call);
} bulkhead_streams_t; /* see struct bulkhead_streams */

/* plugin->get_extension(plugin, BULKHEAD_STATE): the plugin can hand what it knows to its successor: a new version, or
 * the next worker after a crash. The state is bytes of its own format, which later versions have to read, too; restore()
 * gets them as save() gave them, and should trust them no more than a file. */
#define BULKHEAD_STATE "bulkhead.state/1"
/* What a plugin gives for BULKHEAD_STATE. */
typedef struct bulkhead_state {
  /* Calls `take` with its state, once, and returns true; or returns false with a text (static or living as long as the
   * plugin) in *error. Called between calls; those that are answered later may be in progress, as may others if the
   * plugin is thread-safe, unless the plugin is about to be replaced or shut down: then none is. [dispatch-thread] */
  bool (*save)(const bulkhead_plugin_t* plugin, void (*take)(void* to, const void* state, size_t size), void* to,
               const char** error);
  /* Takes a state over, after init() and before the first call; or returns false as above: then the worker can't start.
   * [dispatch-thread] */
  bool (*restore)(const bulkhead_plugin_t* plugin, const uint8_t* state, size_t size, const char** error);
} bulkhead_state_t; /* see struct bulkhead_state */

/* Flags of a method. */
#define BULKHEAD_METHOD_IDEMPOTENT 1u /* running it twice is as good as once: it may be retried after a crash */

/* One method. All strings live as long as the plugin. */
struct bulkhead_method {
  const char* name; /* as callers write it; names that begin with "$/" are reserved */

  /* For people and for tools that turn text into typed arguments, in the form
     *   "(bin image, int max_side) -> map"
     * Types: nil bool int float str bin array array<T> map map<K,V> handle blob any; a trailing ? makes one
     * optional. Parameter names may be left out. A stream of arguments is the last parameter, one of results stands
     * behind the result (or in its place, if that is nil): "(str pattern, stream<str>) -> int, stream<map>". Streamed
     * items are no part of the arguments. */
  const char* signature;
  const char* doc;   /* one sentence; may be "" */
  uint32_t flags;    /* BULKHEAD_METHOD_…, or 0 */
  void* method_data; /* the plugin's own */

  /* Serves one call. `arguments` is one MessagePack array, valid until this call has been answered. May answer
     * before it returns or later. [dispatch-thread] */
  void (*invoke)(const bulkhead_plugin_t* plugin, const bulkhead_method_t* method, bulkhead_call_t* call,
                 const uint8_t* arguments, size_t size);
};

/* A plugin instance, made by bulkhead_entry.create(). The plugin keeps it valid and unchanged until destroy(). */
struct bulkhead_plugin {
  void* plugin_data; /* the plugin's own */

  const bulkhead_method_t* methods; /* an array, not of pointers */
  size_t method_count;              /* how many there are: 4,096 at most */

  /* Prepares the plugin for calls: open files, allocate, start threads. On failure, returns false with a text
     * (static or living as long as the plugin) in *error. [dispatch-thread] */
  bool (*init)(const bulkhead_plugin_t* plugin, const char** error);

  /* The last thing called before the worker exits in good order. [dispatch-thread] */
  void (*destroy)(const bulkhead_plugin_t* plugin);

  /* An extension of the plugin's, by name; NULL when it has none. May be NULL itself. [dispatch-thread] */
  const void* (*get_extension)(const bulkhead_plugin_t* plugin, const char* id);
};

/* The one exported symbol: `const bulkhead_entry_t bulkhead_entry`. */
typedef struct bulkhead_entry {
  uint32_t abi_version; /* BULKHEAD_ABI_VERSION the plugin was built with */

  /* Makes the plugin. Called once in a worker, after the sandbox stands. NULL on failure. [dispatch-thread] */
  const bulkhead_plugin_t* (*create)(const bulkhead_host_t* host);
} bulkhead_entry_t;

/* What makes a symbol visible outside the library: for bulkhead_entry alone. */
#if defined(__GNUC__)
#define BULKHEAD_EXPORT __attribute__((visibility("default")))
#else
#define BULKHEAD_EXPORT
#endif

/* The manifest: lines `key=value`, each a zero-terminated string in the ELF section "bulkhead_manifest". At file
 * scope, one line for each fact (`unique` is any identifier, different in each):
 *
 *   BULKHEAD_MANIFEST_BEGIN("stats", "1.0.0")        id and version; states the ABI too. Exactly once.
 *   BULKHEAD_MANIFEST(license, "license=MIT")
 *   BULKHEAD_MANIFEST(fonts, "request=read:/usr/share/fonts")
 *
 * Keys: id, version, abi (made by the first macro), name, license, description, `thread_safe=yes` (invoke() may be
 * called by several dispatch threads at once), and `request`, which may be given several times. Requests are what the plugin asks for; the application's policy decides:
 *   read:PATH  write:PATH  create:PATH  connect:PORT  bind:PORT  memory:BYTES  threads:N  subprocesses  handles
 *   syscalls:GROUP */
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ < 11)
#define BULKHEAD_RETAIN_ __attribute__((used))
#else
#define BULKHEAD_RETAIN_ __attribute__((used, retain))
#endif
/* One line of the manifest. */
#define BULKHEAD_MANIFEST(unique, text)                                                                    \
  static const char bulkhead_manifest_##unique[] __attribute__((section("bulkhead_manifest"), aligned(1))) \
  BULKHEAD_RETAIN_ = text
#define BULKHEAD_MANIFEST_STRING_(x) #x
#define BULKHEAD_MANIFEST_ABI_(version) "abi=" BULKHEAD_MANIFEST_STRING_(version)
/* The lines that every manifest has. */
#define BULKHEAD_MANIFEST_BEGIN(id, version)                             \
  BULKHEAD_MANIFEST(abi_, BULKHEAD_MANIFEST_ABI_(BULKHEAD_ABI_VERSION)); \
  BULKHEAD_MANIFEST(id_, "id=" id);                                      \
  BULKHEAD_MANIFEST(version_, "version=" version)

/* States thread_safe=yes. */
#define BULKHEAD_THREAD_SAFE BULKHEAD_MANIFEST(thread_safe_, "thread_safe=yes")

#ifdef __cplusplus
}
#endif

#endif
