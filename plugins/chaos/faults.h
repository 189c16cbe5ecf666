/* Faults that a compiler would rather not emit: each makes the processor or the C library raise a signal. */
#ifndef CHAOS_FAULTS_H
#define CHAOS_FAULTS_H

#ifdef __cplusplus
extern "C" {
#endif

void chaos_segfault(void);            /* SIGSEGV at address 0x10 */
void chaos_write_to_code(void);       /* SIGSEGV: its own code, which it may not write to */
void chaos_stack_overflow(void);      /* SIGSEGV by endless recursion */
void chaos_divide_by_zero(void);      /* SIGFPE */
void chaos_bus_error(void);           /* SIGBUS: a mapping past the end of its file */
void chaos_illegal_instruction(void); /* SIGILL */
void chaos_double_free(void);         /* SIGABRT by the C library */

void chaos_jump_to_null(void);       /* SIGSEGV at address 0, in no code at all */
void chaos_smashed_stack(void);      /* SIGABRT by the stack protector */
void chaos_smashed_return(void);     /* SIGSEGV: returns to where no code is */
void chaos_smashed_everything(void); /* the same with the stack above overwritten, as far as it goes */

#ifdef __cplusplus
}
#endif

#endif
