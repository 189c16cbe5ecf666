// thumbnailer DIR: an application that embeds bulkhead. It makes a thumbnail of every image below a folder with plugins
// that run in worker processes, survives whatever the files do to them, and writes a contact sheet. Then it does the
// same work in its own process and says what the isolation costs.
//
// To read: job.cpp for calling plugins, main.cpp for loading them, comparison.cpp for isolation::none.
//
// Exit status: 0 the job ran, and files that failed are a result; 1 it could not run; 2 wrong usage; 3 nothing to do.
#include "contact_sheet.hpp"
#include "progress.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace thumbnailer {
namespace {

constexpr int exit_failed = 1, exit_usage = 2, exit_nothing_to_do = 3;

struct settings {
  std::filesystem::path folder, output = "contact-sheet", plugins;
  unsigned workers = std::max(1u, std::thread::hardware_concurrency());
  unsigned max_side = 256;
  double deadline_ms = 10'000;
  bool no_compare = false, as_json = false;
};

// Throws CLI::ParseError.
settings read_command_line(int argc, char** argv) {
  using unit = CLI::AsNumberWithUnit;
  settings out;
  CLI::App app("Makes thumbnails of all images below a folder, in worker processes, and a contact sheet of them.",
               "thumbnailer");
  app.add_option("DIR", out.folder, "where the images are")->required()->check(CLI::ExistingDirectory);
  app.add_option("-o,--output", out.output, "folder for index.html and thumbs/ (default contact-sheet)");
  app.add_option("-n,--workers", out.workers, "how many worker processes (default: one for each CPU)")
      ->check(CLI::Range(1, 256));
  app.add_option("--size", out.max_side, "longer side of a thumbnail, in pixels (default 256)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--deadline", out.deadline_ms, "for each call, as 500ms or 5s (default 10s)")
      ->transform(unit(std::map<std::string, double>{{"ms", 1}, {"s", 1000}, {"m", 60'000}},
                       static_cast<unit::Options>(unit::CASE_SENSITIVE | unit::UNIT_REQUIRED)))
      ->type_name("TIME");
  app.add_option("--plugins", out.plugins, "folder with image.so and fragile.so")->check(CLI::ExistingDirectory);
  app.add_flag("--no-compare", out.no_compare, "do not measure the same job in-process");
  app.add_flag("--json", out.as_json, "print a JSON object instead of the summary");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    std::exit(0);
  }
  return out;
}

// Deaths of workers, as the host tells of them on its handler threads.
class crash_log {
 public:
  void add(const bulkhead::lifecycle_event& event) {
    if (event.kind != bulkhead::lifecycle_event::kind::exited || !event.report) return;
    if (event.report->reason == bulkhead::exit_reason::shut_down) return;
    const std::lock_guard held(mutex_);
    crashes_.push_back(event.report);
  }
  auto list() const {
    const std::lock_guard held(mutex_);
    return crashes_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const bulkhead::crash_report>> crashes_;
};

// The same crashes as their files tell of them, which have names in their stacks.
void name_stacks(report& report) {
  std::map<pid_t, bulkhead::crash_report> written;
  for (const auto& file : bulkhead::crash_reports_in(report.output / "crashes")) {
    bulkhead::crash_report each = bulkhead::read_crash_report(file);
    const pid_t pid = each.pid;
    written.try_emplace(pid, std::move(each));  // the newest first: older ones are of other runs
  }
  for (auto& crash : report.crashes)
    if (const auto found = written.find(crash->pid); found != written.end())
      crash = std::make_shared<const bulkhead::crash_report>(std::move(found->second));
}

toolset load_plugins(bulkhead::host& host, const settings& with, const std::vector<image_file>& files) {
  bulkhead::load_options options;
  options.instances = with.workers;
  options.deadline = std::chrono::microseconds(static_cast<std::int64_t>(with.deadline_ms * 1000));
  // A folder may hold any number of files that crash a decoder; each is to cost one error and no more.
  options.supervision.intensity.restarts = static_cast<unsigned>(files.size());
  options.supervision.backoff.first = std::chrono::nanoseconds(0);
  toolset tools;
  tools.image = host.load(with.plugins / "image.so", options);
  const bool netpbm = std::any_of(files.begin(), files.end(), [](const image_file& file) { return file.netpbm; });
  if (netpbm) tools.fragile = host.load(with.plugins / "fragile.so", options);
  return tools;
}

void run_job(report& report, const toolset& tools, progress& progress) {
  const std::filesystem::path thumbs = report.output / "thumbs";
  std::filesystem::create_directories(thumbs);
  std::mutex mutex;
  std::string write_error;
  job::options options;
  options.max_side = report.max_side;
  options.on_done = [&](std::size_t index, const result& made, bulkhead::bytes_view thumbnail) {
    report.results[index] = made;
    const bool ok = made.outcome == bulkhead::outcome::ok;
    try {
      if (ok) write_file(thumbs / report.files[index].thumbnail, thumbnail);
    } catch (const std::exception& error) {
      const std::lock_guard held(mutex);
      write_error = error.what();
    }
    progress.file_done(!ok);
  };
  // Two seats for each worker: while it works on one file, the next is on its way.
  job job(report.files, std::vector(2 * report.workers, tools), std::move(options));
  const auto begin = std::chrono::steady_clock::now();
  job.run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!write_error.empty()) throw std::runtime_error(write_error);
}

void measure_price(report& report, const toolset& tools, const settings& with, progress& progress) {
  comparison_options options;
  options.plugins = with.plugins;
  options.threads = with.workers;
  options.max_side = with.max_side;
  options.seconds_per_pass = report.seconds;
  options.on_progress = [&](const std::string& text) { progress.note(text); };
  try {
    report.price = compare(report.files, report.results, std::vector(2 * report.workers, tools), options);
  } catch (const std::exception& error) {
    report.no_price = error.what();
  }
}

void write_sheet(const report& report) {
  const std::string page = contact_sheet(report);
  write_file(report.output / "index.html", {reinterpret_cast<const std::uint8_t*>(page.data()), page.size()});
}

int run(settings with) {
  with.plugins = find_plugins(with.plugins);
  report report;
  report.folder = std::filesystem::canonical(with.folder);
  report.output = with.output;
  report.workers = with.workers;
  report.max_side = with.max_side;
  report.files = find_images(report.folder, with.output);
  report.results.resize(report.files.size());
  if (report.files.empty()) {
    fmt::print(stderr, "thumbnailer: there is no .jpg, .jpeg, .png, .webp, .ppm, .pgm or .pnm file below {}\n",
               with.folder.string());
    return exit_nothing_to_do;
  }

  progress progress(report.files.size());
  crash_log crashes;
  bulkhead::host_options options;
  options.crash_dir = report.output / "crashes";
  options.on_lifecycle = [&](const bulkhead::lifecycle_event& event) { crashes.add(event); };
  bulkhead::host host(options);
  {
    const toolset tools = load_plugins(host, with, report.files);
    run_job(report, tools, progress);
    report.crashes = crashes.list();
    write_sheet(report);  // already now: what comes next runs plugins in this process
    if (!with.no_compare) measure_price(report, tools, with, progress);
  }
  host.shutdown();  // after it no more is to be learned about workers
  report.crashes = crashes.list();
  if (!report.crashes.empty()) name_stacks(report);
  write_sheet(report);

  progress.clear();
  if (with.as_json) fmt::print("{}\n", to_json(report));
  else fmt::print("{}\n  contact sheet       {}\n", to_text(report), (report.output / "index.html").string());
  return 0;
}

}  // namespace
}  // namespace thumbnailer

int main(int argc, char** argv) {
  try {
    return thumbnailer::run(thumbnailer::read_command_line(argc, argv));
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "thumbnailer: {}\n'thumbnailer --help' tells what it takes.\n", error.what());
    return thumbnailer::exit_usage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "thumbnailer: {}\n", error.what());
    return thumbnailer::exit_failed;
  }
}
