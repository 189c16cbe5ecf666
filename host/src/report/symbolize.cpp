// See symbolize.hpp. One call for each file, all to one worker, which then ends. If a file kills it, the files after
// that one get another worker.
#include "report/symbolize.hpp"

#include "worker_process.hpp"

#include <fcntl.h>

namespace bulkhead {
namespace {

constexpr std::chrono::seconds time_limit{10}, end_limit{1};
constexpr std::size_t memory_limit = std::size_t{2} << 30;  // address space: the files are mapped
constexpr std::size_t text_limit = 1024, inlined_limit = 32;

using named = std::vector<std::tuple<std::string, std::string, int>>;  // function, source, line

class symbolizer {
 public:
  symbolizer(std::shared_ptr<host_core> core) : core_(std::move(core)), deadline_(ipc::clock::now() + time_limit) {}
  ~symbolizer() {
    if (!worker_) return;
    worker_->ask_to_leave();
    worker_->end(ipc::clock::now() + end_limit);
  }

  // For each offset what was there, innermost first; throws call_error.
  template <class File>
  std::vector<named> names(const char* method, const File& file, const std::string& build_id,
                           const std::vector<std::uint64_t>& offsets) {
    if (!worker_ || !worker_->alive()) start();
    call_request request;
    request.method = method;
    request.arguments = pack_arguments(file, build_id, offsets);
    request.deadline = deadline_;
    auto found = worker_->call(request).template as<std::vector<named>>();
    if (found.size() != offsets.size()) throw call_error(outcome::plugin_error, "not one answer for each offset");
    return found;
  }

 private:
  void start() {
    auto settings = std::make_shared<worker_settings>();
    settings->name = "bulkhead-symbolizer";
    settings->file = core_->forks.program().parent_path() / "bulkhead-symbolizer.so";
    try {
      const auto file = core_->files.open(settings->file);
      settings->plugin = {file, &file->copy};
    } catch (const std::runtime_error& e) {
      throw call_error(outcome::unavailable, e.what());
    }
    settings->internal = true;
    settings->options.start_timeout = time_limit;
    settings->rules.memory_limit(memory_limit).at_least(sandbox_level::limited);
    worker_ = std::make_shared<worker_process>(core_, settings, std::weak_ptr<worker_owner>(), 0);
    worker_->start();
    worker_->wait_ready();
  }

  const std::shared_ptr<host_core> core_;
  const ipc::time_point deadline_;
  std::shared_ptr<worker_process> worker_;
};

// The frames of one file.
struct file_frames {
  std::vector<std::size_t> frames;
  std::vector<std::uint64_t> offsets;
};

}  // namespace

void symbolize(const std::shared_ptr<host_core>& core, crash_report& report) {
  std::map<std::pair<code_origin, std::string>, file_frames> files;
  for (std::size_t i = 0; i < report.stack.size(); ++i) {
    const stack_frame& each = report.stack[i];
    if (each.origin == code_origin::unknown || !each.function.empty()) continue;
    file_frames& of = files[{each.origin, each.module}];
    of.frames.push_back(i);
    of.offsets.push_back(each.offset - (i > 0 ? 1 : 0));  // a return address may lie past the function's end
  }
  std::vector<named> found(report.stack.size());
  try {
    symbolizer reader(core);
    for (const auto& [file, of] : files) {
      const std::string& build_id = report.stack[of.frames.front()].build_id;
      std::vector<named> names;
      try {
        if (file.first == code_origin::library) {
          names = reader.names("names_in_library", file.second, build_id, of.offsets);
        } else {
          const unique_fd opened = file.first == code_origin::worker
                                       ? unique_fd(::open(file.second.c_str(), O_RDONLY | O_CLOEXEC))
                                   : report.image ? detail::duplicate(report.image->get())
                                                  : unique_fd();
          if (opened) names = reader.names("names", pass_fd{opened.get()}, build_id, of.offsets);
          else continue;
        }
      } catch (const call_error& e) {
        if (e.outcome() == outcome::unavailable || e.outcome() == outcome::timeout) throw;
        continue;
      }
      for (std::size_t i = 0; i < of.frames.size(); ++i) found[of.frames[i]] = std::move(names[i]);
    }
  } catch (const std::exception&) {
    // Not all have names then.
  }
  std::vector<stack_frame> stack;
  for (std::size_t i = 0; i < report.stack.size(); ++i) {
    const std::size_t places = std::min(found[i].size(), inlined_limit);
    if (places == 0) stack.push_back(report.stack[i]);
    for (std::size_t k = 0; k < places; ++k) {
      stack_frame& named = stack.emplace_back(report.stack[i]);
      const auto& [function, source, line] = found[i][k];
      named.function = ipc::sanitised(function, text_limit);
      named.source = ipc::sanitised(source, text_limit);
      named.line = line > 0 ? static_cast<unsigned>(line) : 0;
      named.inlined = k + 1 < places;
    }
  }
  report.stack = std::move(stack);
}

}  // namespace bulkhead
