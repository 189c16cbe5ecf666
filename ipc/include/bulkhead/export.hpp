// What the shared library exports: everything in a public header that has functions of its own.
//
//   namespace BULKHEAD_PUBLIC bulkhead { ... }
//
// The library is compiled with hidden symbols; this undoes it for one block, templates and inline functions included. A
// private class that such a block only names is BULKHEAD_PRIVATE where it is defined.
#pragma once

// In front of a namespace's name: what this block declares is seen by those who link with the library.
#define BULKHEAD_PUBLIC [[gnu::visibility("default")]]
// In front of a class's name: it stays within the library.
#define BULKHEAD_PRIVATE [[gnu::visibility("hidden")]]
