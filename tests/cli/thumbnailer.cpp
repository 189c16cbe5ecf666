// The example application: the job on the images it comes with, the contact sheet, and its exit statuses.
#include "program.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <fstream>
#include <regex>
#include <set>
#include <thread>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

const std::string images = BULKHEAD_TEST_IMAGES;

// What the page refers to.
std::set<std::string> links(const std::string& page) {
  const std::regex reference("(?:src|href)=\"([^\"#]+)\"");
  std::set<std::string> found;
  for (std::sregex_iterator at(page.begin(), page.end(), reference), end; at != end; ++at) found.insert((*at)[1]);
  return found;
}

}  // namespace

TEST_CASE("the shipped images give 18 thumbnails, 10 failures that say why, and 3 crashes survived") {
  const scratch_folder folder;
  const auto sheet = folder / "sheet";
  const finished done = run(
      {"thumbnailer", images, "-o", sheet.string(), "--workers", "2", "--no-compare", "--deadline", "100s", "--json"});
  REQUIRE(done.status == 0);
  const json made = json::parse(done.out);
  CHECK(made["files"] == 28);
  CHECK(made["thumbnails"] == 18);
  CHECK(made["failures"] == json{{"plugin_error", 7}, {"worker_lost", 3}});
  CHECK(made["crashes"].size() == 3);
  for (const json& crash : made["crashes"]) {
    CHECK(crash["plugin"] == "fragile");
#ifndef BULKHEAD_SANITIZED  // a sanitizer reports the overflow in its own way
    CHECK_THAT(crash["summary"].get<std::string>(), Contains("SIGSEGV") || Contains("SIGABRT"));
#endif
  }
  std::size_t failed = 0;
  for (const json& each : made["results"]) {
    if (each["outcome"] == "ok") {
      CHECK(std::filesystem::file_size(sheet / each["thumbnail"].get<std::string>()) > 0);
    } else {
      ++failed;
      CAPTURE(each);
      CHECK_FALSE(each["message"].get<std::string>().empty());
    }
  }
  CHECK(failed == 10);
}

TEST_CASE("the summary counts failures by outcome and crashes by signal, and names each file that failed") {
  const scratch_folder folder;
  const finished done =
      run({"thumbnailer", images, "-o", (folder / "sheet").string(), "--no-compare", "--deadline", "100s"});
  REQUIRE(done.status == 0);
  CHECK_THAT(done.out, Contains("  files               28\n") && Contains("  thumbnails          18\n") &&
                           Contains("  failures            10 (plugin_error 7, worker_lost 3)\n") &&
                           Contains("  crashes survived    3 ("));
  CHECK_THAT(done.out, Contains("  broken/text.jpg             plugin_error · image.thumbnail: not an image"));
  CHECK_THAT(done.out, Contains("  broken/lying.ppm            worker_lost · "));
}

TEST_CASE("the job has as many worker processes as it was told") {
  const scratch_folder folder;
  const auto in = folder / "in", thumbs = folder / "sheet/thumbs";
  std::filesystem::create_directory(in);
  for (int i = 0; i < 100; ++i)  // more than it gets through until it is stopped
    std::filesystem::copy_file(images + "/rocket.png", in / (std::to_string(i) + ".png"));
  const std::size_t workers = GENERATE(1u, 3u);
  const program job({"thumbnailer", in.string(), "-o", (folder / "sheet").string(), "--workers",
                     std::to_string(workers), "--no-compare", "--deadline", "100s"});
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while ((!std::filesystem::exists(thumbs) || std::filesystem::is_empty(thumbs)) &&
         std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  job.signal(SIGSTOP);
  std::set<pid_t> children;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(job.pid()) + "/task")) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child; list >> child;) children.insert(child);
  }
  CHECK(children.size() == 1 + workers);  // the fork server is one, too
}

