/* See faults.h. Addresses and operands go through volatile variables, so that the compiler can't see what is wrong. */
#include "faults.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

#include <sys/mman.h>
#include <unistd.h>

void chaos_segfault(void) {
  volatile uintptr_t address = 0x10;
  *(volatile int*)address = 1;
}

void chaos_write_to_code(void) {
  volatile uintptr_t address = (uintptr_t)&chaos_segfault;
  *(volatile char*)address = 0;
}

/* The result is used after the inner call, so it can't be made into a loop. */
static volatile int levels = 0x7fffffff;
static int descend(volatile char* above) {
  volatile char frame[4096];
  frame[0] = above ? above[0] : 1;
  return levels-- > 0 ? descend(frame) + frame[0] : 0;
}

void chaos_stack_overflow(void) { (void)descend(NULL); }

void chaos_divide_by_zero(void) {
#if defined(__x86_64__) || defined(__i386__)
  volatile int one = 1, zero = 0; /* of a constant 1 a compiler makes a comparison */
  volatile int result = one / zero;
  (void)result;
#endif
  raise(SIGFPE); /* not every processor traps */
}

void chaos_bus_error(void) {
  const int fd = memfd_create("empty", MFD_CLOEXEC);
  volatile char* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0 && page != MAP_FAILED) page[0] = 1;
  raise(SIGBUS); /* where a sandbox allows no memfd */
}

void chaos_illegal_instruction(void) { __builtin_trap(); }

void chaos_double_free(void) {
  void* volatile block = malloc(64);
  void* first = block;
  free(first);
  void* volatile again = block;
  free(again);
  abort(); /* a C library that did not notice */
}

void chaos_jump_to_null(void) {
  void (*volatile nowhere)(void) = NULL;
  nowhere();
  (void)nowhere; /* not a tail call */
}

static void fill(volatile unsigned char* from, size_t size) {
  for (size_t i = 0; i < size; ++i) from[i] = 0x41;
}

/* The guard's value lies between the buffer and the return address. */
__attribute__((noinline, optimize("stack-protector-all"))) static void overflow_guarded(size_t size) {
  volatile unsigned char buffer[16];
  fill(buffer, size);
}

void chaos_smashed_stack(void) {
  overflow_guarded(64);
  __asm__ volatile(""); /* not a tail call */
}

/* The saved frame pointer and the return address, from the frame that __builtin_frame_address(0) tells. */
__attribute__((noinline, optimize("no-stack-protector", "no-omit-frame-pointer"))) static void overflow_unguarded(
    size_t size) {
  fill(__builtin_frame_address(0), size);
}

void chaos_smashed_return(void) {
  overflow_unguarded(16);
  __asm__ volatile("");
}

void chaos_smashed_everything(void) {
  overflow_unguarded(2048);
  __asm__ volatile("");
}
