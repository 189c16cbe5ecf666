/* An application in C: application PLUGIN METHOD [ARGUMENTS as a JSON array]. */
#include <bulkhead/host.h>

#include <stdio.h>

static int failed(bh_error* error) {
  fprintf(stderr, "%s: %s\n", bh_outcome_name(bh_error_outcome(error)), bh_error_message(error));
  bh_error_free(error);
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  bh_error* error = NULL;
  bh_host* host = bh_host_new(NULL, NULL, &error);
  if (!host) return failed(error);
  bh_plugin* plugin = bh_host_load(host, argv[1], NULL, NULL, 0, &error);
  if (!plugin) return failed(error);
  char* result = bh_plugin_call_json(plugin, argv[2], argc > 3 ? argv[3] : "[]", NULL, &error);
  if (!result) return failed(error);
  char* info = bh_plugin_info_json(plugin, &error);
  if (!info) return failed(error);
  printf("%s: %s\n", bh_plugin_name(plugin), result);
  bh_free(info);
  bh_free(result);
  bh_plugin_free(plugin);
  bh_host_free(host);
  return 0;
}