TEST_CASE("the contact sheet shows every file, and failed ones with outcome, method and signal") {
  const scratch_folder folder;
  const auto sheet = folder / "sheet";
  REQUIRE(run({"thumbnailer", images, "-o", sheet.string(), "--no-compare", "--deadline", "100s"}).status == 0);
  const std::string page = contents(sheet / "index.html");
  std::size_t thumbnails = 0;
  for (const std::string& link : links(page)) {
    CAPTURE(link);
    CHECK(link.find("//") == std::string::npos);  // it needs nothing from elsewhere
    if (link.starts_with("thumbs/")) {
      ++thumbnails;
      CHECK(std::filesystem::exists(sheet / link));
    }
  }
  CHECK(thumbnails == 18);
  for (const char* expected : {"lying.ppm", "worker_lost", "plugin_error", "fragile.decode"})
    CHECK_THAT(page, Contains(expected));
#ifndef BULKHEAD_SANITIZED
  CHECK_THAT(page, Contains("SIGSEGV"));
#endif
}

TEST_CASE("however many files crash the decoder, each costs one error") {
  const scratch_folder folder;
  std::filesystem::create_directory(folder / "in");
  std::ifstream original(images + "/broken/lying.ppm", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(original), {}};
  for (int i = 0; i < 12; ++i)
    std::ofstream(folder / "in" / ("lying" + std::to_string(i) + ".ppm"), std::ios::binary) << bytes << i;
  std::filesystem::copy_file(images + "/netpbm/brushes.ppm", folder / "in" / "z.ppm");
  const finished done = run({"thumbnailer", (folder / "in").string(), "-o", (folder / "sheet").string(), "--no-compare",
                             "--deadline", "100s", "--json"});
  REQUIRE(done.status == 0);
  const json made = json::parse(done.out);
  CHECK(made["crashes"].size() == 12);
  CHECK(made["thumbnails"] == 1);
  for (const json& each : made["results"]) CHECK((each["outcome"] == "worker_lost" || each["outcome"] == "ok"));
}

TEST_CASE("files of more bytes than a message carries get their thumbnails, too") {
  const scratch_folder folder;
  const auto large = folder / "in/large.png";
  write(large, contents(images + "/rocket.png"));
  std::filesystem::resize_file(large, std::size_t{20} << 20);  // zeros after the image, which decoders ignore
  const finished done = run({"thumbnailer", (folder / "in").string(), "-o", (folder / "sheet").string(), "--no-compare",
                             "--deadline", "100s", "--json"});
  REQUIRE(done.status == 0);
  CHECK(json::parse(done.out)["thumbnails"] == 1);
}

TEST_CASE("names and messages can't put markup into the contact sheet") {
  const scratch_folder folder;
  const auto sheet = folder / "sheet";
  write(folder / "in/<script>alert(1)<&\">.jpg", "no image");
  REQUIRE(run({"thumbnailer", (folder / "in").string(), "-o", sheet.string(), "--no-compare"}).status == 0);
  const std::string page = contents(sheet / "index.html");
  CHECK(page.find("<script>alert") == std::string::npos);
  CHECK_THAT(page, Contains("&lt;script&gt;alert(1)"));
}

TEST_CASE("the summary tells the price of isolation beside the same job in-process") {
  const scratch_folder folder;
  write(folder / "in/one.png", contents(images + "/rocket.png"));
  const finished done = run({"thumbnailer", (folder / "in").string(), "-o", (folder / "sheet").string()});
  REQUIRE(done.status == 0);
  CHECK_THAT(done.out, !Contains("not measured"));
  CHECK_THAT(done.out, Contains("files               1\n") && Contains("crashes survived    0\n") &&
                           Contains("isolated") && Contains("in-process") && Contains("price of isolation"));
}

TEST_CASE("a job that can't be done says so by its exit status") {
  const scratch_folder folder;
  std::filesystem::create_directories(folder / "empty");
  const finished nothing = run({"thumbnailer", (folder / "empty").string(), "-o", (folder / "sheet").string()});
  CHECK(nothing.status == 3);
  CHECK_THAT(nothing.err, Contains("there is no .jpg"));
  const finished usage = run({"thumbnailer", (folder / "nowhere").string()});
  CHECK(usage.status == 2);
  CHECK_THAT(usage.err, Contains("nowhere"));
  write(folder / "file", "in the way");
  const finished unwritten = run({"thumbnailer", images, "-o", (folder / "file").string(), "--no-compare"});
  CHECK(unwritten.status == 1);
  CHECK_THAT(unwritten.err, Contains((folder / "file").string()));
}
