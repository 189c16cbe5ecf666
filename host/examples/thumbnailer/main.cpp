// thumbnailer: thumbnails of all images below a folder, made in worker processes, and a contact sheet. At the end the
// same work is done in-process for comparison, which gives the price of isolation.
// Exit status: 0 done (files that failed are a result), 2 wrong usage, 3 nothing to do.
#include "contact_sheet.hpp"
#include "job.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <map>
#include <thread>
#include <unistd.h>

namespace {

using thumbnailer::result;
using seconds = std::chrono::duration<double>;

seconds timed(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::steady_clock::now() - begin;
}

std::function<void(const result&)> progress_bar(std::size_t files) {
  auto done = std::make_shared<std::size_t>(0);
  auto failed = std::make_shared<std::size_t>(0);
  return [=, terminal = ::isatty(STDERR_FILENO) == 1](const result& result) {
    ++*done;
    if (result.outcome != bulkhead::outcome::ok) ++*failed;
    if (terminal) {
      constexpr std::size_t width = 40;
      const std::size_t filled = *done * width / files;
      fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {}/{} files, {} failed ", "", filled, "", width - filled, *done, files, *failed);
      if (*done == files) fmt::print(stderr, "\n");
    } else if (*done == files) {
      fmt::print(stderr, "{} files, {} failed\n", files, *failed);
    }
  };
}

// The files that worked, isolated and in-process in turns: the median of three rounds of each, of about a second.
std::pair<seconds, seconds> compare(thumbnailer::options options, const std::vector<std::filesystem::path>& files) {
  thumbnailer::job isolated(options);
  options.isolation = bulkhead::isolation::none;
  thumbnailer::job direct(options);
  const auto ignore = [](const result&) {};
  direct.run(files, ignore);
  isolated.run(files, ignore);
  const double once = timed([&] { isolated.run(files, ignore); }).count();
  std::vector<std::filesystem::path> work;
  for (int i = 0, times = std::clamp(static_cast<int>(1.0 / std::max(once, 1e-3)), 1, 1000); i < times; ++i)
    work.insert(work.end(), files.begin(), files.end());
  std::vector<seconds> there, here;
  for (int round = 0; round < 3; ++round) {
    here.push_back(timed([&] { direct.run(work, ignore); }));
    there.push_back(timed([&] { isolated.run(work, ignore); }));
  }
  std::sort(there.begin(), there.end());
  std::sort(here.begin(), here.end());
  const double share = static_cast<double>(files.size()) / static_cast<double>(work.size());
  return {there[1] * share, here[1] * share};
}

std::filesystem::path default_plugins() {
  if (const char* path = ::secure_getenv("BULKHEAD_PLUGIN_PATH")) return std::string(path).substr(0, std::string(path).find(':'));
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "plugins";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Thumbnails of all images below a folder, made by plugins in worker processes"};
  std::filesystem::path folder, output = "thumbnails";
  thumbnailer::options options;
  options.workers = std::max(1u, std::thread::hardware_concurrency());
  options.plugins = default_plugins();
  double deadline = 10;
  bool no_compare = false;
  app.add_option("folder", folder, "Where the images are")->required()->check(CLI::ExistingDirectory);
  app.add_option("-o,--output", output, "Where index.html and thumbs/ go")->capture_default_str();
  app.add_option("-n,--workers", options.workers, "Worker processes")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--size", options.max_side, "The longer side, in pixels")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--deadline", deadline, "Seconds for one file")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--plugins", options.plugins, "Where image.so and fragile.so are")->capture_default_str();
  app.add_flag("--no-compare", no_compare, "Do not repeat the work in-process for comparison");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(deadline * 1000));

  try {
    const auto files = thumbnailer::find_images(folder);
    if (files.empty()) {
      fmt::print(stderr, "thumbnailer: no .jpg, .png, .webp, .ppm or .pgm files below {}\n", folder.string());
      return 3;
    }
    std::vector<result> results;
    unsigned crashes = 0;
    const seconds time = timed([&] {
      thumbnailer::job job(options);
      results = job.run(files, progress_bar(files.size()));
      crashes = job.crashes();
    });

    std::map<std::string, std::size_t> failures;
    std::vector<std::filesystem::path> good;
    for (const result& each : results) {
      if (each.outcome == bulkhead::outcome::ok) good.push_back(each.file);
      else ++failures[std::string(to_string(each.outcome))];
    }
    std::string summary;
    auto line = [&](const std::string& name, const std::string& value) { summary += fmt::format("{:<22} {:>10}\n", name, value); };
    line("files", std::to_string(files.size()));
    line("thumbnails", std::to_string(good.size()));
    for (const auto& [name, count] : failures) line("failed: " + name, std::to_string(count));
    line("crashes survived", std::to_string(crashes));
    line("workers", std::to_string(options.workers));
    line("time", fmt::format("{:.2f} s", time.count()));
    if (!no_compare && !good.empty()) {
      const auto [isolated, direct] = compare(options, good);
      line("isolated", fmt::format("{:.1f} files/s", static_cast<double>(good.size()) / isolated.count()));
      line("in-process", fmt::format("{:.1f} files/s", static_cast<double>(good.size()) / direct.count()));
      line("price of isolation", fmt::format("{:.1f} %", 100 * (isolated / direct - 1)));
    }
    thumbnailer::write_contact_sheet(output, std::filesystem::canonical(folder), results, summary);

    for (const result& each : results)
      if (each.outcome != bulkhead::outcome::ok)
        fmt::print("{}: {}: {}\n", std::filesystem::relative(each.file, folder).string(), failure_line(each), each.message);
    fmt::print("\n{}\nContact sheet: {}\n", summary, (output / "index.html").string());
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "thumbnailer: {}\n", error.what());
    return 1;
  }
}
