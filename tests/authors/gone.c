/* A library that is nowhere when what is linked with it is loaded: its folder is in no search path. */
int bulkhead_test_gone(void) { return 0; }
