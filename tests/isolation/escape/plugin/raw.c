/* System calls by number, in the three tables of an x86-64 kernel. */
#include "attempts.h"

#include <sys/syscall.h>
#include <unistd.h>

long escape_raw(enum escape_table table, long number) {
#if defined(__x86_64__)
  if (table == escape_i386) {
    long result = number;
    __asm__ volatile("push %%rbx\n push %%rbp\n mov $-1, %%ebx\n mov $-1, %%ebp\n int $0x80\n pop %%rbp\n pop %%rbx\n"
                     : "+a"(result)
                     : "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
  }
  if (table == escape_x32) number |= 0x40000000;
#endif
  return escape_result(syscall(number, -1L, -1L, -1L, -1L, -1L, -1L));
}
