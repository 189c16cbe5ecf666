// Blobs of the C API: memory that is shared with workers.
#include "objects.hpp"

using namespace bulkhead::c_api;

bh_blob* bh_plugin_make_blob(bh_plugin* plugin, size_t size, bh_error** error) {
  return guarded(error, static_cast<bh_blob*>(nullptr),
                 [&] { return new bh_blob{given(plugin, "plugin").plugin.make_blob(size)}; });
}

const void* bh_blob_data(const bh_blob* blob, size_t* size) {
  if (size) *size = blob ? blob->blob.size() : 0;
  return blob ? blob->blob.view().data() : nullptr;
}

void* bh_blob_writable(bh_blob* blob) {
  return guarded(nullptr, static_cast<void*>(nullptr),
                 [&] { return static_cast<void*>(given(blob, "blob").blob.writable().data()); });
}

void bh_blob_free(bh_blob* blob) { delete blob; }
